"""Trackers hold the run's numbers, as their own readers find them; a resumed run goes on with the same ones."""

import csv
import io
import json
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import effnet
from effnet.data import Batch
from effnet.recipe import Recipe
from effnet.training.confusion import ConfusionMatrix
from effnet.training.run import train
from tests.runs import CLASSES, quick_recipe
from tests.training.processes import in_processes
from tests.training.resumed import without_rates

pytest.importorskip("tensorboard", reason="extra tensorboard")
pytest.importorskip("mlflow", reason="extra mlflow")
pytest.importorskip("wandb", reason="extra wandb")

Curves = dict[str, list[tuple[int, float]]]
"""points (step, value) by metric"""
STEPS = 4
"""batches in an epoch: 36 images, 8 in each"""
TRACKERS = ("tensorboard", "mlflow", "wandb")
AVERAGED = {"confusion matrix val": False, "confusion matrix val_ema": True}
"""of each matrix, whether it is that of the averaged weights"""


class Followed(NamedTuple):
    """A run with all trackers: two epochs, and the second one again from the first one's checkpoint."""

    workspace: Path
    first: str
    """log before it went on"""
    mlflow: str
    """address of the store"""

    @property
    def log(self) -> str:
        return (self.workspace / "report.json").read_text()

    def identity(self, tracker: str) -> str:
        return str(json.loads((self.workspace / f"trackers/{tracker}.json").read_text())["id"])


@pytest.fixture(scope="module")
def followed(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Followed]:
    root = tmp_path_factory.mktemp("followed")
    store = f"sqlite:///{root}/mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("MLFLOW_TRACKING_URI", store)
        patch.setenv("WANDB_MODE", "offline")
        for name in ("MLFLOW_EXPERIMENT_NAME", "WANDB_PROJECT", "WANDB_DIR", "WANDB_NAME"):
            patch.delenv(name, raising=False)
        recipe = quick_recipe(
            root / "run", epochs=2, gather_checkpoints=-1, track=TRACKERS, use_ema=0.9, batch_size=8
        )
        train(recipe, images)
        first = (root / "run/report.json").read_text()
        train(recipe.replace({"resume": str(root / "run/checkpoint_0000.pth.tar")}), images)
        yield Followed(root / "run", first, store)


def curves_of(log: str) -> Curves:
    """The points that trackers must have of a log."""
    curves: Curves = {}
    for line in map(json.loads, log.splitlines()):
        kind, data = line["type"], line["data"]
        if kind == "iteration":
            step, names = line["epoch"] * STEPS + line["step"], {n: f"step/{n.split('.')[1]}" for n in data}
        elif kind == "epoch":
            step, names = (line["epoch"] + 1) * STEPS, {n: n.replace(".", "/", 1) for n in data}
        elif kind == "summary":
            step, names = line["epoch"] * STEPS, {"best_top1": "best/top1"}
        else:
            continue
        for name, shown in names.items():
            if not isinstance(data[name], str):  # a number that is not finite
                curves.setdefault(shown, []).append((step, data[name]))
    return curves


def assert_the_log_s(found: Curves, followed: Followed) -> None:
    """Assert that a tracker, which takes nothing back, has each point of the log once."""
    wanted, first = curves_of(followed.log), curves_of(followed.first)
    assert {name: [step for step, _ in points] for name, points in found.items()} == {
        name: [step for step, _ in points] for name, points in wanted.items()
    }
    # Of the epoch that was trained twice, times and rates are the first one's.
    assert found == first
    assert without_rates(found) == without_rates(wanted)
    assert len(without_rates(wanted)) > 20


def matrix_of(followed: Followed, images: Path, averaged: bool) -> ConfusionMatrix:
    """The matrix of the answers of a run's last checkpoint, image by image."""
    classifier = effnet.load(followed.workspace / "checkpoint.pth.tar", ema=averaged)
    paths = sorted(images.glob("val/*/*.jpg"))
    targets = torch.tensor([CLASSES.index(path.parent.name) for path in paths])
    answers = torch.tensor([answer.best.index for answer in classifier(paths)])
    matrix = ConfusionMatrix(CLASSES, torch.device("cpu"))
    matrix(Batch(torch.zeros(len(paths), 3, 1, 1), targets), torch.eye(len(CLASSES))[answers])
    assert matrix.counts.sum() == len(paths) == 15
    return matrix


