"""A step that is skipped leaves nothing behind, and its event names the images."""

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from effnet.benchmark.train import synthetic_trainer
from effnet.cli import main
from effnet.data.folder import list_images
from effnet.data.position import TrainOrder
from effnet.recipe import Recipe
from effnet.training.buffers import StepBuffers
from effnet.training.run import train
from effnet.training.trainer import Trainer
from tests.runs import CLASSES, quick_recipe, records, write_images
from tests.training.poison import POISONS, differing, everything, poisoned_batches
from tests.training.processes import in_processes

CPU = torch.device("cpu")
BATCH_SIZE = 8
MODELS = {
    "plain": {},
    "quantized": {"arch": "efficientnet-quant-b0"},
    "frozen": {"freeze": "backbone"},
}


def trainer_of(workspace: Path, **changes: Any) -> Trainer:
    values = {
        "num_classes": 4,
        "use_ema": 0.9,
        "optimizer": "rmsprop",
        "warmup": 0.0,
        "epochs": 1,
        "prof": 30,
    }
    trainer, _ = synthetic_trainer(quick_recipe(workspace, **{**values, **changes}), CPU)
    trainer._train_mode()
    return trainer


def train_batches(trainer: Trainer, first: int, count: int) -> list[Any]:
    batch, mixes = next(iter(trainer.loader)), trainer.mixes(0)
    return [trainer.train_on(batch, mixes[number], number) for number in range(first, first + count)]


@pytest.mark.parametrize(
    ("model", "poison", "accumulation"),
    [
        ("plain", "loss", 3),
        ("plain", "statistic", 3),
        ("plain", "gradient", 1),
        ("quantized", "loss", 1),
        ("frozen", "loss", 1),
    ],
)
def test_a_bad_step_changes_nothing_bit_for_bit(
    tmp_path: Path, model: str, poison: str, accumulation: int
) -> None:
    trainer = trainer_of(tmp_path, optimizer_batch_size=BATCH_SIZE * accumulation, **MODELS[model])
    train_batches(trainer, 1, accumulation)
    before = everything(trainer)
    # The second batch of the group, or its only one; the others are good.
    good = accumulation // 2
    results = train_batches(trainer, accumulation + 1, good)
    handle = POISONS[poison](trainer)
    results += train_batches(trainer, accumulation + 1 + good, 1)
    handle.remove()
    results += train_batches(trainer, accumulation + 2 + good, accumulation - 1 - good)
    assert [result.taken for result in results] == [None] * (accumulation - 1) + [torch.tensor(False)]
    assert math.isfinite(results[good].loss) == (poison != "loss")
    assert differing(before, everything(trainer)) == []
    # A good step afterwards changes weights, average and, where BatchNorm trains, its statistics.
    (*_, good_step) = train_batches(trainer, 2 * accumulation + 1, accumulation)
    assert good_step.taken
    changed = differing(before, everything(trainer))
    assert {"ema step", "model.classifier.fc.weight", "ema.classifier.fc.weight"} <= set(changed)
    statistics = [name for name in changed if "running_" in name or "num_batches" in name]
    assert bool(statistics) == (model != "frozen")


def test_a_variance_that_overflows_skips_the_step_though_loss_and_gradients_are_finite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def large(_: Any, inputs: Any) -> Any:
        return (inputs[0] * 1e20,)  # whose square is beyond float32

    def run(**patched: Any) -> tuple[list[str], Any]:
        trainer = trainer_of(tmp_path, arch="efficientnet-b0")
        train_batches(trainer, 1, 1)
        before = everything(trainer)
        # The last one: behind others its constant output would leave nothing but rounding, which they enlarge.
        handle = trainer.opened.model.features.bn.register_forward_pre_hook(large)
        for name, value in patched.items():
            monkeypatch.setattr(StepBuffers, name, value)
        (result,) = train_batches(trainer, 2, 1)
        handle.remove()
        return differing(before, everything(trainer)), result

    changed, result = run()
    assert math.isfinite(result.loss)
    assert not math.isfinite(result.statistics)
    assert not result.taken
    assert changed == []
    # Without the look at the statistics the step counts as good.
    changed, result = run(sum=lambda _: torch.tensor(0.0))
    assert result.taken
    assert "model.features.bn.running_var" in changed


@pytest.mark.parametrize("taken", [True, False])
def test_buffers_are_chosen_on_a_gpu_as_on_a_cpu(tmp_path: Path, taken: bool) -> None:
    model = trainer_of(tmp_path).opened.model
    buffers = StepBuffers(model)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    buffers.keep()
    for buffer in model.buffers():
        buffer.fill_(7)
    for group in buffers._groups:
        group.choose(torch.tensor(taken))
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, torch.full_like(buffer, 7) if taken else before[name])


POISONED = 7  # the second epoch's third batch of four


def expected_files(images: Path, *, epoch: int, step: int, rank: int = 0, world_size: int = 1) -> list[str]:
    folder = list_images(images, "train")
    order = TrainOrder(len(folder), BATCH_SIZE, 0, rank, world_size)
    indices = next(order.batches(epoch, step - 1))
    return [str(folder.path(index)) for index in indices]


