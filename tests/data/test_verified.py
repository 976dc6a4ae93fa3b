"""The check before a training finds what decoding in full finds, and remembers sound files."""

import io
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from effnet.data.decode import BadImageError, EncodedImage
from effnet.data.folder import ImageFolder, list_images
from effnet.data.survey import surveyed
from effnet.data.verified import Keys, Memory, file_keys, find_broken

from .conftest import photograph

FORMS = {
    "baseline": ("JPEG", {}),
    "progressive": ("JPEG", {"progressive": True}),
    "restarts": ("JPEG", {"restart_marker_rows": 1}),
    "png": ("PNG", {}),
    "webp": ("WEBP", {}),
    "gif": ("GIF", {}),
    "tiff": ("TIFF", {}),
}


def encoded(form: str) -> bytes:
    file = io.BytesIO()
    kind, options = FORMS[form]
    noise = np.random.default_rng(0).integers(0, 60, (120, 160, 3), dtype=np.uint8)
    image = Image.fromarray(np.asarray(photograph(120, 160)) // 2 + noise)
    image.save(file, kind, **options)  # type: ignore[arg-type]
    return file.getvalue()


def is_broken(data: bytes, *, whole: bool) -> bool:
    try:
        image = EncodedImage("image", data)
        if whole:
            image.decode()
        else:
            image.verify()
    except BadImageError:
        return True
    return False


@pytest.mark.parametrize("form", FORMS)
def test_what_decoding_in_full_refuses_is_found(form: str) -> None:
    data = encoded(form)
    damaged = [
        *(data[: round(share * len(data))] for share in np.linspace(0, 1, 60, endpoint=False)),
        *(data[: round(share * len(data))] + b"\xff\xd9" for share in (0.2, 0.5, 0.9)),
        *(data[:at] + bytes(300) + data[at + 300 :] for at in (0, len(data) // 3, len(data) // 2)),
        *(data[:at] + data[at + 300 :] for at in (200, len(data) // 3, len(data) // 2)),
        bytes(len(data)),
        b"these are words\n" * 100,
    ]
    assert not is_broken(data, whole=False)
    verdicts = [is_broken(part, whole=False) for part in damaged]
    assert verdicts == [is_broken(part, whole=True) for part in damaged]
    assert sum(verdicts) > len(damaged) / 2


@pytest.fixture
def images(tmp_path: Path) -> ImageFolder:
    """Nine images, of which the fifth and the seventh are broken."""
    for n in range(9):
        path = tmp_path / "train" / f"class{n % 2}" / f"{n}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        photograph(20, 20, seed=n).save(path)
    listed = list_images(tmp_path, "train")
    for index in (4, 6):
        listed.path(index).write_bytes(listed.path(index).read_bytes()[:300])
    return listed


def everything(images: ImageFolder) -> np.ndarray:
    return np.arange(len(images))


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_ones_are_found_by_any_number_of_workers(
    images: ImageFolder, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("effnet.data.verified.surveyed", partial(surveyed, at_once=2))
    parts = list(find_broken(images, everything(images)[1:], workers=workers))
    assert [part.tolist() for part, _ in parts] == [[1, 2], [3, 4], [5, 6], [7, 8]]
    assert [sorted(flaws) for _, flaws in parts] == [[], [4], [6], []]
    assert parts[1][1][4].startswith("can't be decoded: ")


def process_id(images: ImageFolder, indices: np.ndarray) -> int:
    return os.getpid()


def test_a_few_images_need_no_process(images: ImageFolder) -> None:
    assert [found for _, found in surveyed(process_id, images, everything(images), workers=2)] == [
        os.getpid()
    ]
    several = {found for _, found in surveyed(process_id, images, everything(images), workers=2, at_once=3)}
    assert len(several) == 2
    assert os.getpid() not in several


def kill_itself(images: ImageFolder, indices: np.ndarray) -> None:
    os.kill(os.getpid(), 9)


def test_a_killed_worker_is_told(images: ImageFolder) -> None:
    with pytest.raises(ValueError, match="killed by SIGKILL, possibly out of memory"):
        list(surveyed(kill_itself, images, everything(images), workers=2, at_once=3))


def keys_of(images: ImageFolder) -> Keys:
    return file_keys(images, everything(images), workers=0)


def changed(before: Keys, after: Keys) -> list[int]:
    return np.flatnonzero(before != after).tolist()


def test_a_file_that_changes_gets_another_key(images: ImageFolder) -> None:
    before = keys_of(images)
    assert len(set(before.tolist())) == len(images)
    assert changed(before, keys_of(images)) == []
    content, (accessed, written) = images.path(1).read_bytes(), os.stat(images.path(1))[7:9]
    images.path(1).write_bytes(content + b" ")
    os.utime(images.path(1), (accessed, written))
    os.utime(images.path(2), (accessed, written + 1))
    images.path(3).unlink()
    assert changed(before, keys_of(images)) == [1, 2, 3]
    assert changed(keys_of(images), keys_of(images)) == [3]  # what is not there is never known


def test_keys_do_not_depend_on_how_the_folder_is_named(
    images: ImageFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(images.root.parent)
    named_otherwise = list_images(Path("."), "train")
    assert changed(keys_of(images), keys_of(named_otherwise)) == []
    cache = images.root.parent / "cache"
    Memory(cache, images).write(keys_of(images))
    assert len(Memory(cache, named_otherwise).read()) == len(images)


def test_memory_is_of_a_folder_and_of_what_decodes(
    images: ImageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = Memory(tmp_path / "cache", images)
    assert not len(memory.read())
    memory.write(keys_of(images))
    assert changed(keys_of(images), memory.read()) == []
    (tmp_path / "val").symlink_to(images.root)
    assert len(Memory(tmp_path / "cache", list_images(tmp_path, "val")).read()) == len(images)
    photograph(20, 20).save(tmp_path / "0.jpg")
    (tmp_path / "other" / "train" / "a").mkdir(parents=True)
    (tmp_path / "0.jpg").rename(tmp_path / "other" / "train" / "a" / "0.jpg")
    assert not len(Memory(tmp_path / "cache", list_images(tmp_path / "other", "train")).read())
    monkeypatch.setattr("effnet.data.verified.decoders", lambda: "another decoder")
    assert not len(Memory(tmp_path / "cache", images).read())


@pytest.mark.parametrize("content", [b"", b"no array", b"\x93NUMPY\x01\x00"])
def test_what_is_damaged_is_not_remembered(images: ImageFolder, tmp_path: Path, content: bytes) -> None:
    memory = Memory(tmp_path / "cache", images)
    memory.write(keys_of(images))
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(content)
    assert not len(memory.read())


def test_a_cache_that_cannot_be_written_is_no_error(images: ImageFolder, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    memory = Memory(tmp_path / "cache", images)
    memory.write(keys_of(images))
    assert not len(memory.read())


def test_only_the_latest_folders_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("effnet.data.verified._FOLDERS_KEPT", 2)
    memories = []
    for n in range(3):
        copied = tmp_path / f"copy{n}" / "train" / "a"
        copied.mkdir(parents=True)
        photograph(20, 20).save(copied / "0.jpg")
        listed = list_images(tmp_path / f"copy{n}", "train")
        memories.append(Memory(tmp_path / "cache", listed))
        memories[-1].write(keys_of(listed))
        for age, file in enumerate(
            sorted((tmp_path / "cache").iterdir(), key=os.path.getmtime, reverse=True)
        ):
            os.utime(file, (1e9 - age, 1e9 - age))
    assert [len(memory.read()) for memory in memories] == [0, 1, 1]
