"""The published recipes have the settings of NVIDIA's README, and are found by name."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from effnet.cli import main
from effnet.cli.launch import launch
from effnet.models import list_models
from effnet.recipe import Recipe, read_recipe, settings
from effnet.recipe.catalog import Layer, compose, find_recipe, names, published
from effnet.runtime.errors import UserError
from tests.runs import resolved

REPOSITORY = Path(__file__).resolve().parents[2]

# Model and its row of the "Default configuration" in NVIDIA's README: learning rate, the batch that it is for, weight
# decay, momentum, optimizer, fall of the learning rate, epochs; and the published image size.
DOCUMENT = {
    "efficientnet-b0": (0.08, 4096, 1e-5, 0.9, "rmsprop", "cosine", 400, 224),
    "efficientnet-widese-b0": (0.08, 4096, 1e-5, 0.9, "rmsprop", "cosine", 400, 224),
    "efficientnet-b4": (0.16, 4096, 5e-6, 0.9, "rmsprop", "cosine", 400, 380),
    "efficientnet-widese-b4": (0.16, 4096, 5e-6, 0.9, "rmsprop", "cosine", 400, 380),
    "efficientnet-quant-b0": (0.0125, 128, 4.5e-5, 0.89, "sgd", "cosine", 10, 224),
    "efficientnet-quant-b4": (4.09e-6, 32, 9.714e-4, 0.9, "rmsprop", "linear", 2, 380),
}
# Platform and precision of each column of the results in NVIDIA's README, and the memory format that goes with it.
COLUMNS = [
    ("DGXA100", "TF32", "tf32", "nchw"),
    ("DGXA100", "AMP", "amp", "nhwc"),
    ("DGX1V", "FP32", "fp32", "nchw"),
    ("DGX1V", "AMP", "amp", "nhwc"),
    ("DGX1V-16G", "FP32", "fp32", "nchw"),
    ("DGX1V-16G", "AMP", "amp", "nhwc"),
    ("DGX1V-32G", "FP32", "fp32", "nchw"),
    ("DGX1V-32G", "AMP", "amp", "nhwc"),
]
TRAINED = [model for model in DOCUMENT if "quant" not in model]


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, tuple[str, str]]:
    """Return the output of `launch.py --print-recipe`: setting to value and source."""
    assert launch([*arguments, "DIR", "--print-recipe"]) == 0
    lines = [re.split(r"\s{2,}", line) for line in capsys.readouterr().out.splitlines()]
    return {line[0].split(".")[1]: (line[1], line[2]) for line in lines if len(line) == 3}


@pytest.mark.parametrize(("platform", "precision", "arithmetic", "memory_format"), COLUMNS)
@pytest.mark.parametrize("model", TRAINED)
def test_launch_prints_the_document_s_configuration(
    capsys: pytest.CaptureFixture[str],
    model: str,
    platform: str,
    precision: str,
    arithmetic: str,
    memory_format: str,
) -> None:
    lr, batch_size, weight_decay, momentum, optimizer, schedule, epochs, image_size = DOCUMENT[model]
    printed = shown(capsys, "--model", model, "--precision", precision, "--platform", platform)
    values = {name: value for name, (value, _) in printed.items()}
    assert values["arch"] == model
    assert int(values["image_size"]) == image_size
    assert int(values["optimizer_batch_size"]) == batch_size
    assert (float(values["lr"]), float(values["weight_decay"])) == (lr, weight_decay)
    assert float(values["momentum"]) == momentum
    assert (values["optimizer"], values["lr_schedule"]) == (optimizer, schedule)
    assert (int(values["epochs"]), float(values["warmup"])) == (epochs, 16)
    assert (float(values["label_smoothing"]), float(values["mixup"])) == (0.1, 0.2)
    assert values["bn_weight_decay"] == "False"
    assert values["augmentation"] == "autoaugment"
    assert (values["crop_scale"], values["crop_ratio"]) == ("0.08 1", "0.75 1.33333")
    assert (values["precision"], values["memory_format"]) == (arithmetic, memory_format)


@pytest.mark.parametrize(("platform", "precision"), [column[:2] for column in COLUMNS])
@pytest.mark.parametrize("model", sorted(DOCUMENT.keys() - set(TRAINED)))
def test_quantization_is_the_document_s(model: str, platform: str, precision: str) -> None:
    lr, batch_size, weight_decay, momentum, optimizer, schedule, epochs, image_size = DOCUMENT[model]
    found = published(model, platform, precision)
    recipe, _ = compose(found.layers)
    assert found.command == "quantize"
    assert (recipe.model.arch, recipe.model.image_size) == (model, image_size)
    settings = recipe.optimizer
    assert settings.lr == lr
    assert batch_size % settings.batch_size == 0
    assert (settings.weight_decay, settings.momentum) == (weight_decay, momentum)
    assert (settings.optimizer, recipe.schedule.lr_schedule) == (optimizer, schedule)
    assert recipe.schedule.epochs == epochs
    if "b4" in model:
        assert (settings.rmsprop_alpha, settings.rmsprop_eps) == (0.853, 0.00422)


@pytest.mark.parametrize(
    ("model", "for_128"), [("efficientnet-quant-b0", 0.0125), ("efficientnet-quant-b4", 4.09e-6 * 4)]
)
def test_quantization_on_a_cpu_scales_its_learning_rate(model: str, for_128: float) -> None:
    recipe, _ = compose(published(model, "CPU", "FP32").layers)
    for processes in (1, 4):
        optimizer = resolved(recipe, processes).optimizer
        assert optimizer.optimizer_batch_size == processes * recipe.optimizer.batch_size
        assert optimizer.lr == pytest.approx(for_128 * optimizer.optimizer_batch_size / 128)


def test_every_combination_is_valid_or_refused_with_a_reason() -> None:
    refused = {}
    for model in names("models"):
        for platform in names("platforms"):
            for precision in names("precisions"):
                for mode in names("modes"):
                    try:
                        found = published(model, platform, precision, mode)
                    except UserError as error:
                        refused[platform, precision] = str(error)
                        continue
                    recipe, sources = compose(found.layers)
                    assert sources["batch_size"] == f"recipes/platforms/{platform}.yaml"
                    assert recipe.run.evaluate == (mode in ("evaluate", "benchmark_inference"))
                    assert 4096 % recipe.optimizer.batch_size == 0
    old = {(p, t) for p in ("DGX1V", "DGX1V-16G", "DGX1V-32G", "T4") for t in ("TF32", "BF16")}
    assert refused.keys() == old | {("CPU", "TF32")}
    for (platform, precision), message in refused.items():
        assert re.fullmatch(rf"{precision} on {platform}: .+; take .+", message)


# MiB of activations that the backward pass of an image needs, counted with `saved_tensors_hooks`.
ACTIVATIONS = {
    "efficientnet-b0": 84.3,
    "efficientnet-b4": 623.7,
    "efficientnet-quant-b0": 118.8,
    "efficientnet-quant-b4": 887.2,
}
MEMORY = {"DGX1V-16G": 16, "DGX1V-32G": 32, "T4": 16, "DGXA100": 80, "DGXH100": 80, "DGXH200": 141, "CPU": 16}


@pytest.mark.parametrize("platform", MEMORY)
@pytest.mark.parametrize("model", ACTIVATIONS)
@pytest.mark.parametrize("precision", ["AMP", "FP32"])
def test_batches_fit_into_memory(model: str, platform: str, precision: str) -> None:
    recipe, _ = compose(published(model, platform, precision).layers)
    per_image = ACTIVATIONS[model] / (1 if precision == "FP32" else 2)
    assert recipe.optimizer.batch_size * per_image <= 0.87 * 1024 * MEMORY[platform]


def test_models_of_recipes_exist() -> None:
    assert set(TRAINED) <= set(list_models())
    assert set(names("models")) == DOCUMENT.keys()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            "--model efficientnet-b0 --precision TF32 --platform DGX1V",
            "TF32 on DGX1V: Volta's tensor cores have no TF32",
        ),
        ("--model efficientnet-b0 --precision TF32 --platform T4", "Turing's tensor cores have no TF32"),
        ("--model efficientnet-b0 --precision TF32 --platform CPU", "take FP32 or BF16"),
        ("--model efficientnet-b00 --precision AMP --platform T4", "did you mean efficientnet-b0"),
        ("--model efficientnet-b0 --precision INT4 --platform T4", "there are AMP, BF16, FP32, TF32"),
        ("--model efficientnet-b0 --precision AMP --platform T4 --mode nap", "no published mode 'nap'"),
        ("--model efficientnet-b0 --precision AMP", "--platform"),
        ("--model efficientnet-b0 --precision AMP --platform T4 DIR --epoch 3", "unknown argument --epoch"),
    ],
)
def test_launch_says_what_is_wrong(capsys: pytest.CaptureFixture[str], arguments: str, words: str) -> None:
    assert launch(arguments.split()) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.startswith("launch.py: error: ")
    assert error.count("\n") == 1


def test_each_value_has_its_source(capsys: pytest.CaptureFixture[str]) -> None:
    named = "--model efficientnet-b4 --precision AMP --platform DGXH100 --mode benchmark_training_short"
    printed = shown(capsys, *named.split(), "--momentum", "0.8")
    assert printed["momentum"] == ("0.8", "flag")
    assert printed["batch_size"] == ("64", "recipes/platforms/DGXH100.yaml")
    assert printed["weight_decay"] == ("5e-06", "recipes/models/efficientnet-b4.yaml")
    assert printed["data_backend"] == ("synthetic", "recipes/modes/benchmark_training_short.yaml")
    assert printed["mixup"] == ("0.2", "recipes/base.yaml")
    assert printed["precision"] == ("amp", "recipes/precisions/AMP.yaml")
    assert printed["seed"] == ("0", "default")
    assert printed["dropout"] == ("0.4", "follows from the others")


@pytest.mark.parametrize("model", ["efficientnet-b0", "efficientnet-quant-b0"])
def test_quantization_is_printed_for_quantized_models(capsys: pytest.CaptureFixture[str], model: str) -> None:
    printed = shown(capsys, *f"--model {model} --precision AMP --platform DGXA100".split())
    of_quantization = {leaf.name for group, _, leaf in settings() if group == "quantization"}
    assert (of_quantization & printed.keys()) == (of_quantization if "quant" in model else set())


def test_a_step_is_printed_for_the_processes_there_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "64")
    named = "--model efficientnet-b0 --precision AMP --platform DGXA100"
    # 64 batches of 256 are more than 4096 images.
    printed = shown(capsys, *named.split())
    assert printed["optimizer_batch_size"][0] == str(64 * 256)
    assert printed["lr"] == ("0.08", "recipes/models/efficientnet-b0.yaml")
    # --base-lr scales in place of the recipe's rate.
    assert float(shown(capsys, *named.split(), "--base-lr", "0.08")["lr"][0]) == 0.32


def test_an_open_precision_is_printed_as_it_is_resolved(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["train", "--print-recipe", "--device", "cpu"]) == 0
    assert _precision_line(capsys) == ["fp32", "follows"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert main(["train", "--print-recipe"]) == 0
    assert _precision_line(capsys) == ["tf32", "follows"]


def _precision_line(capsys: pytest.CaptureFixture[str]) -> list[str]:
    lines = capsys.readouterr().out.splitlines()
    return next(line.split()[1:3] for line in lines if line.startswith("compute.precision"))


def test_a_recipe_with_tf32_runs_on_a_cpu_in_fp32(capsys: pytest.CaptureFixture[str]) -> None:
    named = "--model efficientnet-b0 --precision TF32 --platform DGXA100 --device cpu"
    assert shown(capsys, *named.split())["precision"][0] == "fp32"


def test_train_and_launch_are_one(capsys: pytest.CaptureFixture[str]) -> None:
    name = ["--recipe", "efficientnet-b0/DGXA100/AMP/evaluate", "--print-recipe"]
    assert main(["train", *name]) == 0
    by_train = capsys.readouterr().out
    parts = "--model efficientnet-b0 --precision AMP --platform DGXA100 --mode evaluate --print-recipe"
    assert launch(parts.split()) == 0
    assert capsys.readouterr().out == by_train


def test_names_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # no recipes/ here: those of the package are meant
    tuned = read_recipe(REPOSITORY / "recipes/finetune.yaml")
    for name in ("finetune", "finetune.yaml", "recipes/finetune.yaml"):
        (layer,) = find_recipe(name).layers
        assert layer.values == tuned
    full = find_recipe("recipes/efficientnet-b0/DGXA100/AMP")
    assert full.name == "efficientnet-b0/DGXA100/AMP/convergence"
    (tmp_path / "mine.yaml").write_text("optimizer: {lr: 1.0}\n")
    assert find_recipe("mine.yaml").layers == (Layer("mine.yaml", {"lr": 1.0}),)
    with pytest.raises(UserError, match="nowhere.yaml: no such file"):
        find_recipe("nowhere.yaml")


def test_later_layers_win() -> None:
    recipe, sources = compose([Layer("a", {"lr": 1.0, "seed": 1}), Layer("b", {"lr": 2.0})])
    assert recipe == Recipe().replace({"lr": 2.0, "seed": 1})
    assert sources == {"lr": "b", "seed": "a"}


def test_a_recipe_for_quantization_is_not_trained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "DIR", "--recipe", "efficientnet-quant-b0/DGXA100/AMP"]) == 2
    assert "is a recipe of `effnet quantize`" in capsys.readouterr().err


def test_recipes_are_in_the_package(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", minversion="77")
    command = [
        *(sys.executable, "-c", "from setuptools import setup; setup()", "-q", "build_py"),
        *("--build-lib", str(tmp_path)),
    ]
    egg = ["egg_info", "--egg-base", str(tmp_path)]
    done = subprocess.run(
        [*command[:3], "-q", *egg, *command[4:]], cwd=REPOSITORY, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    installed = {
        path.relative_to(tmp_path / "effnet/recipes")
        for path in (tmp_path / "effnet/recipes").rglob("*.yaml")
    }
    assert installed == {
        path.relative_to(REPOSITORY / "recipes") for path in (REPOSITORY / "recipes").rglob("*.yaml")
    }


@pytest.mark.parametrize("mode", names("modes"))
def test_only_benchmarks_start_without_checking_the_images(mode: str) -> None:
    recipe, _ = compose(published("efficientnet-b0", "DGXA100", "AMP", mode).layers)
    reads_for_training = recipe.data.data_backend != "synthetic" and not recipe.run.evaluate
    assert (recipe.data.check_images or not reads_for_training) == (mode != "benchmark_training")