def test_the_event_names_the_images_and_the_seeds(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with poisoned_batches({POISONED}):
        metrics = train(quick_recipe(tmp_path, use_ema=0.9, workers=2), images)
    (record,) = [r for r in records(tmp_path, "event") if r["data"]["event"] == "non-finite loss"]
    assert (record["epoch"], record["step"]) == (1, 3)
    (part,) = record["data"]["batches"]
    assert part["files"] == expected_files(images, epoch=1, step=3)
    assert [part[name] for name in ("rank", "batch", "loss")] == [0, 3, "nan"]
    assert record["data"]["seed"] == 0
    assert len(part["indices"]) == BATCH_SIZE
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "step 3: the loss is nan" in line]
    assert f"the step was left out; its images: {part['files'][0]}, " in line
    assert line.endswith("and 5 more in the log")
    # What follows is a good run.
    epochs = [record["data"] for record in records(tmp_path, "epoch")]
    assert [epoch["train.skipped_steps"] for epoch in epochs] == [0, 1, 0]
    assert all(isinstance(epoch[name], float) for epoch in epochs for name in ("train.loss", "val.loss"))
    assert math.isfinite(metrics["val_ema.loss"])
    # A poisoned epoch may be the best: its step left nothing behind.
    assert (tmp_path / "model_best.pth.tar").exists()


def run_of_a_rank(recipe: Recipe, data: Path, poisoned_rank: int) -> dict[str, float]:
    """Train with the third batch of one process poisoned."""
    with poisoned_batches({3} if int(os.environ["RANK"]) == poisoned_rank else ()):
        return train(recipe, data)


def test_a_bad_batch_of_one_process_is_skipped_by_all(tmp_path: Path) -> None:
    data = tmp_path / "images"
    for split, count in (("train", 16), ("val", 4)):
        write_images(data / split, dict.fromkeys(CLASSES, count), coloured=True)
    recipe = quick_recipe(tmp_path, use_ema=0.9, epochs=1)
    first, second = in_processes(2, run_of_a_rank, recipe, data, 1)
    assert first["train.loss"] == second["train.loss"]
    assert first["train.skipped_steps"] == second["train.skipped_steps"] == 1
    assert first["val.loss"] == second["val.loss"]
    assert math.isfinite(first["val.loss"])
    (event,) = [r["data"] for r in records(tmp_path, "event") if r["data"]["event"] == "non-finite loss"]
    (part,) = event["batches"]
    assert (part["rank"], part["batch"]) == (1, 3)
    assert part["files"] == expected_files(data, epoch=0, step=3, rank=1, world_size=2)


def step_of_a_rank(workspace: Path, poison: str, sync_bn: bool, accumulation: int) -> dict[str, Any]:
    """Poison a step in process 1 and return what it changed in this process."""
    from effnet.runtime.log import RunLog
    from effnet.runtime.processes import joined_processes
    from effnet.training.setup import open_run

    recipe = quick_recipe(
        workspace,
        data_backend="synthetic",
        num_classes=4,
        use_ema=0.9,
        warmup=0.0,
        prof=30,
        sync_bn=sync_bn,
        optimizer_batch_size=2 * BATCH_SIZE * accumulation,
    )
    with joined_processes("cpu") as processes:
        trainer = Trainer(open_run(recipe, None, processes, ("train",)), RunLog(None))
        trainer._train_mode()
        train_batches(trainer, 1, accumulation)
        before = everything(trainer)
        handle = POISONS[poison](trainer) if processes.rank == 1 else None
        results = train_batches(trainer, accumulation + 1, 1)
        if handle is not None:
            handle.remove()
        results += train_batches(trainer, accumulation + 2, accumulation - 1)
        changed = differing(before, everything(trainer))
        (*_, after) = train_batches(trainer, 2 * accumulation + 1, accumulation)
        return {
            "taken": bool(results[-1].taken),
            "changed": changed,
            "loss is finite": math.isfinite(results[0].loss),
            "then": bool(after.taken),
        }


@pytest.mark.parametrize(
    ("poison", "sync_bn", "accumulation"),
    [("statistic", False, 1), ("statistic", False, 2), ("loss", True, 1), ("gradient", False, 2)],
)
def test_all_processes_agree_on_a_bad_step(
    tmp_path: Path, poison: str, sync_bn: bool, accumulation: int
) -> None:
    results = in_processes(2, step_of_a_rank, tmp_path, poison, sync_bn, accumulation)
    for result in results:
        assert not result["taken"]
        assert result["changed"] == []
        assert result["then"]
    if poison == "statistic":
        assert all(result["loss is finite"] for result in results)


def test_learning_rate_of_a_million_ends_with_the_old_best_untouched(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = [
        "-a",
        "efficientnet-lite0",
        "--image-size",
        "32",
        "-b",
        "8",
        "-j",
        "0",
        "--device",
        "cpu",
        "-p",
        "2",
    ]
    flags = ["train", *quick, "--workspace", str(tmp_path), str(images)]
    assert main([*flags, "--epochs", "1", "--lr", "0.01"]) == 0
    best, latest = tmp_path / "model_best.pth.tar", tmp_path / "checkpoint.pth.tar"
    before = best.read_bytes(), latest.read_bytes()
    capsys.readouterr()
    assert main([*flags, "--epochs", "9", "--lr", "1e6", "--warmup", "0", "--resume", str(latest)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "the training has diverged: the loss is" in line
    assert "lower --lr" in line
    assert (best.read_bytes(), latest.read_bytes()) == before
    assert json.loads((tmp_path / "report.json").read_text().splitlines()[-1])["type"] == "iteration"
