"""Models pushed to a hub, and loaded from there by effnet and by timm."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import yaml

import effnet
from effnet.cli import main
from effnet.inference.classifier import Classifier
from effnet.recipe import read_recipe
from effnet.runtime.errors import UserError
from effnet.sharing.push import push, write_folder
from effnet.weights import load_model, read_weights, save_weights
from effnet.weights.confidence import Confidence, Unknown
from effnet.weights.files import read_torch_file
from effnet.weights.hub_config import metadata_beside
from tests.fake_hub import READER, FakeHub
from tests.runs import CLASSES

from .conftest import PRIVATE, weights_of

NAME = "me/shapes"
SOURCE = f"hf-hub:{NAME}"


def images() -> torch.Tensor:
    """An odd and an even side, by which paddings differ."""
    return torch.randn(2, 3, 67, 96, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("efficientnet-b0", {"bn_epsilon": 2e-3}),
        ("efficientnet-b0", {"padding": "same"}),
        ("efficientnet-lite0", {}),
        ("efficientnet-lite0", {"padding": "symmetric"}),
        ("efficientnet-v2-b0", {}),
        ("efficientnet-v2-b0", {"padding": "same", "bn_epsilon": 1e-5}),
    ],
)
@torch.no_grad()
def test_timm_loads_it_with_the_same_logits(
    name: str, fields: dict[str, object], hub: FakeHub, tmp_path: Path
) -> None:
    path = weights_of(tmp_path / "a.safetensors", name, **fields)
    push(path, NAME)
    theirs = timm.create_model(SOURCE, pretrained=True).eval()
    ours, local = load_model(SOURCE).eval(), load_model(path).eval()
    assert ours.metadata.to_dict() == local.metadata.to_dict()
    x = images()
    assert torch.equal(ours(x), local(x))
    expected = local.double()(x.double())
    assert float((theirs.double()(x.double()) - expected).abs().max() / expected.abs().max()) <= 1e-12
    assert theirs.pretrained_cfg["label_names"] == list(CLASSES)
    data = timm.data.resolve_data_config(pretrained_cfg=theirs.pretrained_cfg)
    transform = timm.data.create_transform(**data).transforms
    assert [transform[0].size, list(transform[1].size)] == [36, [32, 32]]  # resize and crop


@pytest.mark.parametrize("name", ["efficientnet-widese-b0", "efficientnet-quant-b0"])
@torch.no_grad()
def test_networks_that_timm_lacks(name: str, hub: FakeHub, tmp_path: Path) -> None:
    path = weights_of(tmp_path / "a.safetensors", name)
    push(path, NAME)
    card = hub.repositories[NAME].files["README.md"].decode()
    assert "library_name: effnet" in card
    assert "timm has no such network" in card
    classifier = effnet.load(SOURCE)
    assert (classifier.arch, classifier.classes) == (name, CLASSES)
    assert read_weights(SOURCE).state_dict.keys() == read_weights(path).state_dict.keys()


def test_a_run_from_end_to_end(hub: FakeHub, run: Path, tmp_path: Path) -> None:
    options = {"private": True, "message": "the first", "licence": "MIT"}
    assert effnet.Run(run).push(NAME, **options) == f"{hub.url}/{NAME}"  # type: ignore[arg-type]
    repository = hub.repositories[NAME]
    assert repository.private
    assert repository.messages == ["the first"]
    expected_files = {"README.md", "config.json", "model.safetensors", "recipe.yaml"}
    assert set(repository.files) - {"learning-curve.svg"} == expected_files

    everything = b"".join(repository.files.values())
    assert PRIVATE.encode() not in everything
    assert np.float32(12345.0).tobytes() * 3 not in everything  # the optimizer's state

    averaged = read_torch_file(run / "model_best.pth.tar")["state_dict_ema"]  # type: ignore[index]
    pushed = load_model(SOURCE).state_dict()
    assert all(torch.equal(pushed[key], averaged[key].reshape(pushed[key].shape)) for key in averaged)

    (tmp_path / "recipe.yaml").write_bytes(repository.files["recipe.yaml"])
    given = {"arch": "efficientnet-lite0", "lr": 0.02, "epochs": 7, "crop_scale": [0.5, 1.0]}
    assert read_recipe(tmp_path / "recipe.yaml") == given

    _, header, text = repository.files["README.md"].decode().split("---\n", 2)
    values = yaml.safe_load(header)
    assert (values["license"], values["library_name"]) == ("mit", "timm")
    (result,) = values["model-index"][0]["results"]
    assert {row["name"]: row["value"] for row in result["metrics"]} == {
        "Top-1 accuracy": 0.75,
        "Top-5 accuracy": 1.0,
    }
    assert f'effnet.load("{SOURCE}")' in text
    assert "circle, square, star" in text


def test_the_card_is_one_for_the_hub_s_library(run: Path, tmp_path: Path) -> None:
    cards = pytest.importorskip("huggingface_hub.repocard")
    write_folder(run, NAME, tmp_path / "model")
    (result,) = cards.ModelCard.load(tmp_path / "model/README.md").data.eval_results[:1]
    assert (result.metric_name, result.metric_value) == ("Top-1 accuracy", 0.75)


def test_a_folder_without_a_network(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "model"
    assert main(["push", str(run), NAME, "--dry-run", str(folder), "--no-ema"]) == 0
    assert "model.safetensors" in capsys.readouterr().out
    assert effnet.load(folder).classes == CLASSES
    config = json.loads((folder / "config.json").read_text())
    assert config["architecture"] == "tf_efficientnet_lite0"
    assert main(["push", str(run), NAME, "--dry-run", str(folder)]) == 2
    assert "not empty" in capsys.readouterr().err


def same_answers(one: Classifier, other: Classifier) -> bool:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    return np.array_equal(one.probabilities(pixels), other.probabilities(pixels))


def test_revisions_and_the_cache(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = weights_of(tmp_path / "a.safetensors")
    push(first, NAME)
    hub.repositories[NAME].tags["v1.0"] = hub.repositories[NAME].head
    second = weights_of(tmp_path / "b.safetensors", padding="symmetric")
    push(second, NAME)
    assert same_answers(effnet.load(f"{SOURCE}@v1.0"), effnet.load(first))
    assert same_answers(effnet.load(SOURCE), effnet.load(second))
    with pytest.raises(UserError, match="no such revision"):
        effnet.load(f"{SOURCE}@v2")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody is there
    assert same_answers(effnet.load(SOURCE), effnet.load(second))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # without further attempts
    assert same_answers(effnet.load(SOURCE), effnet.load(second))
    with pytest.raises(UserError, match=r"me/other: .*not in the cache"):
        effnet.load("hf-hub:me/other")


def test_weights_that_timm_pushed(hub: FakeHub, tmp_path: Path) -> None:
    theirs = timm.create_model("efficientnet_lite0", num_classes=3).eval()
    timm.models.save_for_hf(
        theirs, tmp_path, model_config={"label_names": list("abc")}, safe_serialization=True
    )
    hub.holding(
        "you/model", {name: (tmp_path / name).read_bytes() for name in ("config.json", "model.safetensors")}
    )
    ours = load_model("hf-hub:you/model").eval()
    assert (ours.config.name, ours.metadata.classes) == ("efficientnet-lite0", ("a", "b", "c"))
    assert (ours.metadata.preprocessing["image_size"], ours.metadata.preprocessing["resize"]) == (224, 256)
    x = images()
    with torch.no_grad():
        assert torch.allclose(ours(x), theirs(x), atol=1e-5)


@pytest.mark.slow
def test_the_command_line(hub: FakeHub, run: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}

    def effnet_command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "effnet", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    pushed = effnet_command("push", str(run), NAME)
    assert pushed.returncode == 0, pushed.stderr
    assert pushed.stdout.strip() == f"{hub.url}/{NAME}"
    (tmp_path / "photo.ppm").write_bytes(b"P6 40 48 255\n" + bytes(range(240)) * 24)
    answered = effnet_command("classify", "--arch", SOURCE, "--json", str(tmp_path / "photo.ppm"))
    assert answered.returncode == 0, answered.stderr
    assert "circle" in answered.stdout


def test_confidence_travels_along(hub: FakeHub, tmp_path: Path) -> None:
    weights = read_weights(weights_of(tmp_path / "plain.safetensors"))
    confidence = Confidence(temperature=1.5, unknown=Unknown("energy", 2.25))
    assert weights.metadata is not None
    path = tmp_path / "a.safetensors"
    save_weights(path, weights.state_dict, replace(weights.metadata, confidence=confidence))
    push(path, NAME)
    assert effnet.load(SOURCE).engine.metadata.confidence == confidence
    (tmp_path / "config.json").write_bytes(hub.repositories[NAME].files["config.json"])
    beside = metadata_beside(tmp_path / "model.safetensors")
    assert beside is not None
    assert beside.confidence == confidence
    assert "divided by 1.5; an image whose energy score is below 2.25" in str(
        hub.repositories[NAME].files["README.md"]
    )


def refused(*arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must end with exit code 2; return its one line."""
    assert main(list(arguments)) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert line.startswith("effnet: error: ")
    return line


