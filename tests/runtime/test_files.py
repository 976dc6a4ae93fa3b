import ast
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from effnet.runtime.errors import UserError
from effnet.runtime.files import atomic_file, atomic_path, atomic_paths, write_text

SOURCE = Path(__file__).parents[2] / "src/effnet"


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def fail_half_way(path: Path, error: type[BaseException]) -> None:
    with atomic_file(path) as file:
        file.write(b"half")
        file.flush()
        assert len(names(path.parent)) == 2
        raise error("stop")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, UserError, SystemExit])
def test_any_error_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(b"before")
    with pytest.raises(error):
        fail_half_way(path, error)
    assert path.read_bytes() == b"before"
    assert names(tmp_path) == ["w.pth"]


def test_a_reader_sees_the_old_file_until_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    write_text(path, "before")
    with atomic_file(path, "w") as file:
        file.write("after\n")
        file.flush()
        assert path.read_text() == "before"
    assert path.read_bytes() == b"after\n"


def test_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "k.so"
    with atomic_path(path) as first, atomic_path(path) as second:
        assert first != second
        assert first.suffix == second.suffix == ".so"
        first.write_bytes(b"1")
        second.write_bytes(b"2")
    assert path.read_bytes() == b"1"  # whose block ends last
    assert names(tmp_path) == ["k.so"]


def test_files_that_belong_together_appear_together(tmp_path: Path) -> None:
    model, weights = tmp_path / "new/m.xml", tmp_path / "new/m.bin"
    with atomic_paths(model, weights, make_folder=True) as (temporary, companion):
        assert temporary.with_suffix(".bin") == companion
        temporary.write_text("x")
        companion.write_text("y")
        assert not model.exists()
    assert names(tmp_path / "new") == ["m.bin", "m.xml"]


def test_one_line_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "absent/w.pth"
    with pytest.raises(UserError, match=r"absent/w\.pth: can't be written \(No such file or directory\)"):
        write_text(path, "")
    folder = tmp_path / "folder"
    (folder / "full").mkdir(parents=True)
    with pytest.raises(UserError, match=r"folder: can't be written"):
        write_text(folder, "")
    assert names(tmp_path) == ["folder"]


def test_an_error_of_another_file_is_not_this_ones(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "best.pth") as temporary:
        shutil.copyfile(tmp_path / "latest.pth", temporary)
    assert names(tmp_path) == []


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"w\.csv: can't be written \(No space left on device\)"):
        write_text(tmp_path / "w.csv", "1")
    assert names(tmp_path) == []


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "w.csv", "1")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "w.csv").stat().st_mode) == 0o640


def calls(path: Path, matches: Callable[[str, ast.Call], bool]) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [
        f"{path.relative_to(SOURCE)}:{call.lineno}" for call in found if matches(ast.unparse(call.func), call)
    ]


def renames(function: str, call: ast.Call) -> bool:
    owner, _, name = function.rpartition(".")
    if function in ("os.replace", "os.rename", "os.renames", "shutil.move"):
        return True
    # `str.replace` takes two arguments, that of a recipe has one as `Path.replace` has.
    is_recipe = owner.removesuffix("()").rpartition(".")[2].lower() in (
        "recipe",
        "cls",
        "resolved",
        "given",
        "self",
    )
    return name == "rename" or (name == "replace" and len(call.args) == 1 and bool(owner) and not is_recipe)


def writes_in_place(function: str, call: ast.Call) -> bool:
    return function.rpartition(".")[2] in ("write_text", "write_bytes") and "." in function


def test_files_are_replaced_in_one_place() -> None:
    found = [place for path in sorted(SOURCE.rglob("*.py")) for place in calls(path, renames)]
    assert [place.partition(":")[0] for place in found] == ["runtime/files.py"]


def test_no_file_is_written_in_place() -> None:
    """Except temporary files (copies of standard input, images of a benchmark, a program to compile, the files that
    `atomic_path` moves into place), and files in a folder that does not count until it is complete: that of
    `atomic_folder`, or an environment before its last mark."""
    found = [place for path in sorted(SOURCE.rglob("*.py")) for place in calls(path, writes_in_place)]
    assert {place.partition(":")[0] for place in found} == {
        "inference/classify.py",
        "benchmark/data.py",
        "doctor/compiler.py",
        "export/edge/coreml.py",
        "export/edge/environment.py",
        "export/edge/formats.py",
        "export/edge/ncnn.py",
        "export/triton/models.py",
        "export/web/__init__.py",
        "export/web/runtime.py",
        "report/pictures.py",
        "training/trackers/thread.py",
    }
