"""The choice between kernels and library: measured once, remembered, and never without a GPU."""

import json
import logging
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from effnet.kernels import choose
from effnet.kernels.block import KernelMBConv
from effnet.kernels.choose import Verdict, candidates, choose_kernels, measure_block
from effnet.kernels.tiles import TILES
from effnet.kernels.workload import Workload
from effnet.models.efficientnet import EfficientNet
from effnet.models.layers import MBConv
from effnet.runtime.errors import UserError
from tests.kernels.test_model import small

WORKLOAD = Workload(batch_size=4, image_size=75, dtype=None, compiled=False)


class Clock:
    """Says of each block what it is told to, and remembers what it was asked."""

    def __init__(self, faster: set[int], seconds: float = 0.0) -> None:
        self.faster = faster
        self.seconds, self.now = seconds, 0.0
        self.asked: list[tuple[int, int]] = []

    def __call__(self, block: MBConv, side: int, workload: Workload) -> Verdict:
        self.asked.append((block.depsep.conv.in_channels, side))
        self.now += self.seconds
        return Verdict(1, 2.0, 1.0) if side in self.faster else Verdict(None, 1.0, 2.0)


def tiles(model: EfficientNet) -> list[int | None]:
    blocks = [block for block in model.modules() if isinstance(block, MBConv)]
    return [block.train_tile if isinstance(block, KernelMBConv) else None for block in blocks]


@pytest.fixture
def model() -> EfficientNet:
    return small("efficientnet-b0", depth=1.0)


def test_each_shape_is_measured_once_and_remembered(model: EfficientNet, tmp_path: Path) -> None:
    pytest.importorskip("triton")
    cache = tmp_path / "below" / "kernels.json"
    clock = Clock(faster={19})
    verdicts = choose_kernels(model, WORKLOAD, "auto", cache, clock)
    sides = [block_side for _, block_side in clock.asked]
    assert sides[:3] == [38, 38, 19]
    assert sorted(set(sides), reverse=True) == [38, 19, 10, 5, 3]
    assert len(clock.asked) == len(set(verdicts)) < len(tiles(model))
    # the second stage's later block and the third's first see images of 19 pixels
    assert [index for index, tile in enumerate(tiles(model)) if tile == 1] == [2, 3]

    again = Clock(faster=set())
    other = small("efficientnet-b0", depth=1.0)
    choose_kernels(other, WORKLOAD, "auto", cache, again)
    assert again.asked == []
    assert tiles(other) == tiles(model)