def pixels_of(encoded: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(encoded)) as image:
        return np.asarray(image.convert("RGB"))


def events_of(followed: Followed) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(
        str(followed.workspace / "tensorboard"), {"scalars": 0, "images": 0, "tensors": 0}
    )
    events.Reload()
    return events


def curves_in_tensorboard(events: Any) -> Curves:
    return {
        name: [(event.step, event.value) for event in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


def test_tensorboard_has_the_log_s_numbers(followed: Followed, images: Path) -> None:
    events = events_of(followed)
    found = curves_in_tensorboard(events)
    wanted = curves_of(followed.log)
    assert wanted["step/loss"] != curves_of(followed.first)["step/total_ips"]
    assert found == {
        name: [(step, float(np.float32(value))) for step, value in points] for name, points in wanted.items()
    }
    (picture,) = events.Images("training images")
    # sixteen images of 32 pixels, or a batch of eight
    assert (picture.width, picture.height) == (8 * 32, 32)
    text = events.Tensors("recipe/text_summary")[0].tensor_proto.string_val[0].decode()
    for name, averaged in AVERAGED.items():
        (picture,) = events.Images(name)
        assert picture.step == 2 * STEPS
        drawn = matrix_of(followed, images, averaged).drawn()
        np.testing.assert_array_equal(pixels_of(picture.encoded_image_string), drawn)
        assert drawn.std() > 10
    assert yaml.safe_load(text.removeprefix("```yaml\n").removesuffix("```"))["optimizer"]["lr"] == 0.01


def run_in_mlflow(followed: Followed) -> tuple[Any, Any, Curves]:
    """A client, the only run that it finds, and its curves."""
    from mlflow import MlflowClient

    client = MlflowClient(followed.mlflow)
    (experiment,) = (each for each in client.search_experiments() if each.name == "effnet")
    (run,) = client.search_runs([experiment.experiment_id])
    found = {
        name: [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
    }
    return client, run, found


def test_mlflow_has_the_log_s_numbers(followed: Followed, images: Path, tmp_path: Path) -> None:
    client, run, found = run_in_mlflow(followed)
    assert run.info.run_id == followed.identity("mlflow")
    assert (run.info.run_name, run.info.status) == ("run", "FINISHED")
    assert_the_log_s(found, followed)
    assert run.data.params["optimizer.lr"] == "0.01"
    assert {"machine.torch", "machine.python", "machine.train_images"} <= set(run.data.params)
    for path in ("recipe.yaml", "training images.png", "model/model_best.pth.tar"):
        file = Path(client.download_artifacts(run.info.run_id, path, str(tmp_path)))
        assert file.stat().st_size > 100
    best = followed.workspace / "model_best.pth.tar"
    assert file.read_bytes() == best.read_bytes()
    for name, averaged in AVERAGED.items():
        table, picture = (
            Path(client.download_artifacts(run.info.run_id, f"{name}.{suffix}", str(tmp_path)))
            for suffix in ("csv", "png")
        )
        matrix = matrix_of(followed, images, averaged)
        head, *rows = csv.reader(table.read_text().splitlines())
        assert head[1:] == [row[0] for row in rows] == list(CLASSES)
        assert [[int(cell) for cell in row[1:]] for row in rows] == matrix.counts.tolist()
        np.testing.assert_array_equal(pixels_of(picture.read_bytes()), matrix.drawn())


def wandb_records(followed: Followed) -> Iterator[Any]:
    """Yield the messages in a run's offline files, whose frame is that of LevelDB's logs."""
    from wandb.proto.wandb_internal_pb2 import Record

    for path in sorted(followed.workspace.glob("wandb/offline-run-*/*.wandb")):
        content = path.read_bytes()
        assert content.startswith(b":W&B")
        position, data = 7, b""
        while position + 7 <= len(content):
            if position % 32768 > 32768 - 7:
                position += -position % 32768
                continue
            _, length, part = struct.unpack_from("<IHB", content, position)
            data += content[position + 7 : position + 7 + length]
            position += 7 + length
            if part in (1, 4):  # a whole message, or the last part of one
                record = Record()
                record.ParseFromString(data)
                data = b""
                yield record


def items(entries: Any) -> Mapping[str, Any]:
    return {"/".join(each.nested_key) or each.key: json.loads(each.value_json) for each in entries}


def curves_in_wandb(followed: Followed) -> Curves:
    found: Curves = {}
    rows: list[int] = []
    for record in wandb_records(followed):
        if record.WhichOneof("record_type") == "history":
            row = items(record.history.item)
            rows.append(row["_step"])
            for name, value in row.items():
                if "/" in name and not name.startswith(("training images", "confusion matrix")):
                    found.setdefault(name, []).append((row["batch"], value))
    assert rows == sorted(set(rows))
    return found


def test_wandb_has_the_log_s_numbers(followed: Followed, images: Path) -> None:
    found = curves_in_wandb(followed)
    artifacts, runs = [], []
    for record in wandb_records(followed):
        kind = record.WhichOneof("record_type")
        if kind == "artifact":
            artifacts.append(record.artifact)
        elif kind == "run":
            runs.append(record.run)
    assert_the_log_s(found, followed)
    assert {run.run_id for run in runs} == {followed.identity("wandb")}
    config = items(runs[0].config.update)
    assert config["optimizer"]["lr"] == 0.01
    assert "torch" in config["machine"]
    assert [entry.path for entry in artifacts[-1].manifest.contents] == ["model_best.pth.tar"]
    (picture,) = followed.workspace.glob("wandb/offline-run-*/files/media/images/training images_*.png")
    assert picture.stat().st_size > 1000
    for name, averaged in AVERAGED.items():
        (table,) = followed.workspace.glob(f"wandb/offline-run-*/files/media/table/{name}_table_*.table.json")
        content = json.loads(table.read_text())
        assert content["columns"] == ["Actual", "Predicted", "nPredictions"]
        assert content["data"] == list(map(list, matrix_of(followed, images, averaged).cells()))


def follow(recipe: Recipe, images: Path, environment: Mapping[str, str]) -> None:
    os.environ.update(environment)
    train(recipe, images)


@pytest.mark.slow
def test_of_two_processes_the_first_one_writes(images: Path, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/mlflow.db"
    environment = {"MLFLOW_TRACKING_URI": store, "WANDB_MODE": "offline"}
    recipe = quick_recipe(tmp_path / "run", epochs=1, track=TRACKERS, batch_size=4)
    in_processes(2, follow, recipe, images, environment)
    log = (tmp_path / "run/report.json").read_text()
    followed = Followed(tmp_path / "run", log, store)
    assert json.loads(log.splitlines()[0])["data"]["world_size"] == 2
    wanted = curves_of(log)
    assert len(wanted["step/loss"]) == STEPS // 2
    _, run, in_mlflow = run_in_mlflow(followed)
    assert run.data.params["machine.world_size"] == "2"
    assert in_mlflow == curves_in_wandb(followed) == wanted
    events = events_of(followed)
    assert curves_in_tensorboard(events) == {
        name: [(step, float(np.float32(value))) for step, value in points] for name, points in wanted.items()
    }
    for pattern in ("tensorboard/*", "wandb/offline-run-*"):
        assert len(list(followed.workspace.glob(pattern))) == 1
    # All images are counted, each process's share of them once.
    (table,) = followed.workspace.glob(
        "wandb/offline-run-*/files/media/table/confusion matrix val_table_*.table.json"
    )
    cells = json.loads(table.read_text())["data"]
    assert sum(images for _, _, images in cells) == 15
    assert cells == list(map(list, matrix_of(followed, images, averaged=False).cells()))
