import numpy as np
import pytest
import torch

from effnet.data import Mix, epoch_mixes, mixup

CPU = torch.device("cpu")
REVERSED = torch.tensor([2, 1, 0])


def mixes(**changes: object) -> list[Mix]:
    values = {"rank": 0, "steps": 100, "batch_size": 6, "device": CPU, **changes}
    return epoch_mixes(values.pop("alpha", 0.2), 1, values.pop("epoch", 3), **values)  # type: ignore[arg-type]


def test_pairs_are_mixed_by_the_weight() -> None:
    images = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 3, 2, 2)
    images = images.contiguous(memory_format=torch.channels_last)
    mixed, targets = mixup(images, torch.tensor([0, 1, 2]), Mix(torch.tensor(0.75), REVERSED), 4)
    assert mixed[:, 0, 0, 0].tolist() == [0.5, 1.0, 1.5]  # 0.75 i + 0.25 (2 - i)
    assert targets.tolist() == [[0.75, 0, 0.25, 0], [0, 1, 0, 0], [0.25, 0, 0.75, 0]]
    assert mixed.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weight_one_changes_nothing(dtype: torch.dtype) -> None:
    images = torch.randn(4, 3, 8, 8).to(dtype)
    mix = Mix(torch.tensor(1.0), torch.tensor([1, 0, 3, 2]))
    mixed, targets = mixup(images, torch.tensor([2, 0, 1, 1]), mix, 3)
    assert torch.equal(mixed, images)
    assert mixed.dtype == dtype
    assert targets.dtype == torch.float32
    assert targets.argmax(1).tolist() == [2, 0, 1, 1]


def test_one_graph_for_all_mixtures() -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = torch.compile(mixup, fullgraph=True, backend="eager")
    images, targets = torch.randn(6, 3, 8, 8), torch.tensor([2, 0, 1, 1, 2, 2])
    for mix in mixes(steps=3):
        torch.testing.assert_close(compiled(images, targets, mix, 3), mixup(images, targets, mix, 3))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_weights_are_beta_distributed_and_belong_to_the_step() -> None:
    weights = np.array([mix.weight.item() for epoch in range(20) for mix in mixes(epoch=epoch)])
    assert ((weights >= 0) & (weights <= 1)).all()
    # Beta(a, a): mean 1/2, variance 1 / (4 (2a + 1)) = 0.1786
    assert abs(weights.mean() - 0.5) < 0.04
    assert abs(weights.var() - 0.1786) < 0.02
    assert len(set(weights[:100])) > 90
    # A run of fewer steps draws the same ones.
    assert [mix.weight.item() for mix in mixes(epoch=3, steps=5)] == weights[300:305].tolist()


def test_partners_are_uniform_permutations_of_the_step() -> None:
    partners = torch.stack([mix.partners for epoch in range(50) for mix in mixes(epoch=epoch)])
    assert torch.equal(partners.sort(dim=1).values, torch.arange(6).expand(5000, 6))
    counts = torch.stack([(partners == partner).sum(0) for partner in range(6)])
    # Each partner of each image: 5000 / 6 = 833, standard deviation 26.
    assert (counts - 5000 / 6).abs().max() < 5 * 26
    assert torch.equal(torch.stack([mix.partners for mix in mixes(epoch=3, steps=7)]), partners[300:307])


def test_each_process_draws_its_own() -> None:
    first, second = mixes(rank=0), mixes(rank=1)
    assert sum(one.weight.item() == other.weight.item() for one, other in zip(first, second, strict=True)) < 5
    same = [torch.equal(one.partners, other.partners) for one, other in zip(first, second, strict=True)]
    assert sum(same) < 5  # one in 720 by chance


def test_alpha_zero_mixes_nothing() -> None:
    for mix in mixes(alpha=0.0):
        assert mix.weight.item() == 1.0
        assert mix.partners.tolist() == list(range(6))
