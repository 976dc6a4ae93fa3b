from itertools import islice
from pathlib import Path

import pytest
import torch
from PIL import Image

from effnet.data import Batch, DataSource, Loader
from effnet.data.folder import list_images
from effnet.data.prefetch import to_device
from effnet.runtime.errors import UserError

from .batches import assert_same
from .conftest import Opened, photograph

# three workers on two cores are what the tests are about
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


def train(data: DataSource) -> Loader:
    assert data.train is not None
    return data.train


def val(data: DataSource) -> Loader:
    assert data.val is not None
    return data.val


def test_a_batch(opened: Opened, folder: Path) -> None:
    data = opened()
    assert data.classes == ["cat", "dog"]
    loader = train(data)
    assert (len(loader), loader.num_images, loader.batch_size) == (5, 22, 4)
    batch = next(iter(loader))
    assert batch.images.shape == (4, 3, 32, 32)
    assert batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert batch.targets.dtype == torch.int64
    assert batch.indices is not None
    images = list_images(folder, "train")
    names = [images.path(i).parent.name for i in batch.indices.tolist()]
    assert [data.classes[t] for t in batch.targets.tolist()] == names


def test_nchw_batches_are_contiguous(opened: Opened) -> None:
    nchw, nhwc = train(opened(memory_format="nchw")), train(opened())
    batch = next(iter(nchw))
    assert batch.images.is_contiguous()
    assert torch.equal(batch.images, next(iter(nhwc)).images)


def test_batches_do_not_depend_on_the_number_of_workers(opened: Opened) -> None:
    alone = train(opened())
    epochs = [list(alone), list(alone)]
    assert not torch.equal(epochs[0][0].images, epochs[1][0].images)
    for workers in (1, 3):
        loader = train(opened(workers=workers))
        assert_same(loader, epochs[0])  # and the workers, which persist, hear of the next epoch
        assert_same(loader, epochs[1])


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_going_on_inside_an_epoch(opened: Opened, workers: int) -> None:
    reference = train(opened())
    epochs = [list(reference), list(reference)]
    interrupted = train(opened(workers=workers))
    assert_same(islice(interrupted, 2), epochs[0][:2])
    state = interrupted.state_dict()
    assert state == {"epoch": 0, "step": 2}
    assert_same(interrupted, epochs[0][2:])  # in the same process
    assert interrupted.state_dict() == {"epoch": 1, "step": 0}
    resumed = train(opened(workers=workers))
    resumed.load_state_dict(state)
    assert_same(resumed, epochs[0][2:])
    assert_same(resumed, epochs[1])


def test_a_state_saved_in_the_last_step_has_nothing_left_of_its_epoch(opened: Opened) -> None:
    loader = train(opened())
    for _ in islice(loader, len(loader)):
        pass
    state = loader.state_dict()
    resumed = train(opened())
    resumed.load_state_dict(state)
    assert not list(resumed)
    assert resumed.state_dict() == {"epoch": 1, "step": 0}


def test_images_do_not_depend_on_the_number_of_processes(opened: Opened) -> None:
    alone = train(opened(batch_size=4))
    shared = [train(opened(batch_size=2, rank=rank, world_size=2, workers=rank)) for rank in range(2)]
    for whole, first, second in zip(alone, *shared, strict=True):
        assert torch.equal(whole.images, torch.cat([first.images, second.images]))
        assert torch.equal(whole.targets, torch.cat([first.targets, second.targets]))


@pytest.mark.parametrize("workers", [0, 2])
def test_validation_gives_every_image_once_the_last_batch_included(opened: Opened, workers: int) -> None:
    loader = val(opened(workers=workers, batch_size=3))
    for _ in range(2):  # every epoch alike
        batches = list(loader)
        assert [len(b.targets) for b in batches] == [3, 3, 1]
        assert [i for b in batches if b.indices is not None for i in b.indices.tolist()] == list(range(7))
    assert len(loader) == 3
    assert loader.num_images == 7


def test_the_training_processs_generator_is_left_alone(opened: Opened) -> None:
    before = torch.get_rng_state()
    for _ in train(opened()):
        pass
    assert torch.equal(torch.get_rng_state(), before)


def test_the_models_classes_order_the_targets(opened: Opened) -> None:
    loader = val(opened(classes=["dog", "owl", "cat"], splits=("val",)))
    assert torch.cat([b.targets for b in loader]).tolist() == [2, 2, 2, 2, 0, 0, 0]
    with pytest.raises(UserError, match="val/dog: no such class"):
        opened(classes=["cat", "owl"], splits=("val",))


def test_validation_alone_needs_no_training_images(opened: Opened, tmp_path: Path) -> None:
    for label in ("b", "a"):
        (tmp_path / "val" / label).mkdir(parents=True)
        photograph(20, 20).save(tmp_path / "val" / label / "1.png")
    data = opened(path=tmp_path, splits=("val",))
    assert data.classes == ["a", "b"]
    assert data.train is None
    with pytest.raises(UserError, match="no train/ folder"):
        opened(path=tmp_path)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_truncated_image_ends_the_run_by_name(
    opened: Opened, tmp_path: Path, workers: int, split: str
) -> None:
    for part in ("train", "val"):
        (tmp_path / part / "a").mkdir(parents=True)
        for n in range(6):
            photograph(80, 80, seed=n).save(tmp_path / part / "a" / f"{n}.jpg")
    path = tmp_path / split / "a" / "3.jpg"
    path.write_bytes(path.read_bytes()[:700])
    data = opened(path=tmp_path, workers=workers, batch_size=2)
    with pytest.raises(UserError, match=f"^{path}: can't be decoded") as raised:
        list(train(data) if split == "train" else val(data))
    assert "\n" not in str(raised.value)


