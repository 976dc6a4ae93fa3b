"""Temperature against LBFGS, calibration error against torchmetrics; what a run stores, and what is done with it."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import effnet
from effnet.data import Batch
from effnet.export.trained import ModelChoice, open_trained
from effnet.export.weights import export_weights
from effnet.inference.evaluate import evaluate
from effnet.runtime.errors import UserError
from effnet.runtime.processes import Processes, joined_processes
from effnet.training.bins import ConfidenceBins
from effnet.training.checkpoint import read_checkpoint
from effnet.training.confidence import AnswerSample, fit_confidence, fit_temperature
from effnet.training.run import train
from effnet.weights import WeightsMetadata, read_weights
from tests.runs import PREPROCESSING, quick_recipe, records, write_images
from tests.training.processes import in_processes

pytestmark = pytest.mark.usefixtures("small_networks")

ALONE = Processes.alone(torch.device("cpu"))


def answers(scale: float, right: float = 0.7, images: int = 1001) -> tuple[Tensor, Tensor]:
    """Logits of 8 classes whose largest one is right for about a share of the images."""
    random = torch.Generator().manual_seed(int(10 * scale))
    logits = scale * torch.randn(images, 8, generator=random)
    others = torch.randint(0, 8, (images,), generator=random)
    is_right = torch.rand(images, generator=random) < right
    return logits, torch.where(is_right, logits.argmax(1), others)


@pytest.mark.parametrize("scale", [0.2, 1.0, 30.0])
def test_the_temperature_is_what_lbfgs_finds(scale: float) -> None:
    logits, targets = answers(scale)
    factor = torch.ones((), dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS([factor], max_iter=200, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        search.zero_grad()
        value = F.cross_entropy(factor * logits.double(), targets, label_smoothing=1 / (len(targets) + 1))
        value.backward()
        return value

    search.step(loss)  # type: ignore[no-untyped-call]
    assert fit_temperature(logits, targets, ALONE) == pytest.approx(1 / factor.item(), rel=1e-4)


def test_answers_that_are_all_right_do_not_make_it_sure() -> None:
    """Cross entropy alone falls with the temperature for ever."""
    logits = 5 * torch.eye(10)
    assert 0.8 < fit_temperature(logits, torch.arange(10), ALONE) < 1.5
    assert fit_temperature(-logits, torch.arange(10), ALONE) == 100
    assert fit_temperature(0 * logits, torch.arange(10), ALONE) == 1


@pytest.mark.parametrize("scale", [0.2, 1.0, 30.0])
def test_the_calibration_error_is_that_of_torchmetrics(scale: float) -> None:
    metric = pytest.importorskip("torchmetrics.functional.classification").multiclass_calibration_error
    logits, targets = answers(scale)
    probabilities = logits.softmax(1)
    probabilities[0] = torch.eye(8)[0]
    bins = ConfidenceBins(ALONE.device)
    for part, right in zip(probabilities.split(100), targets.split(100), strict=True):
        bins.add(part, right)
    assert bins.expected_calibration_error == pytest.approx(
        float(metric(probabilities, targets, 8, 15)), abs=1e-6
    )


def test_images_that_are_not_finite_are_left_out() -> None:
    logits, targets = answers(1.0)
    whole, rest = ConfidenceBins(ALONE.device), ConfidenceBins(ALONE.device)
    rest.add(logits[1:].softmax(1), targets[1:])
    logits[0, 0] = torch.nan
    whole.add(logits.softmax(1), targets)
    assert whole.rows == rest.rows


def _ask(images: Tensor) -> Tensor:
    """Logits that depend on the pixels."""
    return images.float().flatten(1)[:, :8] / 64


def observed(
    sample: AnswerSample, logits: Tensor, targets: Tensor, indices: Tensor, batch: int
) -> AnswerSample:
    images = (indices % 256).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 8, 8)
    for rows in torch.arange(len(targets)).split(batch):
        sample(Batch(images[rows], targets[rows], indices[rows]), logits[rows])
    return sample


def _fitted_on_a_share(images: int) -> Any:
    logits, targets = answers(3.0, images=images)
    with joined_processes("cpu") as processes:
        own = torch.arange(processes.rank, images, processes.world_size)
        sample = observed(AnswerSample(images, 8), logits[own], targets[own], own, 16)
        return fit_confidence(sample, _ask, 0.95, processes)


def test_three_processes_agree_with_one() -> None:
    logits, targets = answers(3.0, images=500)
    one = fit_confidence(
        observed(AnswerSample(500, 8), logits, targets, torch.arange(500), 7), _ask, 0.95, ALONE
    )
    assert one is not None
    for each in in_processes(3, _fitted_on_a_share, 500):
        assert each.confidence == one.confidence
        assert each.metrics == pytest.approx(one.metrics, rel=1e-6)


def test_of_a_large_set_evenly_spaced_images_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("effnet.training.confidence.MOST_LOGITS", 8 * 101)
    logits, targets = answers(1.0)
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(0))
    sample = AnswerSample(len(targets), 8)
    kept, right, positions = observed(sample, logits[order], targets[order], order, 13).answers()
    expected = torch.arange(0, 1001, 10)
    assert sorted(positions.tolist()) == list(range(101))
    assert kept[positions.argsort()].equal(logits[expected])
    assert right[positions.argsort()].equal(targets[expected])


def test_few_images_fit_nothing() -> None:
    logits, targets = answers(1.0, images=19)
    sample = observed(AnswerSample(19, 8), logits, targets, torch.arange(19), 19)
    assert fit_confidence(sample, _ask, 0.95, ALONE) is None


LEARNS = {"use_ema": 0.5, "lr": 0.001, "bn_momentum": 0.3, "mixup": 0.0}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    write_images(root / "train", {"circle": 12, "square": 12, "star": 12}, coloured=True)
    write_images(root / "val", {"circle": 9, "square": 9, "star": 10}, coloured=True)
    return root


@pytest.fixture(scope="module")
def workspace(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train(quick_recipe(folder, **LEARNS), images)
    return folder


def test_a_run_stores_a_temperature_for_its_weights_and_for_their_average(
    workspace: Path, tmp_path: Path
) -> None:
    best = workspace / "model_best.pth.tar"
    content = read_checkpoint(best)
    epoch = records(workspace, "epoch")[content["epoch"] - 1]["data"]
    stored = content["metadata"]["confidence"]["temperature"], content["confidence_ema"]["temperature"]
    assert stored == (epoch["val.temperature"], epoch["val_ema.temperature"])
    assert stored[0] != stored[1]
    for ema, temperature in zip((False, True), stored, strict=True):
        file = tmp_path / f"{ema}.safetensors"
        export_weights(best, file, ema=ema)
        for path, averaged in ((file, False), (best, ema)):
            metadata = read_weights(path, ema=averaged).metadata
            assert metadata is not None
            assert metadata.confidence is not None
            assert metadata.confidence.temperature == temperature


def test_the_weights_do_not_depend_on_it(images: Path, workspace: Path, tmp_path: Path) -> None:
    train(quick_recipe(tmp_path, **LEARNS, calibrate_confidence=False), images)
    without, fitted = (read_checkpoint(path / "checkpoint.pth.tar") for path in (tmp_path, workspace))
    assert "confidence" not in without["metadata"]
    for name in ("state_dict", "state_dict_ema"):
        assert all(tensor.equal(fitted[name][key]) for key, tensor in without[name].items())


@pytest.mark.parametrize("suffix", [".pth.tar", pytest.param(".onnx", marks=pytest.mark.slow)])
def test_probabilities_are_of_logits_divided_by_it(
    images: Path, workspace: Path, tmp_path: Path, suffix: str
) -> None:
    best = workspace / "model_best.pth.tar"
    trained = open_trained(ModelChoice(weights=best))
    assert trained.metadata.confidence is not None
    file = best
    if suffix == ".onnx":
        pytest.importorskip("onnxruntime", reason="extra onnx")
        from effnet.export.onnx import export_onnx

        file = tmp_path / "model.onnx"
        export_onnx(trained.model, trained.metadata, file)
    classifier = effnet.load(file, ema=False)
    paths = sorted((images / "val").rglob("*.jpg"))[:3]
    pixels = [
        classifier.prepare(named) for path in paths for named in effnet.inference.images.named_images(path)
    ]
    batch = torch.stack([torch.from_numpy(each) for each in pixels])  # type: ignore[arg-type]
    with torch.no_grad():
        logits = trained.model(classifier.engine.prepare(batch.permute(0, 3, 1, 2)).float())
    expected = (logits / trained.metadata.confidence.temperature).softmax(1)
    torch.testing.assert_close(
        torch.from_numpy(classifier.probabilities(paths)), expected, atol=1e-4, rtol=1e-3
    )


def test_evaluation_reports_both_losses(images: Path, workspace: Path, tmp_path: Path) -> None:
    best = workspace / "model_best.pth.tar"
    metrics = evaluate(quick_recipe(tmp_path, resume=str(best), evaluate=True, use_ema=0.5), images)
    temperature = read_checkpoint(best)["metadata"]["confidence"]["temperature"]
    classifier = effnet.load(best, ema=False)
    paths = sorted((images / "val").rglob("*.jpg"))
    probabilities = torch.from_numpy(classifier.probabilities(paths)).double()
    targets = torch.tensor([classifier.classes.index(path.parent.name) for path in paths])
    assert metrics["val.temperature"] == temperature
    assert metrics["val.calibrated_loss"] == pytest.approx(
        F.nll_loss(probabilities.log(), targets).item(), rel=1e-4
    )
    raw = (temperature * probabilities.log()).log_softmax(1)
    assert metrics["val.loss"] == pytest.approx(F.nll_loss(raw, targets).item(), rel=1e-4)
    assert 0 <= metrics["val.calibrated_ece"] <= 1
    assert "val_ema.calibrated_loss" in metrics


def test_metadata_of_before_have_none_and_a_bad_one_is_refused() -> None:
    metadata = WeightsMetadata("efficientnet-b0", PREPROCESSING, classes=("a", "b"))
    assert "confidence" not in metadata.to_dict()
    assert WeightsMetadata.from_dict(metadata.to_dict()).confidence is None
    for bad in (
        3,
        {},
        {"temperature": 0},
        {"temperature": True},
        {"temperature": 1.0, "unknown": {"score": "x"}},
    ):
        with pytest.raises(UserError, match="confidence has a"):
            WeightsMetadata.from_dict({**metadata.to_dict(), "confidence": bad})


def test_another_classifier_starts_without(workspace: Path) -> None:
    model = effnet.create_model("efficientnet-lite0", num_classes=7, weights=workspace / "model_best.pth.tar")
    assert model.metadata is not None
    assert model.metadata.confidence is None
