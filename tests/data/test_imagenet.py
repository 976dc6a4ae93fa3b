import io
import os
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from effnet.data.folder import list_images
from effnet.data.imagenet import prepare_imagenet, read_devkit, read_val_classes
from effnet.runtime.errors import UserError

WNIDS = ["n01440764", "n01443537", "n15075141"]
IN_CLASS = 4
VAL = [WNIDS[n] for n in (2, 0, 0, 1, 2, 1)]


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def tar_of(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            add(tar, name, content)
    return path


def content(name: str) -> bytes:
    """Anything, of a size that takes several blocks of a tar file."""
    return name.encode() * 100


@pytest.fixture
def train_tar(tmp_path: Path) -> Path:
    tars = {}
    for wnid in WNIDS:
        names = [f"{wnid}_{n}.JPEG" for n in range(IN_CLASS)]
        inner = tar_of(tmp_path / "inner.tar", {name: content(name) for name in names})
        tars[f"{wnid}.tar"] = inner.read_bytes()
        inner.unlink()
    return tar_of(tmp_path / "ILSVRC2012_img_train.tar", tars)


@pytest.fixture
def val_tar(tmp_path: Path) -> Path:
    names = [f"ILSVRC2012_val_{n:08d}.JPEG" for n in range(1, len(VAL) + 1)]
    # archives need not be in the order of the names, on which the classes depend
    return tar_of(tmp_path / "ILSVRC2012_img_val.tar", {name: content(name) for name in reversed(names)})


def assert_complete(out: Path) -> None:
    train, val = (list_images(out, split) for split in ("train", "val"))
    assert train.classes == val.classes == WNIDS
    assert np.bincount(train.targets).tolist() == [IN_CLASS] * 3
    files = [images.path(i) for images in (train, val) for i in range(len(images))]
    assert all(path.read_bytes() == content(path.name) for path in files)
    numbers = {path.name: path.parent.name for path in files if path.parent.parent.name == "val"}
    assert [numbers[f"ILSVRC2012_val_{n:08d}.JPEG"] for n in range(1, len(VAL) + 1)] == VAL
    # nothing but that is left
    assert {path for path in out.rglob("*") if path.is_file()} == set(files)
    assert sorted(path.name for path in [*out.iterdir(), *(out / "train").iterdir()]) == [
        *WNIDS,
        "train",
        "val",
    ]


def test_archives_become_class_folders(tmp_path: Path, train_tar: Path, val_tar: Path) -> None:
    before = train_tar.read_bytes(), val_tar.read_bytes()
    summary = prepare_imagenet(train_tar, val_tar, tmp_path / "new" / "out", VAL)
    assert_complete(tmp_path / "new" / "out")
    assert summary.images == {"train": 12, "val": 6}
    assert summary.warnings == [
        "train/ has 3 classes, not 1,000",
        "val/ has 3 classes, not 1,000",
        "train/ has 12 images, not 1,281,167",
        "val/ has 6 images, not 50,000",
    ]
    assert (train_tar.read_bytes(), val_tar.read_bytes()) == before


@pytest.mark.parametrize("after", range(1, 12))
def test_an_interrupted_run_is_finished(
    tmp_path: Path, train_tar: Path, val_tar: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """As by SIGKILL: nothing is tidied up, the disk is left as it is at any of the renamings, or in a copy."""
    out, renamed, replace = tmp_path / "out", [], os.replace

    def interrupted(source: Path, target: Path) -> None:
        renamed.append(target)
        if len(renamed) == after:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    if after <= len(WNIDS) + len(VAL) + 1:
        with pytest.raises(KeyboardInterrupt):
            prepare_imagenet(train_tar, val_tar, out, VAL)
        for path in out.glob("train/.*.unfinished/*.JPEG"):
            path.write_bytes(b"half")
        for path in out.glob(".val.unfinished/.part"):
            path.write_bytes(b"half")
    times = {path: path.stat().st_mtime_ns for path in out.glob("train/n*/*")}
    monkeypatch.setattr(os, "replace", replace)
    prepare_imagenet(train_tar, val_tar, out, VAL)
    assert_complete(out)
    assert times.items() <= {path: path.stat().st_mtime_ns for path in out.glob("train/n*/*")}.items()


def test_what_is_done_is_left_alone(tmp_path: Path, train_tar: Path, val_tar: Path) -> None:
    out = tmp_path / "out"
    prepare_imagenet(train_tar, val_tar, out, VAL)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    val_tar.unlink()  # nobody needs it any more
    prepare_imagenet(train_tar, val_tar, out, VAL)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == times


def test_no_archive_writes_elsewhere(tmp_path: Path, val_tar: Path) -> None:
    evil = tmp_path / "evil.tar"
    with tarfile.open(evil, "w") as tar:
        for name in ("../../outside.JPEG", "/tmp/effnet-outside.JPEG", "n1/inside.JPEG", ".hidden"):
            add(tar, name, b"content")
        link = tarfile.TarInfo("link.JPEG")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    names = [f"{wnid}.tar" for wnid in WNIDS]
    files = {f"../{names[0]}": evil.read_bytes(), "..tar": b"", **dict.fromkeys(names[1:], evil.read_bytes())}
    train_tar = tar_of(tmp_path / "train.tar", files)
    before = set(tmp_path.iterdir())
    prepare_imagenet(train_tar, val_tar, tmp_path / "out", VAL)
    assert set(tmp_path.iterdir()) - before == {tmp_path / "out"}
    assert not Path("/tmp/effnet-outside.JPEG").exists()
    for wnid in WNIDS:
        found = sorted(path.name for path in (tmp_path / "out" / "train" / wnid).iterdir())
        assert found == ["effnet-outside.JPEG", "inside.JPEG", "outside.JPEG"]


def devkit(path: Path, numbers: Sequence[int], wnids: Sequence[str]) -> Path:
    io_module = pytest.importorskip("scipy.io")
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O")]
    synsets = np.array([(n, wnid, f"words of {wnid}") for n, wnid in enumerate(wnids, 1)], dtype=kind)
    meta = io.BytesIO()
    io_module.savemat(meta, {"synsets": synsets[:, None]})
    truth = "".join(f"{number}\n" for number in numbers).encode()
    return tar_of(
        path,
        {
            "ILSVRC2012_devkit_t12/readme.txt": b"",
            "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": truth,
            "ILSVRC2012_devkit_t12/data/meta.mat": meta.getvalue(),
        },
        "w:gz",
    )


def test_the_development_kit_has_the_classes(tmp_path: Path) -> None:
    # its numbers are not in the order of the names
    kit = devkit(tmp_path / "kit.tar.gz", [2, 3, 1, 1], ["n3", "n1", "n2"])
    assert read_devkit(kit) == ["n1", "n2", "n3", "n3"]
    assert read_devkit(devkit(tmp_path / "one.tar.gz", [1], ["n1"])) == ["n1"]


def test_a_development_kit_that_is_none(tmp_path: Path) -> None:
    pytest.importorskip("scipy.io")
    with pytest.raises(UserError, match=r"kit\.tar\.gz: not ILSVRC2012's development kit"):
        read_devkit(devkit(tmp_path / "kit.tar.gz", [4], ["n3", "n1", "n2"]))
    with pytest.raises(UserError, match="no ILSVRC2012_validation_ground_truth.txt in it"):
        read_devkit(tar_of(tmp_path / "other.tar.gz", {"a.txt": b""}, "w:gz"))
    with pytest.raises(UserError, match="no such file"):
        read_devkit(tmp_path / "nowhere.tar.gz")
    (tmp_path / "text.tar.gz").write_text("hello")
    with pytest.raises(UserError, match="no tar archive"):
        read_devkit(tmp_path / "text.tar.gz")


def test_scipy_is_named_when_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(UserError, match=r"install -e '.*\[imagenet\]'"):
        read_devkit(tmp_path / "kit.tar.gz")


def test_classes_from_a_list(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("n2\nn1\r\nn2\n")
    assert read_val_classes(tmp_path / "classes.txt") == ["n2", "n1", "n2"]
    with pytest.raises(UserError, match=r"nowhere\.txt: No such file"):
        read_val_classes(tmp_path / "nowhere.txt")


@pytest.mark.parametrize("which", ["train", "val"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6])
def test_a_truncated_archive_is_named(
    tmp_path: Path, train_tar: Path, val_tar: Path, which: str, share: float
) -> None:
    path = {"train": train_tar, "val": val_tar}[which]
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UserError, match=f"^{path}: (truncated|no .* files)") as raised:
        prepare_imagenet(train_tar, val_tar, tmp_path / "out", VAL)
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.glob("out/train/n*"))  # told before the work starts


def test_arguments_that_do_not_fit(
    tmp_path: Path, train_tar: Path, val_tar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError, match="6 images, but the list of their classes 5"):
        prepare_imagenet(train_tar, val_tar, out, VAL[:-1])
    with pytest.raises(UserError, match="'n9', which is none of the training classes"):
        prepare_imagenet(train_tar, val_tar, out, ["n9", *VAL[1:]])
    with pytest.raises(UserError, match=r"no \.tar files in it"):
        prepare_imagenet(val_tar, train_tar, out, VAL)
    with pytest.raises(UserError, match="no such file"):
        prepare_imagenet(tmp_path / "nowhere.tar", val_tar, out, VAL)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file: "):
        prepare_imagenet(train_tar, val_tar, tmp_path / "file", VAL)
    usage = type("usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(UserError, match="GB are free"):
        prepare_imagenet(train_tar, val_tar, out, VAL)
