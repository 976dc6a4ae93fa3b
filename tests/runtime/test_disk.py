import errno
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from effnet.runtime import disk, temporary
from effnet.runtime.cache import writable_cache
from effnet.runtime.disk import DiskError, cannot_write, check_room, check_writable, retrying
from effnet.runtime.errors import UserError
from effnet.runtime.files import atomic_file, atomic_folder, atomic_path, write_text
from effnet.runtime.lines import LineFile
from effnet.runtime.temporary import remove_stale_temporaries, temporary_path
from effnet.weights import save_weights
from tests.small_disk import left_behind, small_disk

WRITER = """
import sys, time
from pathlib import Path
from effnet.runtime.files import atomic_file, atomic_folder
with atomic_file(Path(sys.argv[1])) as file, atomic_folder(Path(sys.argv[1] + ".d")) as folder:
    file.write(b"half")
    file.flush()
    (folder / "part").touch()
    print("written", flush=True)
    time.sleep(100)
"""


def start_writer(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    return process


def test_a_killed_process_leaves_nothing_for_the_next_run(tmp_path: Path) -> None:
    writers = [start_writer(tmp_path / name) for name in ("killed", "living")]
    try:
        killed = writers[0]
        assert len(left_behind(tmp_path)) == 4
        killed.send_signal(signal.SIGKILL)
        remove_stale_temporaries(tmp_path)  # even while nobody has waited for it
        killed.wait()
        remove_stale_temporaries(tmp_path)
        left = left_behind(tmp_path)
        assert len(left) == 2
        assert all(name.endswith(("living", "living.d")) for name in left)
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
    remove_stale_temporaries(tmp_path)
    assert left_behind(tmp_path) == []


def test_a_process_that_has_got_a_dead_ones_number_is_told_apart(tmp_path: Path) -> None:
    mine = temporary_path(tmp_path / "w.pth")
    started = temporary._started(os.getpid())
    assert started > 0
    other = tmp_path / mine.name.replace(f"-{started}-", f"-{started - 1}-")
    for path in (mine, other):
        path.touch()
    remove_stale_temporaries(tmp_path)
    assert mine.exists()
    assert not other.exists()


def test_another_machines_temporaries_are_left_alone_for_an_hour(tmp_path: Path) -> None:
    mine = temporary_path(tmp_path / "w.pth")
    others = [tmp_path / f".effnet-00000000-1-{n}-{mine.name[-14:]}" for n in (1, 2)]
    for path in others:
        path.touch()
    os.utime(others[0], (time.time() - 3700,) * 2)
    remove_stale_temporaries(tmp_path)
    assert [path.exists() for path in others] == [False, True]


def test_nothing_else_is_removed(tmp_path: Path) -> None:
    names = [".effnet-lock", ".effnet.lock", ".hidden", "effnet-00000000-1-1-00000000.w.pth", "w.pth"]
    for name in names:
        (tmp_path / name).touch()
    remove_stale_temporaries(tmp_path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted(names)
    remove_stale_temporaries(tmp_path / "absent")


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "mount it for writing"),
        (errno.ENOENT, "make its folder, or mount the disk again"),
        (errno.ESTALE, "mount it again"),
        (errno.EIO, "its disk fails"),
        (errno.EACCES, "get the right"),
    ],
)
def test_each_error_says_what_to_do(number: int, remedy: str) -> None:
    message = str(cannot_write("c.pth", OSError(number, os.strerror(number))))
    assert message.startswith(f"c.pth: can't be written ({os.strerror(number)}); ")
    assert remedy in message
    assert "\n" not in message


def test_a_library_that_hides_the_full_disk(tmp_path: Path) -> None:
    """PyTorch and safetensors have errors of their own, Pillow's has no number."""
    tensors = {"w": torch.zeros(2000, 1000)}
    with small_disk(tmp_path / "disk", 4) as full:
        full.fill()
        for name in ("w.pth", "w.safetensors"):
            with pytest.raises(
                DiskError, match=rf"^\S+/{name}: can't be written \((No space|File too large)"
            ):
                save_weights(full.root / name, tensors)
        with (
            pytest.raises(DiskError, match=r"w\.tar: can't be written"),
            atomic_file(full.root / "w.tar") as file,
        ):
            torch.save(tensors, file)
        with (
            pytest.raises(DiskError, match=r"p\.png: can't be written"),
            atomic_path(full.root / "p.png") as path,
        ):
            Image.effect_noise((1500, 1500), 100).save(path)
        assert left_behind(full.root) == []
        full.free()
        save_weights(full.root / "w.safetensors", {"w": torch.zeros(3)})


def test_an_error_of_the_program_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(KeyError), atomic_file(tmp_path / "w.pth"):
        raise KeyError("bug")


def test_a_folder_is_complete_or_absent(tmp_path: Path) -> None:
    def write(fails: bool) -> None:
        with atomic_folder(tmp_path / "new" / "out") as folder:
            (folder / "a").touch()
            if fails:
                raise ValueError

    with pytest.raises(ValueError):
        write(fails=True)
    assert list((tmp_path / "new").iterdir()) == []
    write(fails=False)
    with pytest.raises(FileExistsError):
        write(fails=False)
    assert [path.name for path in (tmp_path / "new").rglob("*")] == ["out", "a"]


