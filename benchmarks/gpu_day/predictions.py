"""Expected figures on an H100 and an H200, computed from counted bytes before any GPU was there.

Bytes of a training step or an inference follow from the model's shapes and from how often an implementation passes over
the expanded tensors E and the outputs F of the depthwise convolutions, counted by hand (`PASSES`). No implementation
moves them at the rate of a copy: the share that PyTorch's eager operators reach is taken from NVIDIA's README (A100).
"""

import functools
from dataclasses import dataclass

from benchmarks.scaling import PUBLISHED
from benchmarks.work import PASSES as FLOOR
from benchmarks.work import count_work
from effnet.models import model_config
from effnet.models.profile import layer_sizes

Range = tuple[float | None, float | None]
HALF_BYTES = 2

DATASHEET = {"A100": (2.039e12, 312e12), "H100": (3.35e12, 989e12), "H200": (4.8e12, 989e12)}
"""bytes a second of the memory, operations a second of dense FP16 or BF16 (A100 of 80 GB, SXM)"""
REACHED = (0.9, 0.8)
"""shares of these that a large copy and a large matrix product reach on such machines"""
MACHINES = ("H100", "H200")

PASSES = {
    "training, kernels, compiled": (10, 16),
    "training, library, compiled": (14, 17),
    "training, library, eager": (19, 31),
    "inference, kernels, compiled": (2, 5),
    "inference, library, compiled": (4, 6),
    "inference, library, eager": (6, 9),
}
"""passes over E and over F"""
# Compiled code has fewer small launches than eager code, but the library's depthwise convolutions stay below the rate.
COMPILED = (0.35, 0.65)
KERNELS = (0.4, 0.75)
"""share of the copy rate that a whole step reaches with the Triton kernels"""
_SPREAD = (0.8, 1.2)


@dataclass(frozen=True)
class Prediction:
    """A figure that is expected.

    Attributes:
        stage: whose figure it is.
        ranges: lowest and highest value by machine; None for no limit.
        reason: what it follows from, in a few words.
        goal: what is aimed at, in words.
    """

    stage: str
    ranges: dict[str, Range]
    reason: str
    goal: str = ""

    def verdict(self, value: float, machine: str | None) -> str:
        """Return ``as predicted``, ``BELOW`` or ``ABOVE``; empty on another machine."""
        if machine is None:
            return ""
        low, high = self.ranges[machine]
        if low is not None and value < low:
            return "BELOW"
        return "ABOVE" if high is not None and value > high else "as predicted"


def machine_of(gpu: str | None) -> str | None:
    """Return which of `MACHINES` a GPU of this name is, if any."""
    return next((machine for machine in MACHINES if gpu is not None and machine in gpu), None)


def copy_rate(machine: str) -> float:
    """Return the bytes a second of a large copy, read and written."""
    return DATASHEET[machine][0] * REACHED[0]


@functools.cache
def image_bytes(arch: str, implementation: str) -> float:
    """Return the bytes that an implementation moves for an image, without the weights'.

    Args:
        arch: a model, at its own size.
        implementation: a key of `PASSES`, or ``training`` or ``inference`` for the least that has to be moved.
    """
    config = model_config(arch)
    kind = implementation.split(",")[0]
    batch = 1024  # of which the weights are a thousandth
    work = count_work(config, batch, HALF_BYTES, kind == "training")
    moved = sum(done.moved for done in work.values()) / batch
    if implementation == kind:
        return moved
    phases = ("forward", "backward") if kind == "training" else ("inference",)
    counted = [FLOOR[phase] for phase in phases]
    layers = layer_sizes(config)
    expanded = sum(size.outputs for name, size in layers.items() if name.endswith("expand.conv"))
    filtered = sum(size.outputs for name, size in layers.items() if name.endswith("depsep.conv"))
    over_expanded, over_filtered = PASSES[implementation]
    over_expanded -= sum(passes.expanded for passes in counted)
    over_filtered -= sum(passes.filtered + passes.squeezed for passes in counted)
    return moved + HALF_BYTES * (over_expanded * expanded + over_filtered * filtered)