def break_images(root: Path, *names: str) -> list[Path]:
    """12 training and 5 validation images in one class, those of `names` truncated."""
    for split, count in {"train": 12, "val": 5}.items():
        (root / split / "a").mkdir(parents=True)
        for n in range(count):
            photograph(80, 80, seed=n).save(root / split / "a" / f"{n:02d}.jpg")
    paths = [root / name for name in names]
    for path in paths:
        path.write_bytes(path.read_bytes()[:700])
    return paths


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_images_are_left_out_and_listed_once(opened: Opened, tmp_path: Path, workers: int) -> None:
    names = ["train/a/03.jpg", "train/a/08.jpg", "val/a/01.jpg", "val/a/04.jpg"]
    bad = break_images(tmp_path, *names)
    data = opened(path=tmp_path, workers=workers, batch_size=4, on_bad_image="skip")
    for loader, expected in ((train(data), bad[:2]), (val(data), bad[2:])):
        epochs = [list(loader) for _ in range(2)]
        assert loader.state_dict() == {"epoch": 2, "step": 0, "bad_images": loader.bad_images}
        assert sorted(loader.bad_images) == [str(path) for path in expected]
        assert all(r.startswith("can't be decoded: ") for r in loader.bad_images.values())
        for batches in epochs:
            assert {len(b.targets) for b in batches} == ({4} if loader is data.train else {3})
            seen = [i for b in batches if b.indices is not None for i in b.indices.tolist()]
            assert not {3, 8} & set(seen) if loader is data.train else seen == [0, 2, 3]
            assert set(seen) >= (set(range(12)) - {3, 8} if loader is data.train else {0})


def test_what_stands_in_for_a_bad_image_is_the_same_in_every_run(opened: Opened, tmp_path: Path) -> None:
    break_images(tmp_path, "train/a/03.jpg", "train/a/08.jpg", "train/a/09.jpg")
    settings = {"path": tmp_path, "batch_size": 6, "on_bad_image": "skip"}
    alone = list(train(opened(**settings)))
    assert_same(train(opened(**settings, workers=3)), alone)
    for batch in alone:
        assert batch.indices is not None
        rows = batch.indices.tolist()
        repeated = [(rows.index(i), row) for row, i in enumerate(rows) if rows.index(i) < row]
        for first, again in repeated:
            assert torch.equal(batch.images[first], batch.images[again])


def test_a_training_batch_of_bad_images_alone_ends_the_run(opened: Opened, tmp_path: Path) -> None:
    paths = break_images(tmp_path, *(f"train/a/{n:02d}.jpg" for n in range(12)))
    data = opened(path=tmp_path, batch_size=2, on_bad_image="skip")
    with pytest.raises(UserError, match="nor can any other image of its batch") as raised:
        list(train(data))
    assert str(raised.value).split(":")[0] in map(str, paths)


def test_a_validation_batch_of_bad_images_alone_is_no_batch(opened: Opened, tmp_path: Path) -> None:
    break_images(tmp_path, "val/a/00.jpg", "val/a/01.jpg")
    loader = val(opened(path=tmp_path, batch_size=2, on_bad_image="skip"))
    assert [len(b.targets) for b in loader] == [2, 1]
    assert loader.state_dict() == {"epoch": 1, "step": 0, "bad_images": loader.bad_images}


def test_unusual_images_train_and_validate(opened: Opened, tmp_path: Path) -> None:
    upright = Image.Exif()
    upright[0x0112] = 6
    for split in ("train", "val"):
        place = tmp_path / split / "a"
        place.mkdir(parents=True)
        photograph(50, 40).convert("L").save(place / "grey.jpg")
        photograph(50, 40).convert("CMYK").save(place / "cmyk.jpg")
        Image.new("I;16", (40, 50), 40000).save(place / "16bit.png")
        photograph(50, 40).convert("P").save(place / "palette.png", transparency=3)
        photograph(50, 40).save(place / "moving.gif", save_all=True, append_images=[photograph(50, 40, 1)])
        photograph(50, 40).save(place / "rotated.jpg", exif=upright)
        photograph(1, 1).save(place / "dot.bmp")
    data = opened(path=tmp_path, batch_size=7)
    assert len(next(iter(train(data))).targets) == 7
    assert len(next(iter(val(data))).targets) == 7


def test_too_large_a_batch(opened: Opened) -> None:
    with pytest.raises(UserError, match="--batch-size 23"):
        opened(batch_size=23)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_copies_run_ahead_and_arrive_whole() -> None:
    device = torch.device("cuda")
    host = [torch.full((64, 224, 224, 3), n, dtype=torch.uint8).pin_memory() for n in range(8)]
    batches = (
        Batch(pixels.permute(0, 3, 1, 2), torch.full((64,), n).pin_memory()) for n, pixels in enumerate(host)
    )
    for n, batch in enumerate(to_device(batches, device)):
        torch.cuda._sleep(10_000_000)  # the computing stream lags behind the copies
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert bool((batch.images == n).all())
        assert bool((batch.targets == n).all())
