"""Archives read in place, beside the folders that they were made from."""

import io
import json
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from effnet.cli import main
from effnet.data.archive_images import ArchiveImages, index_archive
from effnet.data.decode import BadImageError
from effnet.data.folder import list_images
from effnet.runtime.errors import UserError
from tests.data.archives import make_tar, make_zip
from tests.limits import refused

JPEG = b"\xff\xd8\xff\xe0 not an image"


def make_tgz(folder: Path, path: Path) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, arcname=".")
    return path


FORMS: dict[str, Callable[[Path, Path], Path]] = {
    "tar": lambda folder, out: make_tar(folder, out / "a.tar"),
    "tar with a folder above": lambda folder, out: make_tar(folder, out / "a.tar", "data/set"),
    "zip": lambda folder, out: make_zip(folder, out / "a.zip"),
    "zip without compression": lambda folder, out: make_zip(
        folder, out / "a.zip", "above", zipfile.ZIP_STORED
    ),
}


def images_of(path: Path, split: str = "train") -> ArchiveImages:
    index = index_archive(path)
    return index.images(split, index.classes(split))


@pytest.mark.parametrize("make", FORMS.values(), ids=FORMS)
def test_the_images_of_a_folder_come_in_its_order(
    make: Callable[[Path, Path], Path], folder: Path, tmp_path: Path
) -> None:
    index = index_archive(make(folder, tmp_path))
    assert index.splits == ("train", "val")
    for split in index.splits:
        expected = list_images(folder, split)
        images = index.images(split, expected.classes)
        assert images.classes == expected.classes == index.classes(split)
        assert np.array_equal(images.targets, expected.targets)
        for n, opened in enumerate(images.read(range(len(images)))):
            assert opened().data == expected.path(n).read_bytes()
            assert images.name(n) == str(expected.path(n).relative_to(folder / split))
    part = pickle.loads(pickle.dumps(images)).subset(np.array([3, 0]))
    assert [part.name(0), part.name(1)] == [images.name(3), images.name(0)]
    assert part.image(0).data == images.image(3).data
    assert part.fingerprint() != images.fingerprint()


def test_a_folder_of_classes_without_splits(folder: Path, tmp_path: Path) -> None:
    for path in (
        make_tar(folder / "val", tmp_path / "a.tar"),
        make_zip(folder / "val", tmp_path / "b.zip", "pets"),
    ):
        index = index_archive(path)
        assert (index.splits, index.classes("")) == ((), ["cat", "dog"])
        assert len(index.images("", ["cat", "dog"])) == 7
    one = index_archive(make_zip(folder / "val" / "cat", tmp_path / "c.zip", "pets/cat"))
    assert (one.classes(""), len(one.images("", ["dog", "cat"]))) == (["cat"], 4)
    assert one.images("", ["dog", "cat"]).targets.tolist() == [1, 1, 1, 1]
    with pytest.raises(UserError, match="pets/cat: no such class among the 1"):
        one.images("", ["dog"])


