"""Test-time augmentation: every command answers what plain PyTorch computes over torchvision's crops."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import effnet
from effnet.cli import main
from effnet.inference.views import mean_logits
from effnet.recipe.contradictions import FLAG, check_together
from effnet.runtime.errors import UserError
from effnet.weights import WeightsMetadata, create_model, load_model, save_weights
from effnet.weights.confidence import Confidence, Unknown
from tests.runs import CLASSES, PREPROCESSING, quick_recipe

transforms = pytest.importorskip(
    "torchvision.transforms.functional", reason="torchvision is the plain version"
)

TEMPERATURE, ENERGY = 2.0, 3.0
SEVERAL = ["flip", "five", "ten"]


@torch.no_grad()
def spread(model: torch.nn.Module) -> None:
    """Give the classifier answers that differ between the views."""
    classifier = model.eval().get_classifier()
    torch.nn.init.normal_(classifier.weight)
    logits = model((torch.rand(32, 3, 32, 32) - 0.5) / 0.2)
    classifier.weight *= 3 / logits.std(0)[:, None]
    classifier.bias -= 3 * (logits / logits.std(0)).mean(0)


def weights_file(path: Path, **changes: object) -> Path:
    torch.manual_seed(0)
    model = create_model("efficientnet-lite0", num_classes=3)
    spread(model)
    preprocessing = {**PREPROCESSING, **{name: value for name, value in changes.items() if name == "resize"}}
    several = {"thresholds": (0.3, 0.5, 0.7)} if "several" in changes else {}
    metadata = WeightsMetadata(
        "efficientnet-lite0",
        preprocessing,
        padding="same",
        classes=CLASSES,
        confidence=None if several else Confidence(TEMPERATURE, Unknown("energy", ENERGY)),
        **several,
    )
    save_weights(path, model.state_dict(), metadata)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return weights_file(tmp_path_factory.mktemp("weights") / "views.safetensors")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of exactly the size that validation resizes to, so that no resize blurs the comparison."""
    root, random = tmp_path_factory.mktemp("views"), np.random.default_rng(0)
    for name in CLASSES:
        (root / "val" / name).mkdir(parents=True)
        for index in range(3):
            pixels = random.integers(0, 256, (36, 36, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "val" / name / f"{index}.png")
    return root


def paths_in(images: Path) -> list[Path]:
    return sorted(images.rglob("*.png"))


def views_of(image: Tensor, tta: str) -> list[Tensor]:
    if tta == "five":
        return list(transforms.five_crop(image, 32))
    if tta == "ten":
        return list(transforms.ten_crop(image, 32))
    centre = transforms.center_crop(image, 32)
    return [centre, transforms.hflip(centre)] if tta == "flip" else [centre]


@torch.no_grad()
def plain_logits(weights: Path, images: Path, tta: str) -> Tensor:
    """Logits of each view, (images, views, classes)."""
    model = load_model(weights).eval()
    mean, std = (torch.tensor(PREPROCESSING[name]).view(3, 1, 1) for name in ("mean", "std"))
    answers = []
    for path in paths_in(images):
        pixels = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)
        answers.append(model(torch.stack(views_of((pixels / 255 - mean) / std, tta))))
    return torch.stack(answers)


@pytest.mark.parametrize("tta", SEVERAL)
def test_load_averages_probabilities_and_keeps_the_energy(weights: Path, images: Path, tta: str) -> None:
    logits = plain_logits(weights, images, tta)
    expected = (logits / TEMPERATURE).softmax(2).mean(1)
    assert (expected - (logits[:, 0] / TEMPERATURE).softmax(1)).abs().max() > 0.01
    classifier = effnet.load(weights, tta=tta, unknown=True, batch_size=4)
    paths = paths_in(images)
    torch.testing.assert_close(torch.from_numpy(classifier.probabilities(paths)), expected, rtol=0, atol=1e-5)
    energy = logits.logsumexp(2).mean(1)
    assert (energy - ENERGY).abs().min() > 1e-4
    assert [answer.is_unknown for answer in classifier(paths)] == (energy < ENERGY).tolist()


