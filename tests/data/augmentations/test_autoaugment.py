"""NVIDIA's policy against its published facts, Pillow and NumPy."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from effnet.data.augmentations.autoaugment import OPERATIONS, SUB_POLICIES, augment
from effnet.data.augmentations.sub_policies import drawn
from effnet.data.randomness import Stream, generator
from tests.data.conftest import photograph

from .pillow import GREY, PILLOW, SIGNED

Pixels = np.ndarray
LEVELS = range(11)


def picture(height: int = 37, width: int = 53) -> Image.Image:
    """Smooth colours in the upper half, noise over part of the range in the lower."""
    pixels = np.array(photograph(height, width))
    pixels[height // 2 :] = np.random.default_rng(1).integers(
        9, 240, pixels[height // 2 :].shape, dtype=np.uint8
    )
    return Image.fromarray(pixels)


def sheared(pixels: Pixels, slope: float) -> Pixels:
    """Rows moved to the right by `slope` for each row down, by cubic convolution (a = -1) on clamped borders."""
    height, width, _ = pixels.shape
    out = np.empty(pixels.shape)
    for y in range(height):
        x = np.arange(width) + 0.5 - slope * (y + 0.5)
        left = np.floor(x - 0.5)
        d = (x - 0.5 - left)[:, None]
        taps = [pixels[y, np.clip(left + k, 0, width - 1).astype(int)].astype(float) for k in (-1, 0, 1, 2)]
        weights = [-d * (1 - d) ** 2, 1 - 2 * d**2 + d**3, d + d**2 - d**3, -(d**2) * (1 - d)]
        row = sum(weight * tap for weight, tap in zip(weights, taps, strict=True))
        out[y] = np.where(((x >= 0) & (x < width))[:, None], np.round(np.clip(row, 0, 255)), 128)
    return out


def shifted_down(pixels: Pixels, by: float) -> Pixels:
    out = np.full(pixels.shape, 128)
    by = int(np.clip(by, -len(pixels), len(pixels)))
    out[max(by, 0) : len(pixels) + min(by, 0)] = pixels[max(-by, 0) : len(pixels) - max(by, 0)]
    return out


def turned(pixels: Pixels, degrees: float) -> Pixels:
    """Turned anticlockwise about the centre; of each place the pixel that it lies in."""
    height, width, _ = pixels.shape
    y, x = np.mgrid[:height, :width]
    right, down = x + 0.5 - width / 2, y + 0.5 - height / 2
    sine, cosine = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    column = np.floor(right * cosine - down * sine + width / 2).astype(int)
    row = np.floor(right * sine + down * cosine + height / 2).astype(int)
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    return np.where(inside[..., None], pixels[row.clip(0, height - 1), column.clip(0, width - 1)], 128)


def saturated(pixels: Pixels, factor: float) -> Pixels:
    grey = ((pixels @ (19595, 38470, 7471) + 2**15) >> 16)[..., None]  # of 2^16: 0.299, 0.587, 0.114
    return np.round(np.clip(grey + factor * (pixels - grey), 0, 255))


def equalized(pixels: Pixels, _: float) -> Pixels:
    """The shares of darker pixels, spread evenly, in each channel."""
    out = np.empty(pixels.shape)
    for channel in range(3):
        counts = np.bincount(pixels[..., channel].ravel(), minlength=256)
        step = (counts.sum() - counts[counts > 0][-1]) // 255
        darker = np.cumsum(counts) - counts
        out[..., channel] = (
            ((step // 2 + darker) // step).clip(0, 255)[pixels[..., channel]]
            if step
            else pixels[..., channel]
        )
    return out


def stretched(pixels: Pixels, _: float) -> Pixels:
    low, high = pixels.min((0, 1)).astype(float), pixels.max((0, 1)).astype(float)
    return np.floor((pixels - low) * 255 / (high - low) + 1e-6)


# The same by formula, and how far from it a pixel may be.
NUMPY: dict[str, tuple[Callable[[Pixels, float], Pixels], int]] = {
    "shear_x": (sheared, 1),
    "shear_y": (lambda p, m: sheared(p.transpose(1, 0, 2), m).transpose(1, 0, 2), 1),
    "translate_y": (shifted_down, 0),
    "rotate": (turned, 1),
    "color": (saturated, 1),
    "posterize": (lambda p, m: p // 2 ** (8 - round(m)) * 2 ** (8 - round(m)), 0),
    "solarize": (lambda p, m: np.where(p < m, p, 255 - p), 0),
    "solarize_add": (lambda p, m: np.where(p < 128, p + m, p), 0),
    "equalize": (equalized, 0),
    "auto_contrast": (stretched, 1),
    "invert": (lambda p, m: 255 - p, 0),
}


def test_the_references_are_of_all_operations() -> None:
    assert set(OPERATIONS) == set(PILLOW) == set(NUMPY)
    assert {step.operation for row in SUB_POLICIES for step in row} == set(OPERATIONS)
    assert {name for name, operation in OPERATIONS.items() if operation.signed} == SIGNED


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", PILLOW)
def test_an_operation_is_pillows_and_the_formulas(name: str, level: int) -> None:
    image = picture()
    before = np.array(image).astype(int)
    operation, (levels, expected), (formula, tolerance) = OPERATIONS[name], PILLOW[name], NUMPY[name]
    for sign in (1, -1) if name in SIGNED else (1,):
        ours = np.asarray(operation.run(image, sign * operation.magnitude(level))).astype(int)
        np.testing.assert_array_equal(ours, np.asarray(expected(image, sign * levels[level])))
        difference = np.abs(ours - formula(before, sign * levels[level]))
        # the formula for a rotation and Pillow's fixed-point arithmetic may fetch neighbours at a pixel's edge
        outside = 0.005 if name == "rotate" else 0
        assert (difference > tolerance).mean() <= outside
        np.testing.assert_array_equal(np.asarray(image), before)


@pytest.fixture
def facts(shared_dir: Path) -> dict[str, Any]:
    path = shared_dir / "reference" / "autoaugment.json"
    if not path.is_file():
        pytest.skip("no reference/autoaugment.json in shared")
    read: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return read


def plain(name: str) -> str:
    return name.replace("_", "").lower()


def test_the_policy_is_nvidias(facts: dict[str, Any]) -> None:
    expected = [(tuple(row["first"]), tuple(row["second"])) for row in facts["sub_policies"]]
    assert [tuple((plain(s.operation), s.probability, s.level) for s in row) for row in SUB_POLICIES] == [
        tuple((plain(name), *rest) for name, *rest in row) for row in expected
    ]
    assert tuple(facts["fill"]) == GREY
    ranges = {plain(name): value for names, value in facts["ranges"].items() for name in names.split(", ")}
    for name in ("shear_x", "shear_y", "color"):
        operation = OPERATIONS[name]
        assert [operation.magnitude(0), operation.magnitude(10)] == pytest.approx(ranges[plain(name)])


def outcomes(facts: dict[str, Any]) -> Iterator[tuple[tuple[tuple[str, int] | None, ...], float]]:
    """Outcomes for an image and their probabilities; some outcomes come more than once."""
    for row in facts["sub_policies"]:
        (a, p, level_a), (b, q, level_b) = row["first"], row["second"]
        for first, share_a in (((plain(a), level_a), p), (None, 1 - p)):
            for second, share_b in (((plain(b), level_b), q), (None, 1 - q)):
                yield (first, second), share_a * share_b / len(facts["sub_policies"])


def test_what_is_drawn_has_the_policys_frequencies(facts: dict[str, Any]) -> None:
    draws = 20_000
    expected: Counter[Any] = Counter()
    for outcome, share in outcomes(facts):
        expected[outcome] += share  # type: ignore[assignment]
    expected = Counter({outcome: share for outcome, share in expected.items() if share})
    seen: Counter[Any] = Counter()
    signs: list[bool] = []
    for index in range(draws):
        applied = drawn(SUB_POLICIES, generator(Stream.SAMPLE, 0, index % 2, index))
        seen[tuple((plain(one.operation), one.level) if one else None for one in applied)] += 1
        signs += [one.negated for one in applied if one]
    assert set(seen) == set(expected)
    chi_square = sum(
        (seen[outcome] - draws * share) ** 2 / (draws * share) for outcome, share in expected.items()
    )
    freedom = len(expected) - 1
    assert chi_square < freedom + 4 * (2 * freedom) ** 0.5  # mean and four standard deviations
    assert abs(np.mean(signs) - 0.5) < 4 * 0.5 / len(signs) ** 0.5


def test_sub_policies_are_equally_frequent() -> None:
    # each row's steps always apply here and carry its number
    rows = [
        [step._replace(operation=str(n), probability=1.0) for step in row]
        for n, row in enumerate(SUB_POLICIES)
    ]
    draws = 20_000
    seen: Counter[str] = Counter()
    for index in range(draws):
        first, second = drawn(rows, generator(Stream.SAMPLE, 0, 0, index))
        assert first is not None
        assert second is not None
        assert first.operation == second.operation
        seen[first.operation] += 1
    share = draws / 25
    assert sum((count - share) ** 2 / share for count in seen.values()) < 24 + 4 * 48**0.5
    assert len(seen) == 25


def test_an_image_gets_what_was_drawn_in_order() -> None:
    image = picture(64, 64)
    changed = 0
    for seed in range(300):
        expected = image
        for one in drawn(SUB_POLICIES, np.random.default_rng(seed)):
            if one:
                levels, operation = PILLOW[one.operation]
                sign = -1 if one.negated and one.operation in SIGNED else 1
                expected = operation(expected, sign * levels[one.level])
        ours = augment(np.asarray(image), np.random.default_rng(seed))
        np.testing.assert_array_equal(ours, np.asarray(expected))
        changed += not np.array_equal(ours, np.asarray(image))
    assert changed > 200
