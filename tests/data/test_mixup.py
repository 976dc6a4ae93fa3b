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


@pytest.mark.parametrize("cutmix", [0.0, 1.0])
def test_one_graph_for_all_mixtures(cutmix: float) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = torch.compile(mixup, fullgraph=True, backend="eager")
    images, targets = torch.randn(6, 3, 8, 8), torch.tensor([2, 0, 1, 1, 2, 2])
    for mix in mixes(steps=3, cutmix=cutmix):
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


def test_the_first_batches_are_the_same_however_many_are_drawn() -> None:
    for few, all_ in zip(mixes(steps=3, cutmix=1.0), mixes(cutmix=1.0)[:3], strict=True):
        assert all(map(torch.equal, few, all_))


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


def test_a_box_is_pasted_and_targets_follow_its_pixels() -> None:
    images = torch.randn(3, 3, 8, 10).contiguous(memory_format=torch.channels_last)
    box = torch.tensor([0.25, 0.5, 1.0, 0.8])  # rows 2 to 8, columns 5 to 8
    mixed, targets = mixup(images, torch.tensor([0, 1, 2]), Mix(torch.tensor(1.0), REVERSED, box), 3)
    expected = images.clone()
    expected[:, :, 2:8, 5:8] = images[REVERSED][:, :, 2:8, 5:8]
    assert torch.equal(mixed, expected)
    assert mixed.is_contiguous(memory_format=torch.channels_last)
    share = 18 / 80
    torch.testing.assert_close(targets[0], torch.tensor([1 - share, 0, share]))
    torch.testing.assert_close(targets[1], torch.tensor([0.0, 1.0, 0.0]))


@pytest.mark.parametrize("box", [None, torch.tensor([0.1, 0.2, 0.7, 0.9])])
def test_several_labels_are_mixed_as_one_hot_rows_are(box: torch.Tensor | None) -> None:
    images, targets = torch.randn(3, 3, 8, 8), torch.tensor([2, 0, 1])
    mix = Mix(torch.tensor(0.75 if box is None else 1.0), REVERSED, box)
    rows = torch.nn.functional.one_hot(targets, 4).float()
    assert all(map(torch.equal, mixup(images, rows, mix, 4), mixup(images, targets, mix, 4)))


def test_cutmix_takes_half_of_the_batches_and_all_without_mixup() -> None:
    both, alone = mixes(alpha=1.0, cutmix=1.0, steps=400), mixes(alpha=0.0, cutmix=1.0, steps=400)
    pasted = [mix for mix in both if mix.box is not None and mix.box.any()]
    assert 160 < len(pasted) < 240  # 200 expected, four standard deviations either way
    assert all(mix.weight == 1 for mix in (*pasted, *alone))
    assert sum(mix.weight < 1 for mix in both) == 400 - len(pasted)
    boxes = torch.stack([mix.box for mix in alone if mix.box is not None])
    assert ((boxes >= 0) & (boxes <= 1)).all()
    top, left, bottom, right = boxes.T
    # Uniform share s of the area, whose box of side sqrt(s) loses a quarter of it at each pair of edges: the mean of
    # s (1 - sqrt(s) / 4)^2 is 1/2 - 1/5 + 1/48.
    assert abs(((bottom - top) * (right - left)).mean() - 0.3208) < 0.04
    again = mixes(alpha=0.0, cutmix=1.0, steps=5)
    assert torch.equal(torch.stack([mix.box for mix in again if mix.box is not None]), boxes[:5])


def test_without_cutmix_mixup_draws_what_it_drew_before() -> None:
    expected = np.random.default_rng((1, 2, 3, 7, 0))  # seed, stream, epoch, step, rank
    mix = mixes()[7]
    assert mix.box is None
    assert mix.weight.item() == np.float32(expected.beta(0.2, 0.2))
    assert mix.partners.tolist() == expected.permutation(6).tolist()
