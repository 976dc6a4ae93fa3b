"""The comparison of fine-tuning with timm's parts."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.commands import main
from benchmarks.finetuning import carry_over, draw, table
from effnet.runtime.errors import UserError
from effnet.weights import create_model, save_weights
from effnet.weights.metadata import WeightsMetadata
from tests.runs import PREPROCESSING


def test_both_models_are_one_function(tmp_path: Path) -> None:
    model = create_model("efficientnet-lite0", num_classes=5, padding="same")
    assert carry_over(model, tmp_path / "timm.pth") < 1e-4
    with pytest.raises(UserError, match="differs from ours in its logits"):
        carry_over(create_model("efficientnet-lite0", num_classes=5, bn_epsilon=0.1), tmp_path / "timm.pth")


def test_a_seed_draws_the_same_images_again(images: Path, tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        draw(images, tmp_path / name, 4, seed)
    one, two, three = (
        {str(path.relative_to(tmp_path / name)) for path in (tmp_path / name / "train").rglob("*.jpg")}
        for name in ("one", "two", "three")
    )
    assert len(one) == 12
    assert one == two != three
    with pytest.raises(UserError, match="fewer than 99"):
        draw(images, tmp_path / "four", 99, 0)


def test_the_best_learning_rate_counts() -> None:
    runs = [
        {
            "per_class": 7,
            "seed": seed,
            "seconds": 50.0,
            "top1": 80.0 + seed,
            "timm": {"0.1": {"top1": 60.0}, "0.2": {"top1": 70.0 + seed}},
        }
        for seed in range(3)
    ]
    line = table({"runs": runs}).splitlines()[-1]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == ["7", "50", "81.0 % ± 1.0", "71.0 % ± 1.0", "0.2", "+10.0"]


@pytest.mark.slow
def test_the_command(images: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = create_model("efficientnet-lite0", num_classes=5, padding="same")
    weights = tmp_path / "weights.safetensors"
    metadata = WeightsMetadata(
        model="efficientnet-lite0", preprocessing=PREPROCESSING, bn_epsilon=0.001, padding="same"
    )
    save_weights(weights, model.state_dict(), metadata)
    out = tmp_path / "out"
    flags = ["--per-class", "6", "--seeds", "1", "--lrs", "1e-3", "--image-size", "32"]
    quick = "--batch-size 6 --epochs 1 --no-check-images"
    command = ["finetuning", str(images), "--weights", str(weights), *flags, "--flags", quick]
    assert main([*command, "--out", str(out)]) == 0
    (run,) = json.loads((out / "finetuning.json").read_text())["runs"]
    assert 0 <= run["top1"] <= 100
    theirs = run["timm"]["0.001"]
    assert run["seconds"] <= theirs["seconds"]
    assert "effnet" in (out / "finetuning.md").read_text()
