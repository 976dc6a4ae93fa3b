"""The rule for unknown images: scores and threshold against scikit-learn and by hand, and what classify says."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

import effnet
from effnet.cli import main
from effnet.runtime.errors import UserError
from effnet.runtime.processes import Processes
from effnet.training.run import train
from effnet.training.unknown import ImageSample, auroc, choose_rule, unknown_images
from effnet.weights import WeightsMetadata, create_model, save_weights
from tests.runs import PREPROCESSING, quick_recipe, write_images

ALONE = Processes.alone(torch.device("cpu"))
RANDOM = torch.Generator().manual_seed(0)


def test_the_area_under_the_curve_is_that_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="extra sample")
    known, unknown = (torch.randint(0, 9, (size,), generator=RANDOM).float() for size in (300, 70))
    labels = [1] * 300 + [0] * 70
    expected = metrics.roc_auc_score(labels, torch.cat([known, unknown]).numpy())
    assert auroc(known, unknown) == pytest.approx(expected, abs=1e-12)


def test_unknown_images_are_made_of_the_known_ones() -> None:
    images = torch.randint(0, 256, (6, 3, 34, 34), dtype=torch.uint8, generator=RANDOM)
    made = unknown_images(images)
    assert made["blend"][1].equal(((images[1].int() + images[4].int()) // 2).to(torch.uint8))
    for shuffled, image in zip(made["shuffled"], images, strict=True):
        assert not shuffled.equal(image)
        assert shuffled[:, 32:].equal(image[:, 32:])
        assert shuffled.flatten().sort().values.equal(image.flatten().sort().values)
    assert all(each.dtype == torch.uint8 and each.shape == images.shape for each in made.values())
    assert made["noise"].equal(unknown_images(images)["noise"])


def known_images(count: int) -> ImageSample:
    sample = ImageSample(count)
    images = torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8, generator=RANDOM)
    for rows in torch.arange(count).split(7):
        sample.add(rows, images[rows])
    return sample


def small(images: Tensor) -> Tensor:
    """Logits as sure as those of known images, and smaller."""
    return torch.tensor([[4.0, 0.0]]).expand(len(images), -1)


def unsure(images: Tensor) -> Tensor:
    """Logits as large as those of known images, and even."""
    return torch.tensor([[12.0, 12.0]]).expand(len(images), -1)


@pytest.mark.parametrize(("ask", "score"), [(small, "energy"), (unsure, "max-probability")])
@pytest.mark.parametrize("keep", [0.5, 0.95])
def test_the_better_score_keeps_the_share_of_known_images(ask: object, score: str, keep: float) -> None:
    logits = torch.stack([10 + torch.rand(401, generator=RANDOM), 6 + torch.rand(401, generator=RANDOM)], 1)
    rule = choose_rule(logits, 2.0, known_images(401), ask, keep, ALONE)  # type: ignore[arg-type]
    assert rule is not None
    assert rule.score == score
    scores = logits.exp().sum(1).log() if score == "energy" else (logits / 2).softmax(1).amax(1)
    kept = (scores >= rule.threshold).double().mean()
    assert keep <= kept <= keep + 1.5 / 401


def test_logits_that_are_not_finite_choose_nothing() -> None:
    logits = torch.rand(100, 2)
    nothing = choose_rule(
        logits, 1.0, known_images(100), lambda images: small(images) * torch.nan, 0.9, ALONE
    )
    assert nothing is None


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    write_images(root / "train", {"circle": 16, "square": 16}, coloured=True)
    write_images(root / "val", {"circle": 20, "square": 20}, coloured=True)
    return root


@pytest.fixture(scope="module")
def best(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train(quick_recipe(folder, epochs=1, unknown_keep=0.75), images)
    return folder / "model_best.pth.tar"


def test_classify_says_unknown(images: Path, best: Path, capsys: pytest.CaptureFixture[str]) -> None:
    classifier = effnet.load(best, unknown=True)
    answers = classifier(images / "val")
    unknown = [answer.is_unknown for answer in answers]
    assert sum(unknown) == 10  # a quarter of 40
    common = ["classify", "--pretrained-from-file", str(best), "--device", "cpu", str(images / "val")]
    capsys.readouterr()
    assert main([*common, "--unknown", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["images"]
    assert [image["unknown"] for image in shown] == unknown
    assert all(len(image["predictions"]) == 2 for image in shown)
    assert main([*common, "--unknown"]) == 0
    assert capsys.readouterr().out.count("unknown") == 10
    assert main([*common, "--json"]) == 0
    assert "unknown" not in capsys.readouterr().out
    assert not any(answer.is_unknown for answer in effnet.load(best)(images / "val"))


def test_weights_without_a_rule_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    metadata = WeightsMetadata("efficientnet-lite0", PREPROCESSING, padding="same", classes=("a", "b"))
    save_weights(file, create_model("efficientnet-lite0", num_classes=2).state_dict(), metadata)
    with pytest.raises(UserError, match="--unknown: the weights of efficientnet-lite0 say nothing"):
        effnet.load(file, unknown=True)
