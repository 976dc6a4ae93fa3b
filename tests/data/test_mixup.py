import numpy as np
import pytest
import torch

from effnet.data import mixup, mixup_weight


def test_pairs_are_mixed_by_the_weight() -> None:
    images = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 3, 2, 2)
    images = images.contiguous(memory_format=torch.channels_last)
    mixed, targets = mixup(images, torch.tensor([0, 1, 2]), torch.tensor(0.75), 4)
    assert mixed[:, 0, 0, 0].tolist() == [0.5, 1.0, 1.5]  # 0.75 i + 0.25 (2 - i)
    assert targets.tolist() == [[0.75, 0, 0.25, 0], [0, 1, 0, 0], [0.25, 0, 0.75, 0]]
    assert mixed.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weight_one_changes_nothing(dtype: torch.dtype) -> None:
    images = torch.randn(4, 3, 8, 8).to(dtype)
    mixed, targets = mixup(images, torch.tensor([2, 0, 1, 1]), torch.tensor(1.0), 3)
    assert torch.equal(mixed, images)
    assert mixed.dtype == dtype
    assert targets.dtype == torch.float32
    assert targets.argmax(1).tolist() == [2, 0, 1, 1]


def test_no_graph_breaks() -> None:
    compiled = torch.compile(mixup, fullgraph=True, backend="eager")
    images, targets = torch.randn(4, 3, 8, 8), torch.tensor([2, 0, 1, 1])
    for weight in (torch.tensor(0.3), torch.tensor(0.9)):
        expected = mixup(images, targets, weight, 3)
        torch.testing.assert_close(compiled(images, targets, weight, 3), expected)


def test_weights_are_beta_distributed_and_belong_to_the_step() -> None:
    weights = np.array([mixup_weight(0.2, 1, epoch, step) for epoch in range(20) for step in range(100)])
    assert ((weights >= 0) & (weights <= 1)).all()
    # Beta(a, a): mean 1/2, variance 1 / (4 (2a + 1)) = 0.1786
    assert abs(weights.mean() - 0.5) < 0.04
    assert abs(weights.var() - 0.1786) < 0.02
    assert mixup_weight(0.2, 1, 3, 5) == weights[305]
    assert len(set(weights[:100])) > 90
    assert mixup_weight(0.0, 1, 0, 0) == 1.0
