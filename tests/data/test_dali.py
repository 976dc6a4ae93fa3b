import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as F

from effnet.data import DataSource, Preprocessing
from effnet.data.augmentations import AUGMENTATIONS, autoaugment_torchvision
from effnet.data.pack import PackSettings, pack
from effnet.recipe import DataSettings
from effnet.runtime.errors import UserError

from .batches import assert_same, of
from .conftest import Opened, photograph

pytest.importorskip("nvidia.dali", reason="NVIDIA DALI is not installed: extra dali")

from effnet.benchmark.dali_baseline import documented_pipeline
from effnet.data.dali.graph import Decoder, Stages, TrainGraph, ValGraph, prepared

AUGMENTING = [name for name in AUGMENTATIONS if name != "none"]

# DALI's own policies use names that it has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def opened_dali(opened: Opened) -> Opened:
    def open_it(**settings: object) -> DataSource:
        return opened(**{"data_backend": "dali-cpu", "workers": 2, "augmentation": "none", **settings})

    return open_it


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "nearest", "triangular"])
def test_batches_are_those_of_the_pytorch_backend(
    opened: Opened, opened_dali: Opened, split: str, interpolation: str
) -> None:
    ours = of(getattr(opened_dali(interpolation=interpolation), split))
    theirs = of(getattr(opened(augmentation="none", interpolation=interpolation), split))
    for _ in range(2):  # each epoch has its own crops
        batches = list(ours)
        assert_same(batches, theirs, tolerance=2)
    assert batches[0].images.is_contiguous(memory_format=torch.channels_last)
    assert batches[0].images.dtype == torch.uint8
    assert len(batches) == len(ours)
    assert ours.num_images == theirs.num_images


def test_photographs_are_those_of_the_pytorch_backend(
    opened: Opened, opened_dali: Opened, shared_dir: Path, tmp_path: Path
) -> None:
    classes = sorted((shared_dir / "data" / "imagenet-sample" / "val").glob("*/"))[::12]
    if not classes:
        pytest.skip("no imagenet-sample in shared/data")
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        for place in classes:
            (tmp_path / split / place.name).symlink_to(place)
    ours = opened_dali(path=tmp_path, size=224)
    theirs = opened(path=tmp_path, size=224, augmentation="none")
    assert_same(of(ours.val), of(theirs.val), tolerance=0.5)
    # crops of large photographs are decoded at reduced size by the pytorch backend
    assert_same(of(ours.train), of(theirs.train), tolerance=8)


def test_going_on_inside_an_epoch(opened_dali: Opened) -> None:
    reference = of(opened_dali(workers=1).train)
    epochs = [list(reference), list(reference)]
    assert not torch.equal(epochs[0][0].images, epochs[1][0].images)
    interrupted = of(opened_dali(workers=3, prefetch=3).train)
    assert_same(islice(interrupted, 2), epochs[0][:2])
    state = interrupted.state_dict()
    assert state == {"epoch": 0, "step": 2}
    assert_same(interrupted, epochs[0][2:])
    assert_same(interrupted, epochs[1])
    interrupted.load_state_dict(state)  # and back
    assert_same(interrupted, epochs[0][2:])
    assert interrupted.state_dict() == {"epoch": 1, "step": 0}


@pytest.mark.parametrize("augmentation", AUGMENTING)
def test_augmentation_depends_on_seed_epoch_and_index_alone(opened_dali: Opened, augmentation: str) -> None:
    reference = list(of(opened_dali(augmentation=augmentation).train))
    plain = of(opened_dali().train)
    assert not all(torch.equal(a.images, b.images) for a, b in zip(reference, plain, strict=True))
    resumed = of(opened_dali(augmentation=augmentation, workers=1).train)
    resumed.load_state_dict({"epoch": 0, "step": 2})
    assert_same(resumed, reference[2:])