def eager_shares() -> tuple[float, float]:
    """Return the lowest and highest share of the copy rate of eager operators: NVIDIA's on an A100, roughly."""
    shares = [
        PUBLISHED[arch, "AMP"][1] * image_bytes(arch, "training, library, eager") / copy_rate("A100")
        for arch in ("efficientnet-b0", "efficientnet-b4")
    ]
    return _SPREAD[0] * min(shares), _SPREAD[1] * max(shares)


def rates(arch: str, implementation: str) -> dict[str, tuple[float, float]]:
    """Return the lowest and highest images a second expected of an implementation, by machine."""
    low, high = _shares(implementation)
    moved = image_bytes(arch, implementation)
    return {
        machine: (low * copy_rate(machine) / moved, high * copy_rate(machine) / moved) for machine in MACHINES
    }


def _shares(implementation: str) -> tuple[float, float]:
    if implementation.endswith("eager"):
        return eager_shares()
    return KERNELS if "kernels" in implementation else COMPILED


def _ratio(arch: str, ours: str, theirs: str) -> Range:
    """Return the expected ratio: of the middles, a quarter up or down; it is the same on both machines."""
    middle = _middle(rates(arch, ours)["H100"]) / _middle(rates(arch, theirs)["H100"])
    return 0.75 * middle, 1.25 * middle


def _middle(of: tuple[float, float]) -> float:
    return sum(of) / 2


def _same(low: float | None, high: float | None) -> dict[str, Range]:
    return dict.fromkeys(MACHINES, (low, high))


def _rates(arch: str, implementation: str) -> dict[str, Range]:
    return dict(rates(arch, implementation))


def _times_floor(implementation: str) -> dict[str, Range]:
    """Return how many times the least time is expected; both move at the same rate of copy."""
    arch, kind = "efficientnet-b0", implementation.split(",")[0]
    more = image_bytes(arch, implementation) / image_bytes(arch, kind)
    low, high = _shares(implementation)
    return _same(more / high, more / low)


def _training(stage: str, name: str, arch: str, goals: tuple[str, str]) -> dict[str, Prediction]:
    library, kernels, eager = (
        f"training, {how}" for how in ("library, compiled", "kernels, compiled", "library, eager")
    )
    megabytes = {how: image_bytes(arch, how) / 1e6 for how in (library, kernels, eager)}
    bytes_of = {how: f"{moved:.0f} MB an image" for how, moved in megabytes.items()}
    found = {
        f"{name}, torchvision, images/s": Prediction(stage, _rates(arch, eager), bytes_of[eager]),
        f"{name}, effnet, images/s": Prediction(stage, _rates(arch, eager), bytes_of[eager]),
        f"{name}, effnet compiled, images/s": Prediction(stage, _rates(arch, library), bytes_of[library]),
        f"{name}, timm compiled, images/s": Prediction(stage, _rates(arch, library), bytes_of[library]),
        f"{name}, effnet's best / torchvision": Prediction(
            stage, dict.fromkeys(MACHINES, _ratio(arch, library, eager)), "the library's convolutions"
        ),
    }
    if name == "B0":
        found |= {
            "B0, kernels auto, effnet compiled, images/s": Prediction(
                stage, _rates(arch, kernels), bytes_of[kernels]
            ),
            "B0, kernels auto, effnet's best / torchvision": Prediction(
                stage, dict.fromkeys(MACHINES, _ratio(arch, kernels, eager)), "the Triton kernels", goals[0]
            ),
            "B0, kernels auto, effnet's best / timm compiled": Prediction(
                stage, dict.fromkeys(MACHINES, _ratio(arch, kernels, library)), "the Triton kernels", goals[1]
            ),
        }
    return found


