"""`--engine auto` takes the candidate that is the fastest by its measurement, keeps it, and measures it once."""

import json
import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from effnet.cli import main
from effnet.doctor.engines import check_engine_choices
from effnet.export.trained import ModelChoice, TrainedModel
from effnet.inference.auto import cases
from effnet.inference.auto.cases import case_of_weights
from effnet.inference.auto.choose import Case, Chooser, Work
from effnet.inference.auto.race import MOST_SECONDS, race
from effnet.inference.engine import engine_of, open_engine
from effnet.inference.engines.form import Candidate
from effnet.inference.engines.openvino import OpenVinoNetwork
from effnet.runtime.engine_choices import EngineChoices, Kept
from effnet.runtime.errors import UserError
from effnet.weights import WeightsMetadata, create_model
from tests.runs import PREPROCESSING

CPU = torch.device("cpu")
FIRST, SECOND, THIRD = "openvino", "onnxruntime", "torch"
ENDLESS = Work(8)
METADATA = WeightsMetadata("efficientnet-lite0", PREPROCESSING)


@dataclass
class Machine:
    """Engines whose steps take the given seconds of a clock of their own.

    Attributes:
        seconds: of a step by candidate; a list is used up step by step, over and over.
        broken: candidates that can't be opened, with the error.
    """

    folder: Path
    seconds: Mapping[str, float | list[float]]
    broken: Mapping[str, Exception] = field(default_factory=dict)
    now: float = 0.0
    opened: list[str] = field(default_factory=list)
    steps: int = 0

    def open(self, candidate: Candidate) -> Any:
        self.opened.append(str(candidate))
        if str(candidate) in self.broken:
            raise self.broken[str(candidate)]
        return SimpleNamespace(name=str(candidate))

    def step(self, network: Any, images: int) -> Callable[[], None]:
        taken = self.seconds[network.name]
        cycle = taken if isinstance(taken, list) else [taken]
        number = 0

        def step() -> None:
            nonlocal number
            self.now += cycle[number % len(cycle)] * images / 8
            number += 1
            self.steps += 1

        return step

    def choose(self, work: Work = ENDLESS, key: str = "key", names: Iterable[str] = ()) -> str:
        candidates = [Candidate.parse(name) for name in names or self.seconds]
        chooser = Chooser(EngineChoices(self.folder / "engines.json"), self.step, lambda: self.now)
        return str(chooser.choose(Case(key, candidates, self.open, 8), work).network.name)

    def kept(self, key: str = "key") -> Kept:
        return EngineChoices(self.folder / "engines.json").get(key)


def quick(folder: Path, **changes: Any) -> Machine:
    """A machine on which the first engine of the order is not the fastest."""
    return Machine(folder, {FIRST: 0.014, SECOND: 0.012, THIRD: 0.021}, **changes)