def test_batches_outlive_the_pipelines_buffers(opened_dali: Opened) -> None:
    loader = of(opened_dali(prefetch=1).train)
    kept = []
    for batch in loader:
        kept.append((batch.images, batch.images.clone()))
    assert all(torch.equal(images, copy) for images, copy in kept)


def test_a_step_sees_the_same_images_however_many_processes_share_it(opened_dali: Opened) -> None:
    alone = of(opened_dali(batch_size=4).train)
    shared = [of(opened_dali(batch_size=2, rank=rank, world_size=2).train) for rank in range(2)]
    for whole, first, second in zip(alone, *shared, strict=True):
        assert torch.equal(whole.images, torch.cat([first.images, second.images]))


@pytest.mark.parametrize("world_size", [1, 2, 9])
def test_validation_counts_every_image_once(opened_dali: Opened, world_size: int) -> None:
    seen = []
    for rank in range(world_size):
        loader = of(opened_dali(batch_size=3, rank=rank, world_size=world_size, splits=("val",)).val)
        batches = list(loader)
        assert len(batches) == len(loader)
        seen += [int(i) for batch in batches if batch.indices is not None for i in batch.indices]
    assert sorted(seen) == list(range(7))


def test_nchw_batches_are_contiguous(opened_dali: Opened) -> None:
    batch = next(iter(of(opened_dali(memory_format="nchw").train)))
    assert batch.images.is_contiguous()


def folder_of(root: Path, images: dict[str, Image.Image], **options: object) -> Path:
    for split in ("train", "val"):
        (root / split / "a").mkdir(parents=True)
        for name, image in images.items():
            image.save(root / split / "a" / name, **options)
    return root


def test_unusual_images_are_those_of_the_pytorch_backend(
    opened: Opened, opened_dali: Opened, tmp_path: Path
) -> None:
    upright = Image.Exif()
    upright[0x0112] = 6
    grey = photograph(50, 40).convert("L")
    folder_of(
        tmp_path,
        {
            "grey.jpg": grey,
            "cmyk.jpg": photograph(50, 40).convert("CMYK"),
            "16bit.png": Image.fromarray(np.asarray(grey).astype(np.uint16) * 257),
            "rgba.png": photograph(50, 40).convert("RGBA"),
            "moving.gif": photograph(50, 40).quantize(16),
            "moving.webp": photograph(50, 40),
            "dot.bmp": photograph(1, 1),
            "long.png": photograph(3, 400),
        },
    )
    for split in ("train", "val"):
        place = tmp_path / split / "a"
        photograph(50, 40).save(place / "rotated.jpg", exif=upright)
        photograph(50, 40).convert("P").save(place / "palette.png", transparency=3)
        photograph(50, 40).save(place / "misnamed.jpg", format="GIF")
    ours = opened_dali(path=tmp_path, batch_size=3)
    theirs = opened(path=tmp_path, batch_size=3, augmentation="none")
    for _ in range(2):  # the second time, it is known what DALI can't decode
        assert_same(of(ours.train), of(theirs.train), tolerance=2)
        assert_same(of(ours.val), of(theirs.val), tolerance=2)


def broken(tmp_path: Path, name: str, split: str) -> Path:
    folder_of(tmp_path, {f"{n}.{name.split('.')[1]}": photograph(80, 80, seed=n) for n in range(6)})
    path = tmp_path / split / "a" / name
    path.write_bytes(path.read_bytes()[:200])
    return path


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("name", ["3.jpg", "3.png", "3.gif"])
def test_a_broken_image_ends_the_run_by_name(
    opened_dali: Opened, tmp_path: Path, split: str, name: str
) -> None:
    path = broken(tmp_path, name, split)
    loader = of(getattr(opened_dali(path=tmp_path, batch_size=2), split))
    with pytest.raises(UserError, match=f"^{path}: can't be decoded") as raised:
        list(loader)
    assert "\n" not in str(raised.value)
    assert loader.state_dict()["step"] == next(
        step for step, batch in enumerate(loader._order.batches(0, 0)) if 3 in batch
    )


