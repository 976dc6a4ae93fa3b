"""A run that was interrupted at any step, and went on, has left what an uninterrupted one leaves, bit by bit."""

import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from effnet.data import Batch, Mix
from effnet.data.backends import synthetic
from effnet.data.pack import PackSettings, pack
from effnet.quantization.run import quantize
from effnet.recipe import Recipe
from effnet.runtime.errors import UserError
from effnet.training.checkpoint import read_checkpoint
from effnet.training.generators import StepGenerators
from effnet.training.run import train
from effnet.training.skipped import Trained
from effnet.training.trainer import Trainer
from tests.runs import quick_recipe, records
from tests.training.processes import in_processes
from tests.training.resumed import Run, assert_equal, assert_same, interrupted

pytestmark = pytest.mark.usefixtures("small_networks")

STEPS = 9  # of an epoch with batches of four


def recipe(workspace: Path, **changes: Any) -> Recipe:
    """Everything random is on: augmentation, mixup, dropout, stochastic depth."""
    values = {
        "batch_size": 4,
        "epochs": 2,
        "print_freq": 4,
        "use_ema": 0.9,
        "survival_prob": 0.7,
        "lr": 0.001,
    }
    return quick_recipe(workspace, **values).replace(changes)


def go_on(settings: Recipe, **changes: Any) -> Recipe:
    return settings.replace({"resume": "auto", **changes})


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Workspace of an uninterrupted run."""
    workspace = tmp_path_factory.mktemp("whole")
    train(recipe(workspace), images)
    return workspace


def test_within_an_epoch_and_with_other_workers(images: Path, tmp_path: Path, whole: Path) -> None:
    message = interrupted(recipe(tmp_path), images, 6)
    assert message == (
        "stopped by SIGTERM: after epoch 1 step 6; "
        f"checkpoint: {tmp_path / 'checkpoint.pth.tar'}; go on with --resume auto"
    )
    assert read_checkpoint(tmp_path / "checkpoint.pth.tar")["progress"]["step"] == 6
    train(go_on(recipe(tmp_path), workers=1), images)
    assert_same(tmp_path, whole)
    (event,) = records(tmp_path, "event")
    assert event["data"]["event"] == "resumed"
    assert (event["epoch"], event["step"]) == (0, 6)


# One look after each step, and one after each of four batches of a validation of weights, then of their average.
@pytest.mark.parametrize("look", [STEPS, STEPS + 6, STEPS + 8])
def test_between_two_epochs(images: Path, tmp_path: Path, whole: Path, look: int) -> None:
    assert "after epoch" in interrupted(recipe(tmp_path), images, look)
    checkpoint = read_checkpoint(tmp_path / "checkpoint.pth.tar")
    assert checkpoint["epoch"] == (look > STEPS + 8)
    train(go_on(recipe(tmp_path)), images)
    assert_same(tmp_path, whole)


def exact(settings: Recipe, images: Path | None, workspace: Path, look: int, run: Run = train) -> None:
    """Interrupt a run at a look, let it go on, and compare it with an uninterrupted one."""
    whole, parts = (settings.replace({"workspace": str(workspace / name)}) for name in ("whole", "parts"))
    run(whole, images)
    assert interrupted(parts, images, look, run=run)
    run(go_on(parts), images)
    assert_same(workspace / "parts", workspace / "whole")


def few_images(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(synthetic, "NUM_IMAGES", {"train": count, "val": 10})


@pytest.mark.slow
def test_accumulation_and_a_skipped_step_that_no_report_has_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few_images(monkeypatch, 20)
    backward = Trainer._backward

    def overflows(trainer: Trainer, batch: Batch, mix: Mix, number: int) -> Trained:
        trained = backward(trainer, batch, mix, number)
        if number == 2:
            for parameter in trainer.state.model.classifier.parameters():
                parameter.grad = torch.full_like(parameter, torch.inf)
        return trained

    monkeypatch.setattr(Trainer, "_backward", overflows)
    settings = recipe(tmp_path, data_backend="synthetic", num_classes=3, epochs=1, training_only=True)
    scaled = settings.replace({"precision": "fp16", "optimizer_batch_size": 8, "print_freq": 20})
    exact(scaled, None, tmp_path, 2)
    (epoch,) = records(tmp_path / "parts", "epoch")
    assert epoch["data"]["train.skipped_steps"] == 1
    assert epoch["data"]["train.grad_scale"] == 64


def test_packed(images: Path, tmp_path: Path) -> None:
    pack(images, tmp_path / "packed", PackSettings(40), workers=0)
    exact(recipe(tmp_path, data_backend="packed", epochs=1), tmp_path / "packed", tmp_path, 5)


def test_synthetic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few_images(monkeypatch, 36)
    settings = recipe(tmp_path, data_backend="synthetic", num_classes=3, epochs=1)
    exact(settings, None, tmp_path, 5)


@pytest.mark.slow
def test_what_is_mixed_and_erased(images: Path, tmp_path: Path) -> None:
    drawn = {"cutmix": 1.0, "random_erasing": 0.5, "augmentation_strength": 1.5, "epochs": 1}
    exact(recipe(tmp_path, **drawn, training_only=True), images, tmp_path, 5)


def test_adamw_with_clipping_and_layer_decay(images: Path, tmp_path: Path) -> None:
    tuned = {"optimizer": "adamw", "clip_grad": 1.0, "layer_decay": 0.8, "adamw_eps": 1e-3}
    exact(recipe(tmp_path, epochs=1, **tuned), images, tmp_path, 5)


# Epoch 1 at 32 px, epoch 2 at 64 px, in which the run is interrupted.
@pytest.mark.slow
def test_images_that_grow(images: Path, tmp_path: Path) -> None:
    sizes = {"image_size": 64, "progressive_sizes": 32, "batch_size": 12, "workers": 1}
    exact(recipe(tmp_path, **sizes, recompute=True, training_only=True), images, tmp_path, 5)
    pixels = [line["data"] for line in records(tmp_path / "parts", "event") if "pixels" in line["data"]]
    assert pixels == [{"event": "image size", "pixels": side} for side in (32, 64)]


def test_dali(images: Path, tmp_path: Path) -> None:
    pytest.importorskip("nvidia.dali", reason="extra dali")
    exact(recipe(tmp_path, data_backend="dali-cpu", epochs=1), images, tmp_path, 5)


def test_quantization_aware_training(images: Path, tmp_path: Path) -> None:
    settings = recipe(tmp_path, arch="efficientnet-quant-b0", from_scratch=True, calib_batches=1, epochs=1)
    exact(settings, images, tmp_path, 5, run=quantize)


@pytest.mark.slow
@pytest.mark.soak
def test_compiled(images: Path, tmp_path: Path) -> None:
    shared = {"batch_size": 8, "survival_prob": None, "use_ema": None, "compile": True}
    exact(recipe(tmp_path, epochs=1, training_only=True, **shared), images, tmp_path, 2)


def in_several(count: int, settings: Recipe, images: Path, workspace: Path, look: int) -> None:
    """As `exact`, in several processes, of which the last one receives the signal."""
    whole, parts = (settings.replace({"workspace": str(workspace / name)}) for name in ("whole", "parts"))
    in_processes(count, train, whole, images)
    messages = in_processes(count, partial(interrupted, rank=count - 1), parts, images, look)
    assert len(set(messages)) == 1
    assert "stopped by SIGTERM: after epoch" in messages[0]
    in_processes(count, train, go_on(parts), images)
    assert_same(workspace / "parts", workspace / "whole")


# Batches of seven are three for the validation images of the first process and two for the others': 8 and 7.
@pytest.mark.slow
@pytest.mark.parametrize(("batch_size", "look"), [(4, 2), (7, 3)])
def test_two_processes(images: Path, tmp_path: Path, batch_size: int, look: int) -> None:
    in_several(2, recipe(tmp_path, batch_size=batch_size, epochs=1), images, tmp_path, look)


@pytest.mark.slow
def test_three_processes_whose_statistics_stay_apart(images: Path, tmp_path: Path) -> None:
    settings = recipe(tmp_path, batch_size=3, training_only=True, bucket_size=1.0, epochs=1)
    in_several(3, settings, images, tmp_path, 1)


class KilledError(Exception):
    pass


def steps_in(workspace: Path) -> int:
    return int(read_checkpoint(workspace / "checkpoint.pth.tar")["progress"]["step"])


def test_checkpoints_by_steps_survive_what_ends_the_process(
    images: Path, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, seed = recipe(tmp_path, checkpoint_every="3"), StepGenerators.seed

    def killed(generators: StepGenerators, epoch: int, number: int) -> None:
        if (epoch, number) == (1, 8):
            raise KilledError
        seed(generators, epoch, number)

    with monkeypatch.context() as patch:
        patch.setattr(StepGenerators, "seed", killed)
        with pytest.raises(KilledError):
            train(settings, images)
    # Here the process lives on, so the thread that writes is not joined as at a process's end.
    deadline = time.monotonic() + 30
    while steps_in(tmp_path) < STEPS + 6 and time.monotonic() < deadline:
        time.sleep(0.05)
    # Step 15, and the report after 13; the one after 17 is trained, and reported, again.
    assert steps_in(tmp_path) == STEPS + 6
    with (tmp_path / "report.json").open("a") as log:
        log.write('{"type": "iteration", "ti')
    train(go_on(settings), images)
    assert_same(tmp_path, whole)


def test_within_an_epoch_only_the_same_division_goes_on(images: Path, tmp_path: Path) -> None:
    interrupted(recipe(tmp_path), images, 5)
    with pytest.raises(
        UserError, match=r"of 1 processes, 4 images in a batch, .*; this run has 1 processes, 6 ima"
    ):
        train(go_on(recipe(tmp_path), batch_size=6), images)


def test_a_checkpoint_of_before_still_resumes(images: Path, tmp_path: Path, whole: Path) -> None:
    train(recipe(tmp_path, run_epochs=1), images)
    path = tmp_path / "checkpoint.pth.tar"
    content = torch.load(path, weights_only=True)
    for entry in ("layout", "in_epoch", "metrics", "processes", "log", "digest", "digest_algorithm"):
        del content[entry]
    del content["progress"]["bad_images"]
    torch.save({**content, "random_states": {"cpu": torch.get_rng_state()}}, path)
    train(go_on(recipe(tmp_path)), images)
    one, other = (read_checkpoint(folder / path.name) for folder in (whole, tmp_path))
    for entry in ("state_dict", "state_dict_ema", "optimizer", "progress"):
        assert_equal(dict(one[entry]), dict(other[entry]))
    assert len(records(tmp_path, "parameters")) == 2


def test_with_a_sampler_and_class_weights(images: Path, tmp_path: Path) -> None:
    balance = {"sampler": "balanced", "class_weights": "auto", "loss": "focal", "task": "multi"}
    exact(recipe(tmp_path, **balance), images, tmp_path, 6)