def _inference() -> dict[str, Prediction]:
    stage, found = "c-inference", {}
    for name, arch, batch, goal in (
        ("B0", "efficientnet-b0", 256, "at least 3"),
        ("B4", "efficientnet-b4", 64, ""),
    ):
        library, eager = "inference, library, compiled", "inference, library, eager"
        for row, how in (("effnet torch-compiled", library), ("torchvision", eager)):
            reason = f"{image_bytes(arch, how) / 1e6:.0f} MB an image"
            found[f"{name}, batch {batch}, {row}, images/s"] = Prediction(stage, _rates(arch, how), reason)
        found[f"{name}, batch {batch}, effnet's best / torchvision"] = Prediction(
            stage, dict.fromkeys(MACHINES, _ratio(arch, library, eager)), "the library's convolutions", goal
        )
    found["B0, batch 1, effnet's best, ms"] = Prediction(
        stage, _same(0.3, 0.7), "some 110 kernels of 3 to 6 us in a CUDA graph", "at most 0.7"
    )
    return found


def _all() -> dict[str, Prediction]:
    copies: dict[str, Range] = {m: (0.93 * copy_rate(m) / 1e12, 1.07 * copy_rate(m) / 1e12) for m in MACHINES}
    return {
        "tests failed": Prediction("a-tests", _same(0, 0), ""),
        "tests passed": Prediction("a-tests", _same(85, None), "two thirds of them are shapes of kernels"),
        "tests skipped": Prediction(
            "a-tests", _same(0, 5), "DALI and onnxruntime's CUDA provider are not there"
        ),
        "largest error of a kernel": Prediction(
            "b-kernels", _same(None, 3e-3), "FP16's rounding, as on a CPU"
        ),
        "3x3 kernels, share of the copy rate, forward": Prediction(
            "b-kernels", _same(0.7, 1.0), "3 exponentials an element: 0.8 ps of 0.93"
        ),
        "5x5 kernels, share of the copy rate, forward": Prediction(
            "b-kernels", _same(0.5, 0.7), "25 multiplications an element: 1.0 to 1.4 ps"
        ),
        "choice of kernels at the first start, s": Prediction("b-kernels", _same(None, 60), "its budget"),
        **_training("c-train-b0", "B0", "efficientnet-b0", ("at least 2.5", "at least 1.3")),
        **_training("c-train-b4", "B4", "efficientnet-b4", ("at least 2", "")),
        **_inference(),
        "copy rate, TB/s": Prediction("d-roofline", copies, "0.9 of the datasheet's"),
        "matrix product, TFLOP/s": Prediction("d-roofline", _same(740, 840), "0.8 of the datasheet's 989"),
        "eager training, times its floor": Prediction(
            "d-roofline", _times_floor("training, library, eager"), "bytes, and the share of the copy rate"
        ),
        "compiled training, times its floor": Prediction(
            "d-roofline", _times_floor("training, library, compiled"), "bytes, and the share of the copy rate"
        ),
        "compiled inference, times its floor": Prediction(
            "d-roofline",
            _times_floor("inference, library, compiled"),
            "bytes, and the share of the copy rate",
        ),
        "share of the ten most expensive kernels, training": Prediction(
            "d-roofline", _same(0.3, 0.7), "the first two stages move half of the bytes"
        ),
        "packed, epoch / step alone": Prediction(
            "e-input", _same(0.95, 1.03), "16 cores read several times what a step takes", "at least 0.95"
        ),
        "packed, input alone, images/s": Prediction(
            "e-input", _same(30_000, None), "2,500 a core and more at 224 px, twelve times fewer pixels"
        ),
        "JPEG, input alone, images/s": Prediction(
            "e-input", _same(4_000, 10_000), "450 to 600 a core, of which two may share one"
        ),
        "JPEG, epoch / step alone": Prediction(
            "e-input", _same(0.5, 1.03), "decoding is about as fast as the step: the GPU may wait"
        ),
        "CIFAR-10, epochs": Prediction("f-cifar10", _same(80, 80), "80 of at most 6 s"),
        "CIFAR-10, best top-1, %": Prediction(
            "f-cifar10", _same(90, 96), "71.8 after 10 epochs at 32 px here"
        ),
    }


PREDICTIONS = _all()
"""name of a figure to what is expected; figures without one are shown alone"""
