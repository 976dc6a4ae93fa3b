"""Choice of the blocks that run the kernels: those in which they are measured to be faster than PyTorch's operators.

The blocks of a network have about a dozen different shapes. For each, the part of a block that the kernels stand for
is timed forward and backward both ways, on the device and in the precision of the run, compiled if the run is. The
verdicts are kept on disk, so that the next start only reads them. A start measures for a minute at most; shapes that
are left run PyTorch's operators until the next one.
"""

import copy
import hashlib
import json
import logging
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from effnet.kernels.available import has_triton
from effnet.kernels.block import KernelMBConv, can_fuse
from effnet.kernels.tiles import DEFAULT_TILE, TILES, Tile
from effnet.kernels.workload import Mode, Workload
from effnet.models.efficientnet import EfficientNet
from effnet.models.layers import MBConv, ResidualBlock
from effnet.models.replace import with_state_of
from effnet.runtime.disk import DiskError, cannot_write
from effnet.runtime.errors import UserError
from effnet.runtime.files import write_text
from effnet.runtime.plain import is_count, is_number, parse_json

logger = logging.getLogger(__name__)

REPEATS, WARMUP = 15, 3
# Seconds that a start may take longer for.
BUDGET = 55.0
# Tiles that leave more than this share of the best one's lanes idle are not worth timing.
FILLED_SHARE = 0.8
MOST_TILES = 2
# Relative error of results: BF16's rounding after each step of a chain and its gradient comes to a hundredth or two.
AGREEMENT = 0.05


@dataclass(frozen=True)
class Verdict:
    """Result of the measurement of one shape.

    Attributes:
        tile: index of the fastest tile, or None if the library is faster than all of them.
        library: milliseconds of the library.
        kernel: milliseconds of the fastest tile; None if none runs here and agrees with the library.
    """

    tile: int | None
    library: float
    kernel: float | None


Measure = Callable[[MBConv, int, Workload], Verdict]
"""times a block whose input has the given side in pixels"""


