import torch

from .batches import of
from .conftest import Opened


def test_as_many_images_as_imagenet(opened: Opened) -> None:
    data = opened(data_backend="synthetic", batch_size=1000)
    loader, val = of(data.train), of(data.val)
    assert (loader.num_images, val.num_images) == (1_281_167, 50_000)
    assert (len(loader), len(val)) == (1281, 50)
    assert len(data.classes) == 1000
    batch = next(iter(loader))
    assert batch.images.shape == (1000, 3, 32, 32)
    assert batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert 0 <= batch.targets.min() < batch.targets.max() < 1000
    assert 120 < batch.images.float().mean() < 135


def test_processes_share_the_validation_images(opened: Opened) -> None:
    def images(rank: int) -> int:
        loader = of(opened(data_backend="synthetic", batch_size=64, size=4, rank=rank, world_size=3).val)
        batches = list(loader)
        assert len(batches) == len(loader)
        return sum(len(b.targets) for b in batches)

    assert sum(images(rank) for rank in range(3)) == 50_000


def test_position_and_classes(opened: Opened) -> None:
    data = opened(data_backend="synthetic", batch_size=25_000, size=2, num_classes=7, memory_format="nchw")
    loader = of(data.train)
    assert len(data.classes) == 7
    loader.load_state_dict({"epoch": 3, "step": 50})
    assert len(list(loader)) == 1
    assert loader.state_dict() == {"epoch": 4, "step": 0}
    assert next(iter(loader)).images.is_contiguous()
