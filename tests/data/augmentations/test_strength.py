"""Frequency of an augmentation by its strength, in both of its forms."""

import pickle

import numpy as np
import pytest

from effnet.data.augmentations import AUGMENTATIONS, repeated, repeated_dali
from effnet.data.decode import Pixels


def brighter(pixels: Pixels, random: np.random.Generator) -> Pixels:
    """Add one, so that the pixels count the calls."""
    random.random()
    return pixels + np.uint8(1)


@pytest.mark.parametrize("strength", [0.25, 1.0, 1.6, 2.0])
def test_an_image_is_augmented_that_often_on_average(strength: float) -> None:
    form = repeated(brighter, strength)
    assert form is not None
    random, black = np.random.default_rng(0), np.zeros((1, 1, 3), np.uint8)
    counts = [form(black, random).max() for _ in range(2000)]
    assert set(counts) == {int(strength), int(np.ceil(strength))}
    assert abs(np.mean(counts) - strength) < 0.05


def test_strength_one_is_the_form_itself_and_nought_is_none() -> None:
    assert repeated(brighter, 1.0) is brighter
    assert repeated(brighter, 0.0) is None
    assert repeated(None, 2.0) is None
    pickle.loads(pickle.dumps(repeated(AUGMENTATIONS["autoaugment"].pixels(), 0.5)))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["autoaugment", "randaugment"])
def test_the_dali_form_draws_the_same(name: str) -> None:
    pytest.importorskip("nvidia.dali", reason="NVIDIA DALI is not installed: extra dali")
    once = AUGMENTATIONS[name].dali(64)
    assert once is not None
    assert repeated_dali(once, 1.0) is once
    assert repeated_dali(once, 0.0) is None
    form = repeated_dali(once, 1.6)
    assert form is not None
    assert len(form.stages) == 2 * len(once.stages)
    stages, twice = len(once.stages), 0
    for seed in range(200):
        drawn, expected = form.draw(np.random.default_rng(seed)), np.random.default_rng(seed)
        both = expected.random() < 0.6
        twice += both
        for stage, operations in enumerate(form.stages):
            number = drawn[stage, 0]
            assert 0 <= number < len(operations)
            if number:
                original = once.stages[stage % stages][number - 1]
                assert operations[number].name == original.name
        draws = [once.draw(expected) for _ in range(1 + both)]
        np.testing.assert_array_equal(drawn[: stages * len(draws)] - [1, 0, 0], np.concatenate(draws))
        assert not drawn[stages * len(draws) :].any()
    assert 90 < twice < 150