class _Budget:
    """Seconds for measurements, of which the next is expected to take as long as the longest so far."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds, self._clock = seconds, clock
        self.spent, self._longest = 0.0, 0.0

    def allows_another(self) -> bool:
        return self._seconds > 0 and self.spent + self._longest <= self._seconds

    @contextmanager
    def spend(self) -> Iterator[None]:
        begun = self._clock()
        yield
        took = self._clock() - begun
        self.spent += took
        self._longest = max(self._longest, took)


def choose_kernels(
    model: EfficientNet,
    workload: Workload,
    mode: Mode,
    cache: Path,
    measure: Measure | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Verdict]:
    """Set the tile in each block of `model`, which is on its device, as `mode` says: for training or evaluation.

    Args:
        model: in channels-last memory format.
        workload: the run's.
        mode: ``auto`` takes the kernels where they are faster, and never without a GPU; ``triton`` takes them in
            every block that they can stand for, untimed; ``torch`` takes none.
        cache: file that keeps the verdicts.
        measure: for tests; `measure_block` on a GPU.
        clock: for tests; seconds.

    Returns:
        Verdicts by shape, of those that were measured now or earlier.

    Raises:
        UserError: ``triton`` without a GPU or without Triton.
    """
    device = next(model.parameters()).device
    if mode == "triton" and (device.type != "cuda" or not has_triton()):
        raise UserError("--kernels triton needs a CUDA GPU and the package triton; leave it at auto")
    blocks = {
        name: (block, side)
        for name, block, side in block_sides(model, workload.image_size)
        if can_fuse(block)
    }
    if mode == "triton":
        for name, (block, _) in blocks.items():
            model.set_submodule(name, with_tile(block, DEFAULT_TILE, workload))
    if mode != "auto" or not (measure or (device.type == "cuda" and has_triton())):
        return {}
    return _choose(model, blocks, workload, cache, measure or measure_block, clock)


def _choose(
    model: EfficientNet,
    blocks: Mapping[str, tuple[MBConv, int]],
    workload: Workload,
    cache: Path,
    measure: Measure,
    clock: Callable[[], float],
) -> dict[str, Verdict]:
    used: dict[str, Verdict] = {}
    chosen, shapes, measured = 0, set(), 0
    with _one_measures(cache) as (is_kept, is_first):
        # A process that waited takes what the first one has found, so that all of a run compute alike.
        budget = _Budget(BUDGET if is_first else 0.0, clock)
        known = _read(cache)
        here = known.setdefault(_environment(next(model.parameters()).device, workload), {})
        for name, (block, side) in blocks.items():
            shape = shape_name(block, side, workload.batch_size)
            shapes.add(shape)
            if shape not in here:
                if not budget.allows_another():
                    continue
                with budget.spend():
                    here[shape] = measure(block, side, workload)
                measured += 1
                is_kept = is_kept and _write(cache, known)
                logger.debug("kernels: %s: %s", shape, _told(here[shape]))
            used[shape] = here[shape]
            if (tile := here[shape].tile) is not None:
                model.set_submodule(name, with_tile(block, tile, workload))
                chosen += 1
    logger.info(
        "kernels: %s%d of %d blocks take the Triton kernels (%s)",
        _spent(measured, len(shapes) - len(used), budget.spent),
        chosen,
        len(blocks),
        cache,
    )
    return used


def _spent(measured: int, left: int, seconds: float) -> str:
    """Return what a start has measured, in words; empty if all was known."""
    if not measured and not left:
        return ""
    rest = f", {left} are left to the next start" if left else ""
    return f"measured {measured} shapes in {seconds:.1f} s{rest}; "


@contextmanager
def _one_measures(cache: Path) -> Iterator[tuple[bool, bool]]:
    """Let one process on a machine measure, while the others wait to read.

    Yields:
        False if verdicts can't be kept, as on a full disk; False if another process was waited for.
    """
    is_first = True
    lock = FileLock(cache.with_suffix(".lock"))
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            is_first = False
            lock.acquire()
    except OSError as error:
        logger.warning("%s; the kernels are measured again at the next start", cannot_write(cache, error))
        yield False, True
        return
    try:
        yield True, is_first
    finally:
        lock.release()


def with_tile(block: MBConv, tile: int | None, workload: Workload) -> KernelMBConv:
    """Return a block of the same state that runs the kernels, for training or for evaluation.

    Args:
        block: plain, or one that runs them already, whose tile for the other mode is kept.
        tile: index into `effnet.kernels.tiles.TILES`; None for PyTorch's operators.
        workload: of the run.
    """
    made = with_state_of(KernelMBConv, block)
    if workload.training:
        made.train_tile = tile
    else:
        made.eval_tile = tile
    return made


def _told(verdict: Verdict) -> str:
    choice = "library" if verdict.tile is None else f"kernels, tile {verdict.tile}"
    kernel = "none that runs" if verdict.kernel is None else f"{verdict.kernel:.3f} ms"
    return f"{choice} (library {verdict.library:.3f} ms, kernels {kernel})"


def block_sides(model: EfficientNet, image_size: int) -> Iterator[tuple[str, MBConv, int]]:
    """Yield the name of every `MBConv`, the block, and the side of its input in pixels."""
    side = -(-image_size // model.stem.conv.stride[0])
    for name, block in model.named_modules():
        if isinstance(block, MBConv):
            yield name, block, side
        if isinstance(block, ResidualBlock):
            side = -(-side // block.stride)


def shape_name(block: MBConv, side: int, batch_size: int) -> str:
    """Return all of a block that its time depends on, in words: ``256x96x112x112 3x3/2 symmetric SiLU``."""
    conv, expands = block.depsep.conv, block.expand is not None
    return (
        f"{batch_size}x{conv.in_channels}x{side}x{side} {conv.kernel_size[0]}x{conv.kernel_size[0]}"
        f"/{conv.stride[0]} {'same' if conv.pads_itself else 'symmetric'}"
        f" {type(block.depsep.act).__name__}{'' if expands else ', input as it is'}"
    )


def _environment(device: torch.device, workload: Workload) -> str:
    """Return all that a verdict depends on besides the shape."""
    sources = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    how = ", ".join(
        [
            "training" if workload.training else "evaluation",
            str(workload.dtype or "no autocast"),
            "compiled" if workload.compiled else "eager",
        ]
    )
    versions = f"torch {torch.__version__}, cuda {torch.version.cuda}, triton {metadata.version('triton')}"
    return f"{where}, {how}, {versions}, kernels {hashlib.sha256(sources).hexdigest()[:12]}"


def _read(cache: Path) -> dict[str, dict[str, Verdict]]:
    try:
        content = parse_json(cache.read_bytes())
        if not isinstance(content, dict) or not all(isinstance(found, dict) for found in content.values()):
            raise UserError("no verdicts")
        return {
            environment: {shape: _verdict(values) for shape, values in verdicts.items()}
            for environment, verdicts in content.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, UserError) as error:
        logger.warning("kernels: %s can't be read; measuring again (%s)", cache, error)
        return {}


def _verdict(values: object) -> Verdict:
    """Return the verdict of plain values."""
    if not isinstance(values, dict) or values.keys() != {"tile", "library", "kernel"}:
        raise UserError("no verdict")
    tile, library, kernel = (values[name] for name in ("tile", "library", "kernel"))
    is_right = (
        (tile is None or is_count(tile, 0, len(TILES) - 1))
        and is_number(library, 0, 1e9)
        and (kernel is None or is_number(kernel, 0, 1e9))
    )
    if not is_right:
        raise UserError("no verdict")
    return Verdict(tile, library, kernel)


def _write(cache: Path, known: Mapping[str, Mapping[str, Verdict]]) -> bool:
    """Keep the verdicts, and return True; False where the disk does not take them, which ends no run."""
    content = {
        environment: {shape: asdict(verdict) for shape, verdict in verdicts.items()}
        for environment, verdicts in known.items()
    }
    try:
        write_text(cache, json.dumps(content, indent=1))
    except DiskError as error:
        logger.warning("%s; the kernels are measured again at the next start", error)
        return False
    return True


def measure_block(block: MBConv, side: int, workload: Workload) -> Verdict:
    """Time the part of `block` that the kernels can stand for, both ways.

    A tile that can't run on this GPU, or whose results are not the library's, is left out with a warning.

    Args:
        block: on its device; it is copied, so its statistics and gradients stay as they are.
        side: pixels of the square input.
        workload: of the run.
    """
    block = copy.deepcopy(block).train(workload.training)
    # Tiles are compared without the compiler, which takes seconds for each and changes nothing in a kernel.
    eager = replace(workload, compiled=False)
    expected = _step(block, None, side, eager)()
    times: dict[int, float] = {}
    for tile in candidates(side):
        with _left_out_on_failure(tile):
            _compare(_step(block, tile, side, eager)(), expected)
            times[tile] = _timed(block, tile, side, eager)
    del expected
    library, kernel = _timed(block, None, side, workload), None
    if times:
        best = min(times, key=lambda tile: times[tile])
        with _left_out_on_failure(best):
            kernel = _timed(block, best, side, workload) if workload.compiled else times[best]
    return Verdict(best if kernel is not None and kernel < library else None, library, kernel)


@contextmanager
def _left_out_on_failure(tile: int) -> Iterator[None]:
    """Leave a tile out if it fails for any reason: PyTorch's operators remain."""
    try:
        yield
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        logger.warning("kernels: tile %d is left out: %s", tile, reason)


