"""Trainings on real files: what they write, and that a resumed one equals an uninterrupted one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from effnet.inference.evaluate import evaluate
from effnet.runtime.errors import UserError
from effnet.training.run import train
from tests.runs import CLASSES, quick_recipe, records

METRICS = {
    *(f"train.{name}" for name in ("loss", "total_ips", "compute_ips", "data_time", "compute_time", "lr")),
    *(
        f"val.{name}"
        for name in ("loss", "top1", "top5", "total_ips", "compute_ips", "data_time", "compute_time")
    ),
    *(f"val.compute_latency{at}" for at in ("", "_at95", "_at99", "_at100")),
}


def losses(workspace: Path) -> list[float]:
    return [record["data"]["train.loss"] for record in records(workspace, "iteration")]


def test_a_run_leaves_what_the_document_names(images: Path, tmp_path: Path) -> None:
    metrics = train(quick_recipe(tmp_path, use_ema=0.9, gather_checkpoints=2), images)
    assert metrics.keys() >= METRICS
    assert {name.replace("val.", "val_ema.") for name in METRICS if name.startswith("val.")} <= metrics.keys()
    assert {path.name for path in tmp_path.iterdir()} == {
        "checkpoint.pth.tar",
        "model_best.pth.tar",
        "checkpoint_0001.pth.tar",
        "checkpoint_0002.pth.tar",
        "report.json",
    }
    (parameters,) = records(tmp_path, "parameters")
    assert parameters["data"]["recipe"]["optimizer"]["lr"] == 0.01
    assert parameters["data"]["recipe"]["model"]["num_classes"] == 3
    assert parameters["data"]["recipe"]["compute"]["precision"] == "fp32"
    assert [record["epoch"] for record in records(tmp_path, "epoch")] == [0, 1, 2]
    assert records(tmp_path, "epoch")[-1]["data"].keys() >= METRICS
    assert len(records(tmp_path, "iteration")) == 3 * 2
    assert len(records(tmp_path, "summary")) == 1

    checkpoint = torch.load(tmp_path / "checkpoint.pth.tar", weights_only=True)
    reference = {"epoch", "best_prec1", "state_dict", "optimizer", "state_dict_ema"}
    assert reference | {"recipe", "loss_scaler", "progress", "metadata"} <= checkpoint.keys()
    assert checkpoint["epoch"] == 3
    precisions = (checkpoint[name]["compute"]["precision"] for name in ("recipe", "resolved_recipe"))
    assert tuple(precisions) == (None, "fp32")
    assert checkpoint["metadata"]["classes"] == list(CLASSES)


@pytest.mark.parametrize("changes", [{}, {"use_ema": 0.9, "optimizer": "sgd", "optimizer_batch_size": 16}])
def test_resumed_is_uninterrupted(images: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(quick_recipe(whole, **changes), images)
    train(quick_recipe(parts, run_epochs=2, **changes), images)
    train(quick_recipe(parts, resume=str(parts / "checkpoint.pth.tar"), **changes), images)
    assert losses(parts) == losses(whole)
    one, other = (torch.load(path / "checkpoint.pth.tar", weights_only=True) for path in (whole, parts))
    for entry in ("state_dict", "state_dict_ema"):
        for key, value in one.get(entry, {}).items():
            assert torch.equal(value, other[entry][key]), key
    assert one["progress"] == other["progress"]


def test_evaluation_gives_what_training_gave(images: Path, tmp_path: Path) -> None:
    trained = train(quick_recipe(tmp_path, use_ema=0.5), images)
    checkpoint = str(tmp_path / "checkpoint.pth.tar")
    evaluated = evaluate(quick_recipe(tmp_path, resume=checkpoint, evaluate=True), images)
    for name in ("val.top1", "val.loss", "val_ema.top1", "val_ema.loss"):
        assert evaluated[name] == pytest.approx(trained[name], rel=1e-6)
    assert evaluated["val.images"] == 15
    pure = evaluate(quick_recipe(tmp_path, pretrained_from_file=checkpoint, evaluate=True), images)
    assert pure["val.top1"] == trained["val.top1"]


def test_evaluation_reports_by_class(images: Path, tmp_path: Path) -> None:
    train(quick_recipe(tmp_path, epochs=1), images)
    per_class, confusion = tmp_path / "classes.csv", tmp_path / "confusion.csv"
    settings = quick_recipe(
        tmp_path,
        resume=str(tmp_path / "checkpoint.pth.tar"),
        per_class=str(per_class),
        confusion=str(confusion),
    )
    metrics = evaluate(settings, images)
    rows = [line.split(",") for line in per_class.read_text().splitlines()[1:]]
    assert [row[0] for row in rows] == list(CLASSES)
    assert [int(row[1]) for row in rows] == [5, 5, 5]
    assert sum(int(row[2]) for row in rows) == round(metrics["val.top1"] * 15 / 100)
    counts = np.array([line.split(",")[1:] for line in confusion.read_text().splitlines()[1:]], dtype=int)
    assert counts.sum() == 15
    assert np.trace(counts) == sum(int(row[2]) for row in rows)


def test_a_loss_that_stays_infinite_ends_the_run(images: Path, tmp_path: Path) -> None:
    # A skipped step changes nothing, so the weights survive for inspection.
    with pytest.raises(UserError, match="was not finite in 3 steps in a row"):
        train(quick_recipe(tmp_path, lr=1e30, warmup=0.0, epochs=5, max_bad_steps=3, optimizer="sgd"), images)
    assert records(tmp_path, "event")[0]["data"]["event"] == "non-finite loss"


def test_prof_runs_n_iterations_only(tmp_path: Path) -> None:
    metrics = train(quick_recipe(tmp_path, data_backend="synthetic", prof=2, num_classes=10), None)
    assert "val.top1" in metrics
    assert [record["step"] for record in records(tmp_path, "iteration")] == [2]
    assert not list(tmp_path.glob("*.tar"))


def test_training_only_and_no_checkpoints(images: Path, tmp_path: Path) -> None:
    metrics = train(quick_recipe(tmp_path, epochs=1, training_only=True, no_checkpoints=True), images)
    assert not [name for name in metrics if name.startswith("val")]
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_early_stopping(images: Path, tmp_path: Path) -> None:
    # A learning rate of nothing improves on the first epoch never.
    train(quick_recipe(tmp_path, epochs=9, lr=1e-30, early_stopping_patience=2, bn_momentum=1e-9), images)
    assert len(records(tmp_path, "epoch")) == 3


@pytest.mark.parametrize("precision", ["bf16", "fp16", "amp"])
def test_mixed_precision_trains(images: Path, tmp_path: Path, precision: str) -> None:
    changes = {
        "precision": precision,
        "epochs": 1,
        "static_loss_scale": 256.0 if precision == "fp16" else None,
    }
    metrics = train(quick_recipe(tmp_path, **changes), images)
    assert np.isfinite(metrics["train.loss"])


@pytest.mark.parametrize("schedule", ["linear", "step"])
def test_memory_format_and_schedules(images: Path, tmp_path: Path, schedule: str) -> None:
    metrics = train(quick_recipe(tmp_path, memory_format="nchw", lr_schedule=schedule, epochs=1), images)
    assert np.isfinite(metrics["train.loss"])


def test_a_frozen_backbone_stays(images: Path, tmp_path: Path) -> None:
    train(quick_recipe(tmp_path / "start", epochs=1), images)
    start = str(tmp_path / "start/checkpoint.pth.tar")
    train(quick_recipe(tmp_path, epochs=1, pretrained_from_file=start, freeze="backbone"), images)
    before = torch.load(start, weights_only=True)["state_dict"]
    after = torch.load(tmp_path / "checkpoint.pth.tar", weights_only=True)["state_dict"]
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"classifier.fc.weight", "classifier.fc.bias"}


def test_a_classifier_for_other_classes_is_left_out(
    images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(quick_recipe(tmp_path / "three", epochs=1), images)
    weights = str(tmp_path / "three/checkpoint.pth.tar")
    train(quick_recipe(tmp_path / "five", epochs=1, pretrained_from_file=weights, num_classes=5), images)
    assert "3 classes, the model 5" in caplog.text


@pytest.mark.slow
def test_a_compiled_run(images: Path, tmp_path: Path) -> None:
    metrics = train(quick_recipe(tmp_path, compile=True, epochs=1), images)
    assert np.isfinite(metrics["train.loss"])
