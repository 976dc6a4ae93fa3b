"""The training step: bytes in, loss and gradients out."""

from copy import deepcopy
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from effnet.data.mixup import Mix
from effnet.data.preprocessing import Preprocessing
from effnet.models.config import MODEL_CONFIGS
from effnet.models.efficientnet import EfficientNet
from effnet.runtime.precision import Precision
from effnet.training.losses import CrossEntropy
from effnet.training.step import Normalise, TrainStep

PREPROCESSING = Preprocessing(32, 32, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
CLASSES = 5
PARTNERS = torch.tensor([3, 0, 1, 2, 7, 5, 4, 6])


def step(*, mixes: bool = False, smoothing: float = 0.0) -> TrainStep:
    torch.manual_seed(0)
    config = replace(
        MODEL_CONFIGS["efficientnet-b0"],
        width=0.25,
        depth=0.3,
        num_classes=CLASSES,
        dropout=0.0,
        survival_prob=1.0,
    )
    return TrainStep(
        EfficientNet(config),
        PREPROCESSING,
        num_classes=CLASSES,
        loss=CrossEntropy(smoothing=smoothing),
        precision=Precision(None, torch.device("cpu")),
        mixes=mixes,
    )


def mix(weight: float) -> Mix:
    return Mix(torch.tensor(weight), PARTNERS)


def batch() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (8, 3, 64, 64), dtype=torch.uint8, generator=random)
    return images.contiguous(memory_format=torch.channels_last), torch.arange(8) % CLASSES


def test_normalisation_is_that_of_floats() -> None:
    images, _ = batch()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (PREPROCESSING.mean, PREPROCESSING.std))
    normalised = Normalise(PREPROCESSING)(images)
    torch.testing.assert_close(normalised, (images / 255 - mean) / std)
    assert normalised.dtype == torch.float32
    assert normalised.is_contiguous(memory_format=torch.channels_last)


def test_hard_targets_and_probabilities_agree() -> None:
    images, targets = batch()
    one = mix(1.0)
    plain = step(smoothing=0.1)
    expected = plain(images, targets, one)
    torch.testing.assert_close(plain(images, F.one_hot(targets, CLASSES).float(), one), expected)
    torch.testing.assert_close(step(mixes=True, smoothing=0.1)(images, targets, one), expected)


def test_mixup_mixes_losses() -> None:
    images, targets = batch()
    share = mix(0.7)
    mixing = step(mixes=True)
    x = Normalise(PREPROCESSING)(images)
    logits = mixing.model(0.7 * x + 0.3 * x[PARTNERS])
    expected = 0.7 * F.cross_entropy(logits, targets) + 0.3 * F.cross_entropy(logits, targets[PARTNERS])
    torch.testing.assert_close(mixing(images, targets, share), expected)


def test_compiles_to_one_graph_with_the_same_gradients() -> None:
    images, targets = batch()
    eager = step(mixes=True, smoothing=0.1).double()
    other = deepcopy(eager)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    # What is tested is the graph; that code is made of it right is PyTorch's to test, and takes a minute.
    compiled = torch.compile(other, fullgraph=True, backend="aot_eager")
    for weight in (0.7, 0.2):  # another weight must not compile again; double, so that rounding is no excuse
        share = mix(weight)
        losses = eager(images, targets, share), compiled(images, targets, share)
        torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=1e-6)
        for loss in losses:
            loss.backward()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    for one, two in zip(eager.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(two.grad, one.grad, rtol=1e-3, atol=1e-5)
