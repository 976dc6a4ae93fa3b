"""Cross-validation: a run for each fold, resumed where it stopped."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import effnet
from effnet.cli import main
from effnet.training.checkpoint import read_checkpoint
from tests.runs import CLASSES
from tests.training.processes import in_processes

SETTINGS: dict[str, Any] = {
    "arch": "efficientnet-lite0",
    "image_size": 32,
    "batch_size": 8,
    "epochs": 1,
    "workers": 0,
    "lr": 0.01,
    "device": "cpu",
    "seed": 2,
}
FLAGS = [word for name, value in SETTINGS.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def weights(workspace: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = read_checkpoint(workspace / "checkpoint.pth.tar")["state_dict"]
    return tensors


def validated(workspace: Path) -> list[str]:
    with (workspace / "split.csv").open(newline="") as file:
        return [row["path"] for row in csv.DictReader(file) if row["split"] == "val"]


@pytest.fixture(scope="module")
def run(images: Path, tmp_path_factory: pytest.TempPathFactory) -> effnet.CrossValidation:
    workspace = tmp_path_factory.mktemp("folds")
    run = effnet.fit(images / "train", folds=3, workspace=str(workspace), quiet=True, **SETTINGS)
    assert isinstance(run, effnet.CrossValidation)
    return run


def test_the_summary_has_the_figures_of_all_folds(run: effnet.CrossValidation) -> None:
    assert len(run.runs) == 3
    for name in ("val.loss", "val.top1", "best_top1"):
        values = [one.metrics[name] for one in run.runs]
        assert run.metrics[name] == pytest.approx(np.mean(values))
        assert run.deviations[name] == pytest.approx(np.std(values, ddof=1))
    assert not any("ips" in name or "latency" in name for name in run.metrics)
    assert run.workspace.name in {f"fold-{n}" for n in range(3)}
    assert set(run.classifier.classes) == set(CLASSES)
    assert "3 folds" in repr(run)


def test_each_image_is_validated_once_in_scikit_learns_folds(
    run: effnet.CrossValidation, images: Path
) -> None:
    selection = pytest.importorskip("sklearn.model_selection", reason="extra sample")
    names = [f"{path.parent.name}/{path.name}" for path in sorted((images / "train").rglob("*.jpg"))]
    targets = np.array([CLASSES.index(name.split("/")[0]) for name in names])
    folds = selection.StratifiedKFold(3, shuffle=True, random_state=SETTINGS["seed"]).split(targets, targets)
    for one, (_, val) in zip(run.runs, folds, strict=True):
        assert validated(one.workspace) == [names[index] for index in val]


def test_a_fold_is_the_run_that_its_flags_give(
    run: effnet.CrossValidation, images: Path, tmp_path: Path
) -> None:
    flags = [str(images / "train"), *FLAGS, "--folds", "3", "--fold", "1", "--workspace", str(tmp_path)]
    assert main(["train", *flags]) == 0
    ours, theirs = weights(tmp_path), weights(run.runs[1].workspace)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_an_interrupted_cross_validation_keeps_finished_folds(
    run: effnet.CrossValidation, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = run.runs[0].workspace.parent
    shutil.copytree(before, tmp_path / "runs")
    summary = json.loads((before / "folds.json").read_text())
    (tmp_path / "runs" / "folds.json").write_text(json.dumps({**summary, "runs": summary["runs"][:2]}))
    shutil.rmtree(tmp_path / "runs" / "fold-2")
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("fold-*/*")}
    flags = [*FLAGS, "--folds", "3", "--workspace", str(tmp_path / "runs"), "--resume", "auto"]
    assert main(["train", str(images / "train"), *flags]) == 0
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    assert json.loads((tmp_path / "runs" / "folds.json").read_text()) == summary
    assert "deviation" in capsys.readouterr().out
    flags[flags.index("3")] = "4"
    assert main(["train", str(images / "train"), *flags]) == 2
    assert "is of --folds 3, not 4" in capsys.readouterr().err


def test_what_is_refused(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = str(images / "train")
    for arguments, message in (
        ([str(images), "--folds", "3"], "is divided already"),
        ([train, "--folds", "99"], "--folds 99 is more than the 36 images"),
        ([train, "--folds", "3", "--fold", "3"], "counted from 0"),
        ([train, "--fold", "1"], "give --folds"),
        ([train, "--folds", "3", "--val-split", "0.1"], "no effect with --folds"),
        ([train, "--folds", "3", "--training-only"], "contradict"),
        (["--folds", "3", "--data-backend", "synthetic"], "needs a data source"),
    ):
        assert main(["train", *arguments, *FLAGS, "--workspace", str(tmp_path)]) == 2
        assert message in capsys.readouterr().err


def test_a_tables_own_folds(images: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label", "fold"))
        for number, path in enumerate(sorted((images / "train").rglob("*.jpg"))):
            writer.writerow((path, path.parent.name, f"part {1 + number % 2}"))
    run = effnet.fit(table, folds=2, workspace=str(tmp_path / "runs"), quiet=True, **SETTINGS)
    assert isinstance(run, effnet.CrossValidation)
    assert [one.metrics["val.images"] for one in run.runs] == [18, 18]
    with pytest.raises(effnet.UserError, match="has 2 folds, part 1, part 2"):
        effnet.fit(table, folds=3, workspace=str(tmp_path / "other"), quiet=True, **SETTINGS)


def _cross_validate(folder: Path, workspace: Path) -> dict[str, float]:
    settings = {**SETTINGS, "batch_size": 4, "gpu_affinity": "none"}
    run = effnet.fit(folder, folds=2, workspace=str(workspace), quiet=True, **settings)
    return run.metrics


@pytest.mark.slow
def test_two_processes_share_each_fold(images: Path, tmp_path: Path) -> None:
    one, other = in_processes(2, _cross_validate, images / "train", tmp_path)
    assert one == other
    assert one["val.images"] == 18