def test_a_file_is_tried_before_the_work(tmp_path: Path) -> None:
    check_writable(tmp_path / "w.pth")
    check_writable(tmp_path / "new" / "w.pth", make_folder=True)
    assert [path.name for path in tmp_path.rglob("*")] == ["new"]
    (tmp_path / "file").write_text("x")
    check_writable(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "x"
    for path, reason in (
        (tmp_path, "Is a directory"),
        (tmp_path / "absent" / "w", "No such file"),
        (tmp_path / "file" / "w", "Not a directory"),
        (tmp_path / ("x" * 250), "File name too long"),
    ):
        with pytest.raises(DiskError, match=rf"can't be written \({reason}.*\); "):
            check_writable(path)
    with pytest.raises(DiskError, match="can't be written"):
        check_writable(tmp_path / "file" / "new" / "w", make_folder=True)


def test_a_checkpoint_needs_room(tmp_path: Path) -> None:
    check_room(tmp_path, 1000, "a checkpoint")
    with pytest.raises(
        DiskError, match=r"a checkpoint needs 1000000000.000 GB, but only \S+ GB are free; free some"
    ):
        check_room(tmp_path, 10**18, "a checkpoint")


def test_a_write_is_tried_again_for_as_long_as_asked(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, pauses, attempts = [0.0], [], []

    def wait(seconds: float) -> None:
        now[0] += seconds
        pauses.append(seconds)

    def write() -> None:
        attempts.append(now[0])
        if now[0] < 100:
            raise DiskError("c.pth: can't be written")

    monkeypatch.setattr(disk.time, "monotonic", lambda: now[0])
    with caplog.at_level(logging.WARNING, "effnet"):
        retrying(write, 2, wait=wait)
    assert pauses == [5, 10, 20, 40, 45]  # up to two minutes
    assert caplog.messages[0] == (
        "c.pth: can't be written; next attempt in 5 s, giving up in 2.0 minutes (--write-retry)"
    )
    for minutes, count in ((0.0, 1), (1.0, 5)):
        now[0] = 0
        attempts.clear()
        with pytest.raises(DiskError):
            retrying(write, minutes, wait=wait)
        assert len(attempts) == count

    def fail() -> None:
        raise UserError("not of the disk")

    with pytest.raises(UserError, match="not of the disk"):
        retrying(fail, 5, wait=wait)


def test_a_log_keeps_the_lines_that_the_disk_does_not_take(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with small_disk(tmp_path / "disk", 2) as full:
        full.needs_mount()
        log = LineFile(full.root / "report.json", append=False)
        lines = [f"{number} {'x' * 900}" for number in range(20)]
        log.write(lines[0])
        full.fill()
        for line in lines[1:10]:
            log.write(line)
        torn = (full.root / "report.json").read_bytes()
        assert 0 < len(torn) < sum(map(len, lines[:10]))
        full.free()
        for line in lines[10:]:
            log.write(line)
        log.close()
        assert (full.root / "report.json").read_text().splitlines() == lines
    assert len(caplog.messages) == 1
    assert "No space left on device" in caplog.messages[0]


def test_a_log_that_stays_full_says_so_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    log = LineFile(Path("/dev/full"), append=False)
    for _ in range(3):
        log.write("line")
    with pytest.raises(
        DiskError, match=r"/dev/full: can't be written \(No space.*its last 3 lines are lost$"
    ):
        log.close()
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("torn", ["", '{"a": 1', "x" * 200_000])
@pytest.mark.parametrize("whole", ["", "1\n", "1\n" + "y" * 100_000 + "\n"])
def test_a_torn_last_line_is_removed(tmp_path: Path, whole: str, torn: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(whole + torn)
    log = LineFile(path, append=True)
    log.write("2")
    log.close()
    assert path.read_text() == f"{whole}2\n"


def test_a_cache_that_can_not_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("EFFNET_HOME", str(tmp_path / "file"))
    assert writable_cache("compiled") == tmp_path / "file" / "compiled"
    (tmp_path / "other").touch()
    monkeypatch.setenv("EFFNET_HOME", str(tmp_path / "other"))
    assert writable_cache("compiled") is None
    assert "going on without this cache" in caplog.text


def test_a_disk_that_can_only_be_read_or_is_gone(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 2) as small:
        small.needs_mount()
        (small.root / "folder").mkdir()
        small.remount("ro")
        with pytest.raises(DiskError, match=r"can't be written \(Read-only file system\); its disk can only"):
            write_text(small.root / "w.csv", "1")
        small.remount("rw")
        write_text(small.root / "folder" / "w.csv", "1")
        small.vanish()
        with pytest.raises(DiskError, match=r"can't be written \(No such file.*mount the disk again"):
            write_text(small.root / "folder" / "w.csv", "2")
