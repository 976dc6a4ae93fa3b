"""NVIDIA's policy by DALI's operations, against the form on Pillow images and DALI's own `auto_augment`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from effnet.data.augmentations import AUGMENTATIONS
from effnet.data.augmentations.autoaugment import AUGMENTATION, OPERATIONS, SUB_POLICIES, augment
from effnet.data.augmentations.form import DaliForm
from tests.data.batches import of
from tests.data.conftest import Opened, photograph

pytest.importorskip("nvidia.dali", reason="NVIDIA DALI is not installed: extra dali")

from effnet.data.dali.augmentation import augmented
from effnet.data.dali.library import auto_augment, fn, pipeline_def

# DALI's own policies use names that it has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

SIDE = 64


@pytest.fixture(scope="module")
def form() -> DaliForm:
    made = AUGMENTATION.dali(SIDE)
    assert made is not None
    return made


@pytest.fixture
def photographs(shared_dir: Path) -> list[Image.Image]:
    """20 photographs of 64 pixels."""
    files = sorted((shared_dir / "data" / "imagenet-sample" / "val").glob("*/*"))[::20][:20]
    if not files:
        pytest.skip("no imagenet-sample in shared/data")
    return [Image.open(file).convert("RGB").resize((SIDE, SIDE)) for file in files]


@pipeline_def(num_threads=2, device_id=None, enable_conditionals=True)
def _by_form(images: Any, drawn: Any, form: DaliForm) -> Any:
    pixels, numbers = fn.external_source(lambda: (images, drawn), num_outputs=2, layout=["HWC", ""])
    return augmented(form, pixels, numbers)


@pipeline_def(num_threads=2, device_id=None, enable_conditionals=True)
def _by_dali(images: Any) -> Any:
    pixels = fn.external_source(lambda: images, layout="HWC")
    return auto_augment.auto_augment_image_net(pixels)


def run(pipeline: Any) -> np.ndarray:
    pipeline.build()
    (images,) = pipeline.run()
    return np.asarray(images.as_tensor()).astype(int)


def stacked(images: Sequence[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(image) for image in images])


def test_the_policy_is_the_one_that_dali_ships() -> None:
    policy = auto_augment.get_image_net_policy()
    # DALI leaves out steps of probability 0, and levels that an operation does not use
    ours = [
        [
            (step.operation, step.probability, step.level if OPERATIONS[step.operation].highest else None)
            for step in row
            if step.probability
        ]
        for row in SUB_POLICIES
    ]
    assert [[(one.name, *rest) for one, *rest in row] for row in policy.sub_policies] == ours


# How far DALI's pixels are from Pillow's, on average and at most: its shear is bilinear, and its equalize gives a
# value's own share of the pixels another place.
TOLERANCES = {
    "shear_x": (2, 128),
    "shear_y": (2, 128),
    "translate_y": (0, 0),
    "rotate": (0.05, 128),
    "color": (1, 2),
    "posterize": (0, 0),
    "solarize": (0, 0),
    "solarize_add": (0, 0),
    "equalize": (8, 20),
    "auto_contrast": (1, 1),
    "invert": (0, 0),
}


def test_operations_are_pillows(form: DaliForm) -> None:
    image = photograph(SIDE, SIDE)
    names, drawn, expected = [], [], []
    for stage, operations in enumerate(form.stages):
        for number, (name, _) in enumerate(operations):
            if name == "identity":
                continue
            operation = OPERATIONS[name]
            # the first two levels of posterize, which the policy does not use, are 0 bits, of which DALI makes 1
            for level in range(2 if name == "posterize" else 0, 11):
                for negated in (0, 1):
                    numbers = np.zeros((2, 3), np.int32)
                    numbers[stage] = number, level, negated
                    sign = -1 if negated and operation.signed else 1
                    names.append(name)
                    drawn.append(numbers)
                    expected.append(operation.run(image, sign * operation.magnitude(level)))
    assert set(names) == set(TOLERANCES)
    ours = run(_by_form([np.asarray(image)] * len(names), drawn, form, batch_size=len(names)))
    differences = np.abs(ours - stacked(expected))
    for name, difference in zip(names, differences, strict=True):
        mean, largest = TOLERANCES[name]
        assert difference.mean() <= mean, name
        assert difference.max() <= largest, name


def moments(images: np.ndarray) -> np.ndarray:
    """(2, N): mean and variance of each image's pixels."""
    pixels = images.reshape(len(images), -1).astype(np.float32)
    return np.stack([pixels.mean(1), pixels.var(1)])


def alike(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Tell whether the means of two samples (2, N) are within four standard errors, their spreads within 10 %."""
    error = np.sqrt(ours.var(1) / ours.shape[1] + theirs.var(1) / theirs.shape[1])
    centred = np.abs(ours.mean(1) - theirs.mean(1)) < 4 * error
    return bool(centred.all()) and np.allclose(ours.std(1), theirs.std(1), rtol=0.1)


@pytest.mark.slow
def test_means_and_variances_change_as_by_dalis_own_function(photographs: list[Image.Image]) -> None:
    images = photographs * 100
    before = moments(stacked(images))
    random = np.random.default_rng(0)
    by_pillow = moments(np.stack([augment(np.asarray(image), random) for image in images])) - before
    by_dali = moments(run(_by_dali(list(stacked(images)), batch_size=len(images), seed=0))) - before
    assert alike(by_pillow, by_dali)
    torchvision = AUGMENTATIONS["autoaugment-torchvision"].pixels()
    assert torchvision is not None
    by_another = moments(np.stack([torchvision(np.asarray(image), random) for image in images])) - before
    assert not alike(by_another, by_dali)  # the test tells policies apart


def test_the_same_numbers_change_an_image_alike(form: DaliForm, photographs: list[Image.Image]) -> None:
    images = photographs * 20
    by_pillow = np.stack(
        [augment(np.asarray(image), np.random.default_rng(n)) for n, image in enumerate(images)]
    )
    drawn = [form.draw(np.random.default_rng(n)) for n in range(len(images))]
    by_dali = run(_by_form(list(stacked(images)), drawn, form, batch_size=len(images)))
    assert alike(moments(by_pillow), moments(by_dali))
    difference = np.abs(by_pillow - by_dali).mean((1, 2, 3))
    assert np.quantile(difference, 0.6) < 1
    assert difference.max() < 30  # where DALI's equalize meets a histogram of few values
    assert np.abs(by_pillow - stacked(images)).mean() > 20


def test_the_backends_change_a_sample_alike(opened: Opened) -> None:
    settings: dict[str, Any] = {"augmentation": "autoaugment", "size": SIDE}
    ours = of(opened(data_backend="dali-cpu", workers=2, **settings).train)
    theirs = of(opened(**settings).train)
    differences = [
        (a.images.float() - b.images.float()).abs().mean((1, 2, 3)).numpy()
        for _ in range(3)
        for a, b in zip(ours, theirs, strict=True)
    ]
    assert np.quantile(differences, 0.6) < 2
    assert np.max(differences) < 30