def test_a_file_that_is_gone(opened_dali: Opened, tmp_path: Path) -> None:
    folder_of(tmp_path, {f"{n}.jpg": photograph(20, 20, seed=n) for n in range(4)})
    loader = of(opened_dali(path=tmp_path, batch_size=2).val)
    (tmp_path / "val" / "a" / "3.jpg").unlink()
    with pytest.raises(UserError, match=r"3\.jpg: .*No such file"):
        list(loader)


@pytest.mark.parametrize("name", ["3.jpg", "3.gif"])
def test_a_broken_image_is_left_out_if_asked_for(opened_dali: Opened, tmp_path: Path, name: str) -> None:
    path = broken(tmp_path, name, "val")
    loader = of(opened_dali(path=tmp_path, batch_size=2, on_bad_image="skip").val)
    for _ in range(2):
        seen = [batch.indices.tolist() for batch in loader if batch.indices is not None]
        assert seen == [[0, 1], [2], [4, 5]]
    assert list(loader.bad_images) == [str(path)]
    assert "can't be decoded" in loader.bad_images[str(path)]


def test_training_repeats_an_image_in_the_place_of_a_broken_one(
    opened: Opened, opened_dali: Opened, tmp_path: Path
) -> None:
    path = broken(tmp_path, "3.png", "train")
    settings = {"path": tmp_path, "batch_size": 3, "on_bad_image": "skip", "augmentation": "none"}
    ours, theirs = of(opened_dali(**settings).train), of(opened(**settings).train)
    for _ in range(2):
        assert_same(ours, theirs, tolerance=2)
    assert list(ours.bad_images) == list(theirs.bad_images) == [str(path)]


def test_a_batch_of_nothing_but_broken_images(opened_dali: Opened, tmp_path: Path) -> None:
    for split in ("train", "val"):
        broken(tmp_path / split, "3.png", split)
    data = opened_dali(path=tmp_path / "train", batch_size=1, on_bad_image="skip")
    with pytest.raises(UserError, match=r"3\.png: no image of its batch can be decoded"):
        list(of(data.train))
    loader = of(opened_dali(path=tmp_path / "val", batch_size=1, on_bad_image="skip").val)
    assert len(list(loader)) == 5


@pytest.mark.parametrize("name", AUGMENTING)
def test_augmentations_draw_from_all_their_operations(name: str) -> None:
    augmentation = AUGMENTATIONS[name].dali(224)
    assert augmentation is not None
    random = np.random.default_rng(0)
    drawn = np.stack([augmentation.draw(random) for _ in range(2000)])
    assert drawn.dtype == np.int32
    for stage, operations in enumerate(augmentation.stages):
        chosen, magnitudes, signs = drawn[:, stage].T
        assert set(chosen) == set(range(len(operations)))
        assert 0 <= magnitudes.min() <= magnitudes.max() < augmentation.num_bins
        assert set(signs) == {0, 1}


# Operation of DALI's, magnitude's bin of 11, and what torchvision calls the same.
OPERATIONS = [
    ("invert", 0, 0, lambda image: F.invert(image)),
    ("equalize", 0, 0, lambda image: F.equalize(image)),
    ("auto_contrast", 0, 0, lambda image: F.autocontrast(image)),
    ("solarize", 5, 0, lambda image: F.solarize(image, 128)),
    ("posterize", 10, 0, lambda image: F.posterize(image, 4)),
    ("color", 10, 0, lambda image: F.adjust_saturation(image, 1.9)),
    ("rotate", 8, 0, lambda image: F.rotate(image, 24, F.InterpolationMode.BILINEAR, fill=128)),
    ("rotate", 8, 1, lambda image: F.rotate(image, -24, F.InterpolationMode.BILINEAR, fill=128)),
]