def _timed(block: MBConv, tile: int | None, side: int, workload: Workload) -> float:
    step = _step(block, tile, side, workload)
    return milliseconds(step, block.depsep.conv.weight.device)


def _compare(found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    """Raise unless results agree to what the narrowest type among them and TF32 allow."""
    for a, b in zip(found, expected, strict=True):
        apart, whole = (torch.linalg.vector_norm(t, dtype=torch.float32) for t in (a - b, b))
        error = apart / whole
        if not error.item() < AGREEMENT:  # NaN is no agreement either
            raise ArithmeticError(f"its results differ from the library's by {error.item():.1%}")


def candidates(columns: int) -> list[int]:
    """Return the tiles worth timing for images of `columns` columns: those that keep most of their lanes busy."""

    def filled(tile: Tile) -> float:
        wide = tile.strips * tile.columns
        return columns / (-(-columns // wide) * wide)

    best = max(filled(tile) for tile in TILES)
    return [index for index, tile in enumerate(TILES) if filled(tile) >= FILLED_SHARE * best][:MOST_TILES]


def _step(block: MBConv, tile: int | None, side: int, workload: Workload) -> Callable[[], Sequence[Tensor]]:
    """Return a step of the part that the kernels replace, forward and in training backward, on fixed random tensors."""
    block = with_tile(block, tile, workload)
    conv, device = block.depsep.conv, block.depsep.conv.weight.device
    out = -(-side // conv.stride[0])
    dtype = workload.dtype or conv.weight.dtype
    generator = torch.Generator(device).manual_seed(0)
    x, arriving = (
        torch.randn(
            workload.batch_size, conv.in_channels, size, size, device=device, dtype=dtype, generator=generator
        ).to(memory_format=torch.channels_last)
        for size in (side, out)
    )

    def forward(expanded: Tensor) -> Tensor:
        with workload.autocast(device):
            return block.filtered(expanded)

    if workload.compiled:
        torch.compiler.reset()  # each form is compiled by itself, else there are soon too many of one function
    run: Any = torch.compile(forward, fullgraph=True, dynamic=False) if workload.compiled else forward

    def evaluate() -> Sequence[Tensor]:
        with torch.no_grad():
            return (run(x),)

    def train() -> Sequence[Tensor]:
        y = run(x)
        return (y.detach(), *torch.autograd.grad(y, inputs, arriving))

    if not workload.training:
        return evaluate
    norms = [block.depsep.bn, *([block.expand.bn] if block.expand is not None else [])]
    inputs = [
        x.requires_grad_(),
        *(parameter for norm in norms for parameter in norm.parameters()),
        conv.weight,
    ]
    return train


def milliseconds(step: Callable[[], object], device: torch.device) -> float:
    """Return the median time of a step in milliseconds, by device events on a GPU."""
    for _ in range(WARMUP):
        step()
    if device.type != "cuda":
        marks = [time.perf_counter()]
        for _ in range(REPEATS):
            step()
            marks.append(time.perf_counter())
        return statistics.median(1000 * (end - begin) for begin, end in pairwise(marks))
    events = [torch.cuda.Event(enable_timing=True) for _ in range(REPEATS + 1)]
    events[0].record()
    for event in events[1:]:
        step()
        event.record()
    events[-1].synchronize()
    return statistics.median(begin.elapsed_time(end) for begin, end in pairwise(events))
