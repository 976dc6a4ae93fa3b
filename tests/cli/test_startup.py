"""Modules that a process must not import: each costs seconds, and the command does not need it."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from effnet.cli import main
from effnet.models import list_models
from effnet.models.config import MODEL_CONFIGS
from effnet.models.efficientnet import EfficientNet
from effnet.models.profile import profile, profiles_as_json
from effnet.models.profiles import FILE, list_profiles
from effnet.weights import WeightsMetadata, save_weights

COMPILER = {"torch._dynamo", "torch._inductor", "triton", "torchvision", "onnx", "onnxscript", "modelopt"}


def imported(script: str) -> set[str]:
    """Modules of a fresh process after a script."""
    script += "\nimport json, sys\nprint('\\n' + json.dumps(sorted(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(ended.stdout.splitlines()[-1]))


def command(*arguments: str) -> str:
    return f"from effnet.cli import main\ntry:\n    main({list(arguments)!r})\nexcept SystemExit:\n    pass"


def test_building_a_model_loads_no_compiler() -> None:
    modules = imported("import effnet\neffnet.create_model('efficientnet-b0')")
    assert "torch" in modules
    assert modules & {*COMPILER, "rich"} == set()


def test_building_a_quantized_model_loads_no_compiler() -> None:
    assert imported("import effnet\neffnet.create_model('efficientnet-quant-b0')") & COMPILER == set()


@pytest.mark.parametrize(
    "script",
    [
        "import effnet",
        "import effnet\neffnet.list_models()",
        command("--help"),
        command("train", "--help"),
        command("models"),
        command("models", "--json"),
    ],
)
def test_what_needs_no_pytorch_does_not_load_it(script: str) -> None:
    modules = imported(script)
    assert "effnet" in modules
    assert modules & {"torch", "numpy"} == set()


def test_classifying_an_image_loads_no_compiler(tmp_path: Path, images: Path) -> None:
    config = MODEL_CONFIGS["efficientnet-b0"]
    size = {"image_size": 64, "resize": 64, "interpolation": "bilinear"}
    preprocessing = {**size, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    metadata = WeightsMetadata("efficientnet-b0", preprocessing, class_list="imagenet-1k")
    save_weights(tmp_path / "w.pth", EfficientNet(config).state_dict(), metadata)
    photo = next(images.glob("val/*/*"))
    arguments = ("classify", str(photo), "--pretrained-from-file", str(tmp_path / "w.pth"), "--cpu")
    modules = imported(command(*arguments))
    assert "effnet.inference.classify" in modules
    assert modules & COMPILER == set()


@pytest.mark.slow
def test_the_stored_counts_are_those_of_the_models() -> None:
    assert FILE.read_text() == profiles_as_json(), "see `effnet/models/profile.py`"
    listed = list_profiles()
    assert list(listed) == list_models()
    for name in ("efficientnet-quant-b0", "efficientnet-quant-widese-b1", "efficientnet-quant-lite0"):
        assert listed[name] == profile(name)


@pytest.mark.parametrize("columns", ["80", "40"])
def test_the_table_cuts_nothing_off(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines] == ["model", *list_models()]
    cells = {line.split()[0]: line.split()[1:] for line in lines}
    assert cells["efficientnet-quant-widese-b7"] == ["125.84", "37.81", "289.95", "600"]
    assert cells["efficientnet-b0"] == ["5.29", "0.39", "6.75", "224", "ngc,", "torchvision,", "timm"]


def test_the_counts_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {name: {**row, "weights": None} for name, row in listed.items()} == {
        name: {**asdict(size), "weights": None} for name, size in list_profiles().items()
    }
    assert listed["efficientnet-lite0"]["weights"] == ["google", "timm"]
