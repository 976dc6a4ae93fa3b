import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from effnet.cli import main
from effnet.data.folder import list_images
from effnet.data.pack import PackSettings, pack
from effnet.data.packed import verify
from effnet.runtime.errors import UserError

from .conftest import photograph

# three workers on two cores
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

RAW = PackSettings(32, None, images_per_shard=5)
JPEG = PackSettings(32, 90, images_per_shard=5)


def contents(root: Path) -> dict[Path, bytes]:
    return {p.relative_to(root): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def members(shard: Path) -> dict[str, bytes]:
    found = {}
    with tarfile.open(shard) as tar:
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            found[member.name] = file.read()
    return found


@pytest.mark.parametrize("settings", [RAW, JPEG], ids=["raw", "jpeg"])
def test_every_image_is_in_a_tar_once_with_its_target(
    folder: Path, tmp_path: Path, settings: PackSettings
) -> None:
    assert pack(folder, tmp_path / "out", settings, workers=0) == {"train": 22, "val": 7}
    suffix = "jpg" if settings.quality else "npy"
    for split, count in {"train": 22, "val": 7}.items():
        images = list_images(folder, split)
        targets = []
        shards = sorted((tmp_path / "out" / split).glob("*.tar"))
        assert len(shards) == -(-count // 5)
        for shard in shards:
            found = members(shard)
            keys = sorted({name.split(".")[0] for name in found})
            assert list(found) == [f"{key}.{s}" for key in keys for s in (suffix, "cls")]
            targets += [int(found[f"{key}.cls"]) for key in keys]
        assert sorted(targets) == images.targets.tolist()
        assert (targets == images.targets.tolist()) == (split == "val")  # training images are shuffled
        index = json.loads((tmp_path / "out" / split / "index.json").read_bytes())
        assert index["classes"] == ["cat", "dog"]
        assert sum(shard["images"] for shard in index["shards"]) == count


def test_images_are_shrunk_to_the_size_and_never_enlarged(tmp_path: Path) -> None:
    place = tmp_path / "in" / "val" / "a"
    place.mkdir(parents=True)
    photograph(100, 150).save(place / "0large.png")
    photograph(20, 30).save(place / "1small.png")
    photograph(20, 30).save(place / "2small.jpg", quality=60)
    pack(tmp_path / "in", tmp_path / "raw", RAW, workers=0)
    raw = members(tmp_path / "raw" / "val" / "000000.tar")
    pixels = [np.load(io.BytesIO(v)) for k, v in raw.items() if k.endswith("npy")]
    assert [p.shape for p in pixels] == [(32, 48, 3), (20, 30, 3), (20, 30, 3)]
    expected = np.asarray(photograph(100, 150).resize((48, 32), Image.Resampling.BICUBIC))
    assert np.abs(pixels[0].astype(int) - expected).max() <= 1
    np.testing.assert_array_equal(pixels[1], np.asarray(photograph(20, 30)))
    pack(tmp_path / "in", tmp_path / "jpeg", JPEG, workers=0)
    # a JPEG that is small enough is not encoded again
    jpeg = members(tmp_path / "jpeg" / "val" / "000000.tar")
    assert jpeg["00000002.jpg"] == (place / "2small.jpg").read_bytes()


def test_the_bytes_do_not_depend_on_the_number_of_workers(folder: Path, tmp_path: Path) -> None:
    pack(folder, tmp_path / "alone", JPEG, workers=0)
    pack(folder, tmp_path / "three", JPEG, workers=3)
    assert contents(tmp_path / "alone") == contents(tmp_path / "three")


def test_a_complete_packing_is_left_alone(folder: Path, tmp_path: Path) -> None:
    pack(folder, tmp_path, JPEG, workers=0)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    assert pack(folder, tmp_path, JPEG, workers=0) == {"train": 22, "val": 7}
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 images."""
    root = tmp_path_factory.mktemp("many")
    for label in range(3):
        (root / "train" / str(label)).mkdir(parents=True)
        for n in range(200):
            photograph(120, 120, seed=n).save(root / "train" / str(label) / f"{n}.jpg")
    return root


@pytest.mark.parametrize("fraction", [0.2, 0.7])
def test_a_killed_packing_goes_on_to_the_same_bytes(many: Path, tmp_path: Path, fraction: float) -> None:
    settings = PackSettings(64, 90, images_per_shard=20)
    pack(many, tmp_path / "whole", settings, workers=2)
    out = tmp_path / "killed"
    code = (
        "import sys; from pathlib import Path; from effnet.data.pack import PackSettings, pack\n"
        "pack(Path(sys.argv[1]), Path(sys.argv[2]), PackSettings(64, 90, images_per_shard=20), workers=2)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(many), str(out)])
    deadline = time.monotonic() + 60
    while len(list(out.glob("train/*.tar"))) < fraction * 30 and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / "train" / "index.json").exists(), "killed too late"
    written = {p: p.stat().st_mtime_ns for p in out.glob("train/*.tar")}
    assert len(written) >= fraction * 30
    pack(many, out, settings, workers=2)
    assert contents(out) == contents(tmp_path / "whole")
    kept = sum(p.stat().st_mtime_ns == when for p, when in written.items())
    assert kept >= len(written) - 4  # all but those of workers that were at it


def test_a_broken_image_stops_the_packing_or_is_left_out(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "in" / "train" / "a"
    source.mkdir(parents=True)
    for n in range(7):
        photograph(40, 40, seed=n).save(source / f"{n}.jpg")
    broken = source / "3.jpg"
    broken.write_bytes(broken.read_bytes()[:700])
    for workers in (0, 2):
        out = tmp_path / f"out{workers}"
        with pytest.raises(UserError, match=f"^{broken}: can't be decoded") as raised:
            pack(tmp_path / "in", out, JPEG, workers=workers)
        assert "\n" not in str(raised.value)
        assert pack(tmp_path / "in", out, JPEG, workers=workers, skip_bad=True) == {"train": 6}
        index = json.loads((out / "train" / "index.json").read_bytes())
        assert list(index["left_out"]) == ["a/3.jpg"]


def test_writes_over_nothing_else(folder: Path, tmp_path: Path) -> None:
    pack(folder, tmp_path / "out", JPEG, workers=0)
    with pytest.raises(UserError, match="other settings"):
        pack(folder, tmp_path / "out", RAW, workers=0)
    (tmp_path / "other" / "train").mkdir(parents=True)
    (tmp_path / "other" / "train" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something else"):
        pack(folder, tmp_path / "other", JPEG, workers=0)


def test_other_images_are_another_packing(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "in" / "train" / "a"
    source.mkdir(parents=True)
    photograph(40, 40).save(source / "1.jpg")
    pack(tmp_path / "in", tmp_path / "out", JPEG, workers=0)
    photograph(40, 40).save(source / "2.jpg")
    with pytest.raises(UserError, match="other images"):
        pack(tmp_path / "in", tmp_path / "out", JPEG, workers=0)


@pytest.mark.parametrize("damage", ["changed", "shortened", "removed", "records"])
def test_verification_finds_damage(folder: Path, tmp_path: Path, damage: str) -> None:
    pack(folder, tmp_path, JPEG, workers=0)
    assert verify(tmp_path) == {"train": 22, "val": 7}
    shard = tmp_path / "train" / "000002.tar"
    if damage == "removed":
        shard.unlink()
    elif damage == "shortened":
        shard.write_bytes(shard.read_bytes()[:-512])
    else:
        shard = tmp_path / "train" / "index.npy" if damage == "records" else shard
        data = bytearray(shard.read_bytes())
        data[len(data) // 2] ^= 1
        shard.write_bytes(data)
    with pytest.raises(UserError, match=str(shard)):
        verify(tmp_path)


def test_nothing_to_verify(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="effnet prepare pack"):
        verify(tmp_path)


@pytest.mark.parametrize(
    "flags",
    [["--size", "8"], ["--quality", "0"], ["--quality", "90", "--raw"], ["--size", "big"]],
)
def test_flags_out_of_range(
    folder: Path, tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prepare", "pack", str(folder), str(tmp_path / "out"), *flags]) == 2
    assert flags[0] in capsys.readouterr().err


def test_the_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["prepare", "pack", str(folder), str(tmp_path), "--size", "32", "--raw", "-j", "0", "--verify"]
    assert main(command) == 0
    assert "22 images in train, 7 images in val" in capsys.readouterr().out
    assert main(["prepare", "pack", str(tmp_path / "nothing"), str(tmp_path)]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_dali_reads_the_shards(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("nvidia.dali")
    from nvidia.dali import fn, pipeline_def

    pack(folder, tmp_path, JPEG, workers=0)
    shards = sorted((tmp_path / "val").glob("*.tar"))

    @pipeline_def(batch_size=7, num_threads=1, device_id=None)
    def pipeline() -> object:
        read: Any = fn.readers.webdataset(
            paths=[str(s) for s in shards],
            index_paths=[str(s.with_suffix(".idx")) for s in shards],
            ext=["jpg", "cls"],
        )
        return fn.decoders.image(read[0]), read[1]

    built: Any = pipeline()
    pixels, labels = built.run()
    expected = [members(shard) for shard in shards]
    contents_ = {k: v for found in expected for k, v in found.items()}
    for n in range(7):
        assert bytes(np.asarray(labels[n]).tobytes()) == contents_[f"{n:08d}.cls"]
        image = Image.open(io.BytesIO(contents_[f"{n:08d}.jpg"])).convert("RGB")
        assert np.abs(np.asarray(pixels[n]).astype(int) - np.asarray(image)).mean() < 2
