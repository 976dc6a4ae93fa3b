"""A hub on loopback, and models to push."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from effnet.models.config import MODEL_CONFIGS
from effnet.quantization.model import build
from effnet.recipe import Recipe
from effnet.training.state import Progress
from effnet.weights import WeightsMetadata, save_weights
from tests.fake_hub import WRITER, FakeHub, fake_hub
from tests.runs import CLASSES, PREPROCESSING
from tests.weights.random_weights import randomise

constants = pytest.importorskip("huggingface_hub.constants", reason="extra hub")
PRIVATE = "/home/somebody/secret"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub that effnet and timm use in place of the real one, with an empty cache and the owner's token."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_TOKEN", WRITER)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # its own protocol for large files
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    with fake_hub() as served:
        # effnet reads the variable at each use, timm's use of the library goes by what it read when it was imported.
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        template = served.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield served


def weights_of(path: Path, name: str = "efficientnet-lite0", *, metadata: bool = True, **fields: Any) -> Path:
    """Write random weights with three classes; fields are those of `ModelConfig`."""
    config = replace(MODEL_CONFIGS[name], num_classes=len(CLASSES), **fields)
    model = build(config)
    if not config.quantized:
        randomise(model)
    described = WeightsMetadata(
        name, PREPROCESSING, bn_epsilon=config.bn_epsilon, padding=config.padding, classes=CLASSES
    )
    save_weights(path, model.state_dict(), described if metadata else None)
    return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The workspace of a run whose averaged weights were the better ones, with settings that name its machine."""
    workspace = tmp_path / "run"
    workspace.mkdir()
    content = torch.load(weights_of(workspace / "model_best.pth.tar"), weights_only=True)
    recipe = Recipe().replace(
        {
            "arch": "efficientnet-lite0",
            "lr": 0.02,
            "epochs": 7,
            "crop_scale": (0.5, 1.0),
            "class_map": f"{PRIVATE}/classes.txt",
            "pretrained_from_file": f"{PRIVATE}/start.pth",
            "workspace": f"{PRIVATE}/runs",
        }
    )
    plain = content["state_dict"]
    averaged = {key: 0.5 * value if value.is_floating_point() else value for key, value in plain.items()}
    metrics = {"val.top1": 50.0, "val.loss": 2.0, "val_ema.top1": 75.0, "val_ema.top5": 100.0}
    rates = {"val_ema.images": 12.0, "val_ema.total_ips": 99.0, "val_ema.compute_latency_at95": 0.1}
    content |= {
        "state_dict_ema": averaged,
        "arch": "efficientnet-lite0",
        "epoch": 7,
        "recipe": recipe.to_dict(),
        "metrics": {**metrics, **rates},
        "optimizer": {"stem.conv.weight": {"square_avg": torch.full((3,), 12345.0)}},
        "progress": asdict(Progress(epoch=7, best_is_ema=True)),
    }
    torch.save(content, workspace / "model_best.pth.tar")
    lines = [
        f'{{"type": "epoch", "epoch": {epoch}, "data": {{"train.loss": {2 - epoch}, "val_ema.top1": 75}}}}\n'
        for epoch in range(2)
    ]
    (workspace / "report.json").write_text("".join(lines))
    return workspace