def test_pushes_that_are_refused(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(weights_of(tmp_path / "a.safetensors"))

    def line(*arguments: str) -> str:
        return refused("push", *arguments, capsys=capsys)

    for name in ("shapes", "me/a/b", "../b", "me/..", "me/a b", "me/a.git", "hf-hub:me/a@../b"):
        assert "not the name of a repository" in line(path, name)
    assert "leave @v1 out" in line(path, f"{NAME}@v1")
    assert "no such file" in line(str(tmp_path / "none.pth"), NAME)
    (tmp_path / "graph.onnx").touch()
    assert "exported graph" in line(str(tmp_path / "graph.onnx"), NAME)
    assert not hub.requests

    assert "refuses it (403)" in line(path, "you/shapes")
    hub.holding(NAME, {})
    assert "exists and is public" in line(path, NAME, "--private")
    monkeypatch.setenv("HF_TOKEN", READER)
    assert "refuses it (403)" in line(path, NAME)
    monkeypatch.setenv("HF_TOKEN", "hf_unknown")
    assert "refuses it" in line(path, NAME)
    monkeypatch.delenv("HF_TOKEN")
    assert "needs a token" in line(path, NAME)
    assert hub.repositories[NAME].files == {}

    monkeypatch.setenv("HF_TOKEN", READER)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "can't be reached" in line(path, NAME)


def test_a_library_that_is_missing_or_old(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    path = weights_of(tmp_path / "a.safetensors")
    monkeypatch.setattr(huggingface_hub, "__version__", "0.20.3")
    with pytest.raises(UserError, match=r"0\.20\.3 is too old, 0\.30 is needed: .*\[hub\]'"):
        push(path, NAME)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"huggingface_hub: .*\[hub\]'"):
        effnet.load(SOURCE)
