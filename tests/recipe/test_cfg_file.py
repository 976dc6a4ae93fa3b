"""Configuration files of NVIDIA's `launch.py`: the format, composed, translated, refused, and run."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from effnet.cli.launch import launch
from effnet.recipe import Recipe
from effnet.recipe.catalog import compose
from effnet.recipe.cfg_file import configured
from effnet.runtime.errors import UserError
from tests.runs import records

FILE = """
precision:
  AMP: &amp {static_loss_scale: 128, amp: true}
  FP32: {amp: false}
  TF32: {amp: false}
platform:
  DGX1V-16G: &v100 {workers: 8, prefetch: 4, gpu_affinity: socket_unique_contiguous}
  DGXA100: {<<: *v100, workers: 10}
anchors:
  base: &base {optimizer: rmsprop, rmsprop_eps: 0.01, lr_schedule: cosine, print_freq: 100, mixup: 0.2}
  b0: &b0 {<<: *base, arch: efficientnet-b0, image_size: 224, lr: 0.08, optimizer_batch_size: 4096,
           weight_decay: 1e-05, warmup: 16, epochs: 400, data_backend: pytorch, num_classes: 1000}
models:
  efficientnet-b0:
    DGX1V-16G:
      FP32: {<<: *b0, batch_size: 64}
    DGXA100:
      AMP: {<<: *b0, batch_size: 256, memory_format: nhwc}
      TF32: {<<: *b0, batch_size: 256}
  efficientnet-quant-b0:
    DGXA100:
      TF32: {<<: *b0, arch: efficientnet-quant-b0, batch_size: 128}
  small:
    DGXA100:
      AMP: {<<: *b0, arch: efficientnet-lite0, image_size: 32, batch_size: 4, num_classes: 3, prof: -1}
mode:
  convergence: {print_freq: 20, training_only: false, evaluate: false, save_checkpoints: true}
  benchmark_training: {print_freq: 1, epochs: 1, training_only: true, evaluate: false, save_checkpoints: false}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.yml"
    path.write_text(FILE)
    return path


def recipe_of(file: Path, name: str) -> dict[str, Any]:
    recipe, _ = compose(configured(file, name).layers)
    return {name: value for group in recipe.to_dict().values() for name, value in group.items()}


def test_sections_are_composed_and_translated(file: Path) -> None:
    amp = recipe_of(file, "efficientnet-b0/DGXA100/AMP")
    expected = {
        **{"arch": "efficientnet-b0", "image_size": 224, "lr": 0.08, "optimizer_batch_size": 4096},
        **{"weight_decay": 1e-5, "rmsprop_eps": 0.01, "batch_size": 256, "epochs": 400, "warmup": 16.0},
        **{"workers": 10, "prefetch": 4, "gpu_affinity": "socket_unique_contiguous", "print_freq": 20},
        **{"precision": "amp", "initial_loss_scale": 128.0, "static_loss_scale": None},
        **{"memory_format": "nhwc", "no_checkpoints": False, "training_only": False},
    }
    assert {name: amp[name] for name in expected} == expected
    benchmark = recipe_of(file, "efficientnet-b0/DGXA100/TF32/benchmark_training")
    expected = {"precision": "tf32", "memory_format": "nchw", "no_checkpoints": True, "epochs": 1}
    assert {name: benchmark[name] for name in expected} == expected
    # NVIDIA's README says DGX1V for the one with 16 GB.
    assert recipe_of(file, "efficientnet-b0/DGX1V/FP32")["workers"] == 8
    assert configured(file, "efficientnet-quant-b0/DGXA100/TF32").command == "quantize"


def test_every_value_of_nvidia_s_recipes_is_one_of_our_settings(shared_dir: Path, tmp_path: Path) -> None:
    facts = json.loads((shared_dir / "reference/recipes.json").read_text())
    path = tmp_path / "all.yml"
    path.write_text(
        yaml.safe_dump(
            {
                "precision": {"AMP": {}, "FP32": {}, "TF32": {}},
                "platform": {platform: {} for of_model in facts["models"].values() for platform in of_model},
                "models": facts["models"],
                "mode": facts["modes"],
            }
        )
    )
    ours = {"amp": "precision", "static_loss_scale": "initial_loss_scale"}
    for model, platforms in facts["models"].items():
        for platform, precisions in platforms.items():
            for precision, values in precisions.items():
                recipe = recipe_of(path, f"{model}/{platform}/{precision}/evaluate")
                overridden = facts["modes"]["evaluate"].keys()
                for name, value in values.items():
                    if name in overridden:
                        continue
                    wanted = precision.lower() if name == "amp" else value
                    wanted = float(wanted) if name == "weight_decay" else wanted
                    assert recipe[ours.get(name, name)] == wanted, (model, platform, precision, name)
                assert recipe["evaluate"] is True


@pytest.mark.parametrize(
    ("change", "name", "words"),
    [
        (("lr: 0.08", "lrr: 0.08"), "efficientnet-b0/DGXA100/AMP", "unknown setting 'lrr'"),
        (("lr: 0.08", "lr: fast"), "efficientnet-b0/DGXA100/AMP", "--lr must be of type float, not 'fast'"),
        (("", ""), "efficientnet-b7/DGXA100/AMP", "models has no efficientnet-b7; it has efficientnet-b0, "),
        (("", ""), "efficientnet-b0/T4/AMP", "platform has no T4; it has DGX1V-16G, DGXA100"),
        (("", ""), "efficientnet-b0/DGX1V/AMP", "models: efficientnet-b0: DGX1V has no AMP; it has FP32"),
        (
            ("", ""),
            "efficientnet-b0/DGXA100/AMP/fast",
            "mode has no fast; it has convergence, benchmark_training",
        ),
        (("mode:", "modes:"), "efficientnet-b0/DGXA100/AMP", "mode must hold named parts"),
    ],
)
def test_what_is_wrong_is_named(file: Path, change: tuple[str, str], name: str, words: str) -> None:
    file.write_text(FILE.replace(*change))
    with pytest.raises(UserError) as error:
        configured(file, name)
    assert str(error.value).startswith(f"--cfg-file {file}: ")
    assert words in str(error.value)


def test_launch_runs_it(file: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = ["--model", "small", "--platform", "DGXA100", "--precision", "AMP", "--cfg_file", str(file)]
    here = [
        str(images),
        "--device",
        "cpu",
        "--workers",
        "0",
        "--gpu-affinity",
        "none",
        "--workspace",
        str(tmp_path),
    ]
    once = ["--epochs", "1", "--optimizer-batch-size", "4", "--trt", "True", "--num_classes", "3"]
    assert launch([*named, *here, *once]) == 0
    (parameters,) = records(tmp_path, "parameters")
    ran = Recipe.from_dict(parameters["data"]["recipe"])
    assert (ran.model.arch, ran.optimizer.batch_size, ran.optimizer.lr) == ("efficientnet-lite0", 4, 0.08)
    assert (ran.data.prefetch, ran.run.prof, ran.compute.precision) == (4, None, "bf16")
    assert (tmp_path / "checkpoint.pth.tar").exists()
    capsys.readouterr()
    assert launch([*named[:-1], "/no/such.yml", *here]) == 2
    assert "/no/such.yml" in capsys.readouterr().err