def test_none_computes_what_it_did(weights: Path, images: Path) -> None:
    paths = paths_in(images)
    plain, none = effnet.load(weights), effnet.load(weights, tta="none")
    assert type(none.engine.network) is type(plain.engine.network)
    assert np.array_equal(none.probabilities(paths), plain.probabilities(paths))


@pytest.mark.parametrize("engine", [[], ["--engine", "torch"]])
@pytest.mark.parametrize("tta", ["flip", "ten"])
def test_evaluate_measures_the_averaged_probabilities(
    weights: Path,
    images: Path,
    tta: str,
    engine: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mean = (plain_logits(weights, images, tta) / TEMPERATURE).softmax(2).mean(1)
    targets = torch.arange(3).repeat_interleave(3)
    arguments = [
        str(images),
        str(weights),
        "--workspace",
        str(tmp_path),
        "-b",
        "4",
        "-j",
        "0",
        "--device",
        "cpu",
    ]
    assert main(["evaluate", "--json", "--tta", tta, *arguments, *engine]) == 0
    metrics = json.loads(capsys.readouterr().out.splitlines()[-1])
    expected = torch.nn.functional.nll_loss(mean.log(), targets)
    assert metrics["val.calibrated_loss"] == pytest.approx(float(expected), abs=1e-5)
    assert metrics["val.top1"] == pytest.approx(100 * float((mean.argmax(1) == targets).double().mean()))


def test_classify_and_predict_agree_with_load(
    weights: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [str(path) for path in paths_in(images)]
    expected = effnet.load(weights, tta="five").probabilities(paths).max(1)
    common = ["--pretrained-from-file", str(weights), "--tta", "five", "--device", "cpu"]
    assert main(["classify", "--json", *common, *paths]) == 0
    shown = json.loads(capsys.readouterr().out)["images"]
    assert [image["predictions"][0]["probability"] for image in shown] == pytest.approx(expected, abs=1e-6)
    out = tmp_path / "table.csv"
    assert main(["predict", str(images), "--out", str(out), "-j", "0", *common]) == 0
    with out.open() as file:
        found = {row["path"]: float(row["probability"]) for row in csv.DictReader(file)}
    by_path = {
        str(Path(path).relative_to(images)): value for path, value in zip(paths, expected, strict=True)
    }
    assert found == pytest.approx(by_path, abs=1e-6)
    assert main(["predict", str(images), "--out", str(out), "--features", "--overwrite", *common]) == 2
    assert "without --tta" in capsys.readouterr().err


def test_several_labels_are_averaged_each(images: Path, tmp_path: Path) -> None:
    file = weights_file(tmp_path / "several.safetensors", several=True)
    expected = plain_logits(file, images, "flip").sigmoid().mean(1)
    found = effnet.load(file, tta="flip").probabilities(paths_in(images))
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("several", [True, False])
def test_extreme_answers_stay_finite(several: bool) -> None:
    views = [torch.tensor([[90.0, -90.0]]), torch.tensor([[-300.0, 300.0]])]
    logits = mean_logits(views, 0.5, several_labels=several)
    found = (logits / 0.5).sigmoid() if several else (logits / 0.5).softmax(1)
    torch.testing.assert_close(found, torch.tensor([[0.5, 0.5]]))


def test_what_is_refused(weights: Path, tmp_path: Path) -> None:
    same = weights_file(tmp_path / "same.safetensors", resize=32)
    with pytest.raises(UserError, match="--tta five: images are resized to the 32 px of the input"):
        effnet.load(same, tta="five")
    with pytest.raises(UserError, match="--tta must be one of none, flip, five, ten, not 'all'"):
        effnet.load(weights, tta="all")
    with pytest.raises(UserError, match="--tta flip is for evaluation"):
        check_together(quick_recipe(tmp_path, tta="flip"), {"tta": FLAG})
    check_together(quick_recipe(tmp_path, tta="flip", evaluate=True), {"tta": FLAG})