def test_what_macos_and_editors_leave_behind(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in (
            "d/cat/1.jpg",
            "__MACOSX/d/cat/._1.jpg",
            "d/cat/._1.jpg",
            "d/.cache/x/1.jpg",
            "d/cat/note.txt",
            "d/dog/deeper/2.jpg",
            "d/dog/1.JPG",
        ):
            archive.writestr(name, JPEG)
    index = index_archive(tmp_path / "a.zip")
    assert index.classes("") == ["cat", "dog"]
    images = index.images("", ["cat", "dog"])
    assert [images.name(n) for n in range(len(images))] == ["cat/1.jpg", "dog/1.JPG"]
    assert "d/dog/deeper/2.jpg" in caplog.text
    everything = index.all_images()
    assert [everything.name(n) for n in range(3)] == ["d/cat/1.jpg", "d/dog/1.JPG", "d/dog/deeper/2.jpg"]


def test_the_last_of_equal_names_counts(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for content in (b"first", b"second"):
            add(archive, "cat/1.jpg", content)
    assert images_of(tmp_path / "a.tar", "")._archive.content(
        images_of(tmp_path / "a.tar", "")._records[0], 100
    ) == (b"second")


def test_a_forked_process_reads_other_members_at_the_same_time(folder: Path, tmp_path: Path) -> None:
    images = images_of(make_zip(folder, tmp_path / "a.zip"))
    expected = [images.image(n).data for n in range(len(images))]
    child = os.fork()
    for _ in range(20):
        for n in range(len(images))[:: 1 if child else -1]:
            if images.image(n).data != expected[n]:
                os._exit(1) if not child else pytest.fail("another member's content")
    if not child:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def add(archive: tarfile.TarFile, name: str, content: bytes = JPEG, **fields: object) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for field, value in fields.items():
        setattr(member, field, value)
    archive.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("/etc/passwd.jpg", {}, "no path within"),
        ("cat/../../x.jpg", {}, "no path within"),
        ("cat/link.jpg", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd", "size": 0}, "is a link"),
        ("cat/link.jpg", {"type": tarfile.LNKTYPE, "linkname": "cat/1.jpg", "size": 0}, "is a link"),
    ],
)
def test_members_that_lead_out_of_a_tar(
    name: str, fields: dict[str, object], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        add(archive, "cat/1.jpg")
        add(archive, name, **fields)
    with refused(path) as caught:
        index_archive(path)
    assert message in str(caught.value)


def test_what_is_no_archive_that_can_be_read_in_place(folder: Path, tmp_path: Path) -> None:
    with refused(compressed := make_tgz(folder, tmp_path / "a.tar.gz")) as caught:
        index_archive(compressed)
    assert "unpack it" in str(caught.value)
    renamed = compressed.rename(tmp_path / "b.tar")
    (tmp_path / "c.zip").write_bytes(b"PK\x05\x06")
    (tmp_path / "d.tar").write_bytes(b"")
    link = tmp_path / "e.zip"
    with zipfile.ZipFile(link, "w") as archive:
        info = zipfile.ZipInfo("cat/1.jpg")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    for path in (renamed, tmp_path / "c.zip", tmp_path / "d.tar", link):
        with refused(path):
            index_archive(path)


def test_a_tar_that_is_cut_off_or_damaged_in_the_middle(folder: Path, tmp_path: Path) -> None:
    path = make_tar(folder, tmp_path / "a.tar")
    content = bytearray(path.read_bytes())
    path.write_bytes(content[: len(content) // 2])
    with refused(path):
        index_archive(path)
    place = content.find(b"./val/dog/1.jpg\0")
    content[place] ^= 0xFF  # the checksum of its header is wrong now
    path.write_bytes(content)
    with refused(path) as caught:
        index_archive(path)
    assert "damaged" in str(caught.value)


def test_a_member_that_is_damaged_or_too_large_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("cat/bomb.jpg", bytes(40 << 20))
        archive.writestr("cat/ok.jpg", JPEG * 100)
        archive.writestr("cat/stored.jpg", JPEG, zipfile.ZIP_STORED)
        archive.writestr("cat/xz.jpg", JPEG, zipfile.ZIP_LZMA)
    content = bytearray(path.read_bytes())
    content[content.find(JPEG) + 8] ^= 1
    path.write_bytes(content)
    index = index_archive(path)
    images = index.images("", ["cat"], max_pixels=1000)
    names = [images.name(n) for n in range(4)]
    for name, reason in (
        ("cat/bomb.jpg", "--max-pixels"),
        ("cat/stored.jpg", "checksum"),
        ("cat/xz.jpg", "Deflate"),
    ):
        with pytest.raises(BadImageError, match=f"a.zip: {name}: can't be read: .*{reason}"):
            images.image(names.index(name))


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = make_zip_with_flag(tmp_path / "a.zip")
    with refused(path) as caught:
        index_archive(path)
    assert "password" in str(caught.value)


def make_zip_with_flag(path: Path) -> Path:
    """A zip whose directory says that its member is encrypted."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("cat/1.jpg", JPEG)
    content = bytearray(path.read_bytes())
    content[content.find(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    return path


def test_a_check_names_the_broken_member(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_zip(folder, tmp_path / "a.zip", "pets", zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    broken = (folder / "train" / "dog" / "3.jpg").read_bytes()
    content[content.find(broken) + len(broken) // 2] ^= 1
    path.write_bytes(content)
    assert main(["prepare", "check", str(path), "--workers", "0", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    found = report["splits"]["train"]["broken"]
    assert list(found) == [f"{path}: pets/train/dog/3.jpg"]
    assert "checksum" in found[f"{path}: pets/train/dog/3.jpg"]
    assert report["splits"]["val"]["images"] == 7
    assert not any("extension" in name for split in report["splits"].values() for name in split["odd"])