def test_a_start_measures_for_a_minute_and_the_next_one_goes_on(
    model: EfficientNet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("triton")
    cache, clock = tmp_path / "kernels.json", Clock({38, 19, 10, 5, 3}, seconds=14.0)
    caplog.set_level(logging.INFO)
    counts = []
    for _ in range(5):
        begun, asked = clock.now, len(clock.asked)
        other = small("efficientnet-b0", depth=1.0)
        verdicts = choose_kernels(other, WORKLOAD, "auto", cache, clock, lambda: clock.now)
        assert clock.now - begun <= 60
        # Blocks of the shapes that were measured so far take the kernels, the others PyTorch's operators.
        assert len(verdicts) == len(clock.asked)
        assert (None in tiles(other)) == (len(verdicts) < 12)
        counts.append(len(clock.asked) - asked)
    assert counts == [3, 3, 3, 3, 0]
    assert len(caplog.messages) == 5  # a line for each start
    assert "measured 3 shapes in 42.0 s, 9 are left to the next start; 3 of 16 blocks" in caplog.messages[0]
    assert "measured 3 shapes in 42.0 s; 16 of 16 blocks" in caplog.messages[3]
    assert "measured" not in caplog.messages[4]


def test_a_process_that_waited_takes_what_the_first_one_found(model: EfficientNet, tmp_path: Path) -> None:
    pytest.importorskip("triton")
    cache, second = tmp_path / "kernels.json", Clock({38})
    found: list[object] = []
    thread = threading.Thread(
        target=lambda: found.append(choose_kernels(model, WORKLOAD, "auto", cache, second))
    )

    class Slow(Clock):
        def __call__(self, block: MBConv, side: int, workload: Workload) -> Verdict:
            if not thread.is_alive():
                thread.start()
                time.sleep(0.5)  # it is waiting for the lock by now
            return super().__call__(block, side, workload)

    slow = Slow(set(), seconds=30.0)
    other = small("efficientnet-b0", depth=1.0)
    first = choose_kernels(other, WORKLOAD, "auto", cache, slow, lambda: slow.now)
    thread.join(60)
    assert len(first) == 1
    assert found == [first]
    assert second.asked == []


def test_a_cache_that_can_not_be_written_changes_no_choice(
    model: EfficientNet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("triton")
    (tmp_path / "file").touch()
    (tmp_path / "folder.json").mkdir()
    for cache in (tmp_path / "file" / "kernels.json", tmp_path / "folder.json"):
        caplog.clear()
        choose_kernels(model, WORKLOAD, "auto", cache, Clock(faster={19}))
        assert [index for index, tile in enumerate(tiles(model)) if tile == 1] == [2, 3]
        assert sum("measured again at the next start" in message for message in caplog.messages) == 1
        model = small("efficientnet-b0", depth=1.0)


def test_other_circumstances_are_measured_anew(
    model: EfficientNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("triton")
    cache = tmp_path / "kernels.json"
    choose_kernels(model, WORKLOAD, "auto", cache, Clock(set()))
    for changed in (
        Workload(4, 75, torch.bfloat16, False),
        Workload(4, 75, None, True),
        Workload(8, 75, None, False),
        Workload(4, 75, None, False, training=False),
    ):
        clock = Clock(set())
        choose_kernels(model, changed, "auto", cache, clock)
        assert clock.asked, changed
    monkeypatch.setattr(choose.torch, "__version__", "9.0")
    clock = Clock(set())
    choose_kernels(model, WORKLOAD, "auto", cache, clock)
    assert clock.asked


@pytest.mark.parametrize("content", ["", "[]", '{"here": {"shape": {"tile": 1}}}', "\x00"])
def test_a_damaged_file_is_replaced(model: EfficientNet, tmp_path: Path, content: str) -> None:
    pytest.importorskip("triton")
    cache = tmp_path / "kernels.json"
    cache.write_text(content)
    clock = Clock(set())
    choose_kernels(model, WORKLOAD, "auto", cache, clock)
    assert clock.asked
    assert len(next(iter(json.loads(cache.read_text()).values()))) == len(clock.asked)


def test_a_cpu_takes_the_library(model: EfficientNet, tmp_path: Path) -> None:
    for mode in ("auto", "torch"):
        assert choose_kernels(model, WORKLOAD, mode, tmp_path / "kernels.json") == {}
    assert set(tiles(model)) == {None}
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="--kernels triton needs a CUDA GPU"):
        choose_kernels(model, WORKLOAD, "triton", tmp_path / "kernels.json")


def test_small_images_take_tiles_that_they_fill() -> None:
    assert candidates(112) == [0, 1]
    for columns in (7, 14):
        for index in candidates(columns):
            wide = TILES[index].strips * TILES[index].columns
            assert columns / (-(-columns // wide) * wide) >= 0.8 * 0.875


def test_evaluation_is_chosen_apart(model: EfficientNet, tmp_path: Path) -> None:
    pytest.importorskip("triton")
    workload = replace(WORKLOAD, training=False)
    choose_kernels(model, workload, "auto", tmp_path / "kernels.json", Clock({38}))
    assert set(tiles(model)) == {None}
    blocks = [block for block in model.modules() if isinstance(block, MBConv)]
    assert [getattr(block, "eval_tile", None) for block in blocks[:3]] == [1, 1, None]
    assert measure_block(model.layers[6].block0, 3, workload).library > 0


def test_a_tile_with_wrong_results_is_left_out(
    model: EfficientNet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    right = KernelMBConv.filtered

    def wrong(block: KernelMBConv, y: torch.Tensor) -> torch.Tensor:
        return right(block, y) * (1.0 if block.train_tile is None else 1.1)

    monkeypatch.setattr(KernelMBConv, "filtered", wrong)
    verdict = measure_block(model.layers[6].block0, 3, WORKLOAD)
    assert verdict.tile is None
    assert verdict.kernel is None
    assert "differ from the library's by 10" in caplog.text


def test_a_compiled_run_compares_compiled_parts(model: EfficientNet, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []

    def compile_(function: object, **options: object) -> object:
        compiled.append(options)
        return function

    monkeypatch.setattr(torch, "compile", compile_)
    verdict = measure_block(model.layers[6].block0, 3, replace(WORKLOAD, compiled=True))
    assert verdict.kernel is not None
    assert compiled == [{"fullgraph": True, "dynamic": False}] * 2  # library and best tile


def test_measuring_leaves_the_block_alone(model: EfficientNet, caplog: pytest.LogCaptureFixture) -> None:
    block = model.layers[6].block0
    before = {name: value.clone() for name, value in block.state_dict().items()}
    with caplog.at_level(logging.INFO):
        verdict = measure_block(block, 3, WORKLOAD)
    assert type(block) is MBConv
    assert verdict.library > 0
    assert verdict.kernel > 0
    torch.testing.assert_close(block.state_dict(), before, rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in block.parameters())