@pytest.mark.parametrize(("name", "magnitude", "negated", "expected"), OPERATIONS)
def test_an_augmentation_does_what_was_drawn(
    opened_dali: Opened,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    magnitude: int,
    negated: int,
    expected: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    augmentation = AUGMENTATIONS["autoaugment-torchvision"].dali(64)
    assert augmentation is not None
    stage, number = next(
        (stage, number)
        for stage, operations in enumerate(augmentation.stages)
        for number, operation in enumerate(operations)
        if operation.name.split("__")[0] == name
    )
    drawn = np.zeros((2, 3), np.int32)
    drawn[stage] = number, magnitude, negated
    fixed = replace(augmentation, draw=lambda random: drawn)
    changed = replace(AUGMENTATIONS["autoaugment-torchvision"], dali=lambda side: fixed)
    monkeypatch.setattr(autoaugment_torchvision, "AUGMENTATION", changed)
    plain = next(iter(of(opened_dali(size=64).train))).images
    augmented = next(iter(of(opened_dali(size=64, augmentation=changed.name).train))).images
    difference = (augmented.float() - expected(plain.contiguous()).float()).abs()
    assert difference.mean() < 4  # equalize and rotate have details of their own
    assert (plain.float() - augmented.float()).abs().mean() > 6


@pytest.mark.parametrize("augmentation", ["autoaugment", "trivialaugment"])
@pytest.mark.parametrize("decoder", ["cpu", "mixed"])
def test_the_graph_for_a_gpu_can_be_written_down(decoder: Decoder, augmentation: str) -> None:
    """Operators check their arguments and devices when they enter a graph; running it needs a GPU."""
    stages = Stages(decoder, Preprocessing(224, 256))
    augment = AUGMENTATIONS[augmentation].dali(224)
    for graph in (TrainGraph(stages, DataSettings(), 0, augment), ValGraph(stages)):
        pipeline = prepared(iter(()), graph=graph, to_gpu=True, batch_size=8, num_threads=1, device_id=0)
        assert pipeline.device_id == 0


def test_dali_gpu_needs_a_gpu(opened_dali: Opened) -> None:
    with pytest.raises(UserError, match="dali-gpu needs a GPU"):
        opened_dali(data_backend="dali-gpu")


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("backend", ["dali-cpu", "dali-gpu"])
def test_batches_on_a_gpu_are_those_of_the_pytorch_backend(
    opened: Opened, opened_dali: Opened, backend: str
) -> None:
    cuda = torch.device("cuda")
    ours = opened_dali(data_backend=backend, device=cuda)
    theirs = opened(augmentation="none", device=cuda)
    assert_same(of(ours.train), of(theirs.train), tolerance=2)
    assert_same(of(ours.val), of(theirs.val), tolerance=2)


def test_dali_is_named_when_missing(opened_dali: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("effnet.data.dali")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    with pytest.raises(UserError, match=r"install -e '.*\[dali\]'"):
        opened_dali()


@pytest.mark.parametrize("augment", [False, True])
def test_the_documented_pipeline(folder: Path, augment: bool) -> None:
    batches = documented_pipeline(folder / "train", 4, 1, 32, augment=augment)
    for _ in range(2):
        sizes = []
        for (batch,) in batches:
            assert batch["data"].shape[1:] == (3, 32, 32)
            assert batch["data"].dtype == torch.float32
            sizes.append(len(batch["label"]))
        assert sum(sizes) == 22


@pytest.mark.parametrize("quality", [95, None])
def test_packed_images_are_those_of_the_packed_backend(
    opened: Opened, opened_dali: Opened, folder: Path, tmp_path: Path, quality: int | None
) -> None:
    pack(folder, tmp_path / "packed", PackSettings(size=48, quality=quality), workers=0)
    settings = {"path": tmp_path / "packed", "augmentation": "none"}
    ours, theirs = opened_dali(**settings), opened(data_backend="packed", **settings)
    assert ours.classes == theirs.classes
    assert_same(of(ours.train), of(theirs.train), tolerance=2)
    assert_same(of(ours.val), of(theirs.val), tolerance=2)