def test_the_first_of_the_order_loses_if_it_is_slower(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    machine = quick(tmp_path)
    with caplog.at_level(logging.INFO):
        assert machine.choose() == SECOND
    kept = machine.kept()
    assert kept.best == SECOND
    assert list(kept.milliseconds) == [SECOND, FIRST, THIRD]
    assert [round(time) for time in kept.milliseconds.values()] == [12, 14, 21]
    assert (kept.images, round(kept.spread, 6), kept.failed) == (8, 0.0, ())
    told = "onnxruntime (12.0 ms for 8 images; openvino 14.0, torch 21.0), kept in"
    assert f"engine: {told} {tmp_path / 'engines.json'}" in caplog.messages
    assert machine.now < MOST_SECONDS + 1


def test_what_is_kept_is_not_measured_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    quick(tmp_path).choose()
    later = quick(tmp_path)
    with caplog.at_level(logging.INFO):
        assert later.choose() == SECOND
        assert later.choose(Work(8, images=1)) == SECOND
    assert later.steps == 0
    assert later.opened == [SECOND, SECOND]
    assert "as kept in" in caplog.text
    assert later.choose(replace(ENDLESS, again=True)) == SECOND
    assert later.steps > 0


def test_another_machine_or_batch_is_measured_by_itself(tmp_path: Path) -> None:
    assert quick(tmp_path).choose(key="batch 8") == SECOND
    other = Machine(tmp_path, {FIRST: 0.001, SECOND: 0.012})
    assert other.choose(key="batch 1") == FIRST
    assert [other.kept(key).best for key in ("batch 8", "batch 1")] == [SECOND, FIRST]


@pytest.mark.parametrize("images", [1, 300])
def test_little_work_takes_the_first_without_a_measurement(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, images: int
) -> None:
    machine = quick(tmp_path)
    with caplog.at_level(logging.INFO):
        assert machine.choose(Work(8, images)) == FIRST
    assert machine.opened == [FIRST]
    assert "too little work" in caplog.text
    assert not machine.kept().is_usable
    assert machine.choose(Work(8, 100_000)) == SECOND


def test_who_shares_the_work_takes_the_first_whatever_is_kept(tmp_path: Path) -> None:
    machine = quick(tmp_path)
    assert machine.choose() == SECOND
    assert machine.choose(Work(8, 100_000, measures=False)) == FIRST


def test_times_that_vary_are_not_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    noisy = Machine(tmp_path, {FIRST: [0.4, 0.9, 0.5, 1.4], SECOND: [0.8, 0.5, 1.3, 0.4, 1.0]})
    with caplog.at_level(logging.INFO):
        assert noisy.choose() in (FIRST, SECOND)
    assert not noisy.kept().is_usable
    assert "not kept, as the times varied by" in caplog.text


def test_a_clear_result_is_kept_on_a_busy_machine(tmp_path: Path) -> None:
    busy = Machine(tmp_path, {FIRST: [1.2, 1.6, 1.4, 1.1], SECOND: [0.3, 0.42, 0.36, 0.3, 0.4]})
    assert busy.choose() == SECOND
    assert busy.kept().best == SECOND
    assert busy.kept().spread > 0.15


def test_long_steps_are_measured_on_a_smaller_batch(tmp_path: Path) -> None:
    slow = Machine(tmp_path, {FIRST: 6.0, SECOND: 4.0})
    assert slow.choose() == SECOND
    assert slow.kept().images < 8
    assert slow.now < 2 * 6.0 + 4 * MOST_SECONDS


def test_far_behind_is_left_out_of_the_later_rounds() -> None:
    now = 0.0
    counts = {"fast": 0, "slow": 0}

    def step(name: str, seconds: float) -> Callable[[], None]:
        def run() -> None:
            nonlocal now
            now += seconds
            counts[name] += 1

        return run

    found = race({"slow": step("slow", 0.4), "fast": step("fast", 0.2)}, 100.0, lambda: now)
    assert found.best == "fast"
    assert found.seconds == pytest.approx({"fast": 0.2, "slow": 0.4})
    assert counts["slow"] == 3 * 2  # an untimed step and a timed one


@pytest.mark.parametrize(
    "error", [UserError("can't be exported"), ImportError("no such package"), RuntimeError("out of luck")]
)
def test_a_candidate_that_fails_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    machine = quick(tmp_path, broken={SECOND: error})
    with caplog.at_level(logging.INFO):
        assert machine.choose() == FIRST
    lines = [line for line in caplog.messages if "left out" in line]
    assert lines == [f"engine: {SECOND} left out: {error}"]
    assert machine.kept().best == FIRST
    assert machine.kept().failed == ()


def test_if_the_first_can_not_be_opened_the_next_is_taken(tmp_path: Path) -> None:
    machine = quick(tmp_path, broken={FIRST: UserError("--precision")})
    assert machine.choose(Work(8, 1)) == SECOND
    with pytest.raises(UserError, match="--precision"):
        quick(tmp_path, broken=dict.fromkeys((FIRST, SECOND, THIRD), UserError("--precision"))).choose()


def test_a_candidate_in_which_the_process_died_is_not_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if (process := os.fork()) == 0:
        dying = quick(tmp_path)
        honest = dying.open
        dying.open = lambda candidate: os._exit(9) if str(candidate) == SECOND else honest(candidate)  # type: ignore[method-assign]
        dying.choose()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 9
    machine = quick(tmp_path)
    with caplog.at_level(logging.INFO):
        assert machine.choose() == FIRST
    assert SECOND not in machine.opened
    assert f"{SECOND} left out: an earlier measurement ended in it" in caplog.text
    assert machine.choose(replace(ENDLESS, again=True)) == SECOND


@pytest.mark.parametrize(
    "content",
    ["", "[1]", '{"key": 3}', '{"key": {"best": "torch"}}', '{"key": {"milliseconds": {"torch": "slow"}}}',
     '{"key": {"best": "gone", "milliseconds": {"gone": 1}, "images": 8, "spread": 0.1, "failed": []}}'],
)  # fmt: skip
def test_a_damaged_file_is_an_empty_one(tmp_path: Path, content: str) -> None:
    (tmp_path / "engines.json").write_text(content)
    assert quick(tmp_path).choose() == SECOND
    assert json.loads((tmp_path / "engines.json").read_text())["key"]["best"] == SECOND


def test_two_at_a_time_measure_once(tmp_path: Path) -> None:
    machines = [quick(tmp_path) for _ in range(3)]
    threads = [threading.Thread(target=machine.choose) for machine in machines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(len(machine.opened) > 2 for machine in machines) == 1
    assert quick(tmp_path).kept().best == SECOND


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_cache_that_can_not_be_written_is_done_without(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert quick(tmp_path).choose() == SECOND
    assert quick(tmp_path).kept() == Kept()


def test_the_key_names_what_the_times_depend_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def key(classes: int = 5, seed: int = 0, precision: str = "fp32", batch: int = 8) -> str:
        torch.manual_seed(seed)
        model = create_model("efficientnet-lite0", num_classes=classes, image_size=64)
        return case_of_weights(TrainedModel(model, METADATA), CPU, precision, Path(), Work(batch)).key

    usual = key()
    assert key(seed=1) == usual
    others = [key(classes=6), key(precision="bf16"), key(batch=4)]
    with monkeypatch.context() as patch:
        patch.setattr(cases, "cpu_model", lambda: "another processor")
        others.append(key())
        patch.setattr(cases, "version_of", lambda name: "0.0")
        others.append(key())
    assert len({usual, *others}) == 1 + len(others)


def test_a_compiler_is_no_candidate_where_others_need_none(monkeypatch: pytest.MonkeyPatch) -> None:
    trained = TrainedModel(create_model("efficientnet-lite0", num_classes=5), METADATA)

    def names(precision: str, work: Work) -> set[str]:
        case = case_of_weights(trained, CPU, precision, Path(), work)
        return {candidate.engine for candidate in case.candidates}

    pytest.importorskip("openvino", reason="extra openvino")
    assert "torch-compiled" not in names("fp32", Work(8, 10**6))
    assert "onnxruntime" not in names("bf16", Work(8))
    assert names("fp16", Work(8, 10**6)) == {"torch", "torch-compiled"}
    assert names("fp16", Work(8, 100)) == {"torch"}


def test_text_of_a_candidate() -> None:
    candidate = Candidate("openvino", (("streams", 2),))
    assert str(candidate) == "openvino streams=2"
    assert Candidate.parse(str(candidate)) == candidate
    with pytest.raises(UserError, match="--engine"):
        open_engine(ModelChoice(arch="efficientnet-lite0"), "openvino streams=many")


@pytest.fixture(scope="module")
def small() -> TrainedModel:
    pytest.importorskip("onnxruntime", reason="extra onnx")
    pytest.importorskip("openvino", reason="extra openvino")
    torch.manual_seed(0)
    preprocessing = {**PREPROCESSING, "image_size": 64, "resize": 64}
    model = create_model("efficientnet-lite0", num_classes=5, image_size=64).eval()
    return TrainedModel(model, replace(METADATA, preprocessing=preprocessing, classes=tuple("abcde")))


@pytest.fixture(scope="module")
def exported(small: TrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from effnet.export.onnx import export_onnx

    path = tmp_path_factory.mktemp("exported") / "small.onnx"
    export_onnx(small.model, small.metadata, path)
    return path


@pytest.mark.slow
def test_a_real_choice(
    small: TrainedModel,
    exported: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Of real engines, on an exported file: the answers are PyTorch's, the choice is kept, shown, and removed."""
    path = exported
    monkeypatch.setenv("EFFNET_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("effnet.inference.auto.race._NOISY", 1e9)  # a busy machine is as good
    with caplog.at_level(logging.INFO):
        engine = open_engine(ModelChoice(weights=path, device="cpu"), "auto", work=Work(2))
    (kept,) = EngineChoices().all().values()
    assert kept.best == str(engine.candidate)
    assert {name.split()[0] for name in kept.milliseconds} == {"openvino", "onnxruntime"}
    assert f"engine: {kept.told()}, kept in" in caplog.text
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    assert np.allclose(engine(pixels), engine_of(small, "torch", CPU, "fp32")(pixels), atol=1e-5)
    for name in kept.milliseconds:
        other = open_engine(ModelChoice(weights=path, device="cpu"), name)
        assert np.allclose(other(pixels), engine(pixels), atol=1e-5)

    assert any(kept.told() in finding.text for finding in check_engine_choices())
    assert main(["benchmark", "inference", "--choose", "--compare", str(path), "--batch-size", "2"]) == 0
    assert f"{path}, batch 2, fp32: o" in capsys.readouterr().out
    assert main(["benchmark", "inference", "--forget"]) == 0
    assert "1 choice of --engine auto removed" in capsys.readouterr().out
    assert [finding.status for finding in check_engine_choices()] == ["absent"]


@pytest.mark.slow
def test_streams_divide_a_batch(exported: Path) -> None:
    one = OpenVinoNetwork(exported, CPU)
    two = OpenVinoNetwork(exported, CPU, streams=2)
    for count in (4, 3, 1, 2):
        images = torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(count))
        assert torch.allclose(two(images), one(images), atol=1e-5)
        assert two(images).shape == (count, 5)
