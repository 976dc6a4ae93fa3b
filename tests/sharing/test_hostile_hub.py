"""A hub whose content nobody vouches for: it ends in one line, and nothing is written outside the cache."""

import json
import pickle
from pathlib import Path

import pytest

import effnet
from effnet.runtime.errors import UserError
from tests.fake_hub import FakeHub

from .conftest import weights_of

NAME = "them/model"
SOURCE = f"hf-hub:{NAME}"
TIMM = {
    "architecture": "efficientnet_lite0",
    "num_classes": 3,
    "pretrained_cfg": {"input_size": [3, 32, 32], "crop_pct": 0.9, "mean": [0.5] * 3, "std": [0.5] * 3},
}


def refusal(source: str = SOURCE) -> str:
    """Load a model that must be refused; return the line."""
    with pytest.raises(UserError) as caught:
        effnet.load(source)
    line = str(caught.value)
    assert line.isprintable()
    assert len(line) < 1000
    return line


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Weights without metadata, so that those of config.json are used."""
    folder = tmp_path_factory.mktemp("bare")
    return weights_of(folder / "a.safetensors", metadata=False).read_bytes()


def changed(**values: object) -> dict[str, object]:
    return {**TIMM, "pretrained_cfg": {**TIMM["pretrained_cfg"], **values}}  # type: ignore[dict-item]


def test_the_configuration_that_the_others_change(hub: FakeHub, bare: bytes) -> None:
    hub.holding(NAME, {"model.safetensors": bare, "config.json": json.dumps(TIMM).encode()})
    assert effnet.load(SOURCE).engine.preprocessing.resize == 35


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (b"\xff\xfe", "config.json: "),
        (b"[" * 100_000, "nested"),
        (b'{"architecture": ' + b"9" * 5000 + b"}", "config.json"),
        ([1, 2], "holds a list"),
        ({**TIMM, "architecture": "resnet50\x1b[31m\n"}, "none of those"),
        ({**TIMM, "architecture": "../../etc/passwd"}, "none of those"),
        ({**TIMM, "pretrained_cfg": "big"}, "can't be used"),
        ({"architecture": "efficientnet_lite0"}, "can't be used"),
        ({**TIMM, "model_args": {"bn_eps": "small"}}, "bn_epsilon"),
        ({**TIMM, "label_names": {"a": 1}}, "classes"),
        ({**TIMM, "label_names": ["a", "a", "b"]}, "classes"),
        ({**TIMM, "label_names": ["a", "b"]}, "2 classes, its classifier has 3"),
        (changed(crop_pct=0), "division"),
        (changed(crop_pct="\u202e"), "can't be used"),
        (changed(crop_pct=1e-300), "can't be used"),
        (changed(input_size=[]), "can't be used"),
        (changed(input_size=[3, 10**9, 10**9]), "image_size"),
        (changed(mean=[1, 2]), "mean"),
        (changed(std=[0, 0, 0]), "std"),
        (changed(interpolation="magic"), "interpolation"),
        ({"effnet": "mine"}, "instead of named values"),
        ({"effnet": {"model": "../x", "preprocessing": {}}}, "preprocessing"),
        ({"effnet": {"format": 99}}, "update effnet"),
    ],
)
def test_a_hostile_configuration(config: object, message: str, hub: FakeHub, bare: bytes) -> None:
    content = config if isinstance(config, bytes) else json.dumps(config).encode()
    hub.holding(NAME, {"model.safetensors": bare, "config.json": content})
    line = refusal()
    assert message in line
    assert "config.json" in line or "model.safetensors" in line


class Code:
    """A pickle that would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


def test_a_pickle(hub: FakeHub, tmp_path: Path) -> None:
    harm = pickle.dumps(Code(tmp_path / "harm"))
    hub.holding(NAME, {"pytorch_model.bin": harm, "config.json": json.dumps(TIMM).encode()})
    assert "holds no model.safetensors; pickles are not read" in refusal()
    hub.holding("them/disguised", {"model.safetensors": harm})
    assert "not a safetensors file" in refusal("hf-hub:them/disguised")
    assert not (tmp_path / "harm").exists()


def test_weights_that_do_not_fit(hub: FakeHub, bare: bytes, tmp_path: Path) -> None:
    other = json.dumps({**TIMM, "architecture": "efficientnet_b0"}).encode()
    hub.holding(NAME, {"model.safetensors": bare, "config.json": other})
    assert "weights of efficientnet-lite0, not of efficientnet-b0" in refusal()
    hub.holding("them/short", {"model.safetensors": bare[: len(bare) // 2]})
    assert "damaged, cut short" in refusal("hf-hub:them/short")


def test_only_two_files_are_asked_for(hub: FakeHub, bare: bytes, tmp_path: Path) -> None:
    others = {"../../outside": b"x", "effnet.py": b"raise SystemExit", "pytorch_model.bin": b"x"}
    hub.holding(NAME, {"model.safetensors": bare, "config.json": json.dumps(TIMM).encode(), **others})
    effnet.load(SOURCE)
    asked = {request.rpartition("/")[2] for request in hub.requests if "/resolve/" in request}
    assert asked == {"config.json", "model.safetensors"}
    written = {path for path in tmp_path.rglob("*") if path.is_file() and "cache" not in path.parts}
    assert not written


def test_a_hub_that_fails(hub: FakeHub) -> None:
    hub.broken = True
    assert "them/model" in refusal()
    hub.broken = False
    assert "no such repository" in refusal()
