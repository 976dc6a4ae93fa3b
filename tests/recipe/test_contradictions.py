"""Settings that contradict each other are refused; a recipe file may hold what a flag makes pointless."""

import shlex
from pathlib import Path

import pytest

from effnet.cli import main
from effnet.recipe import Recipe
from effnet.recipe.catalog import Layer, compose, find_recipe
from effnet.recipe.contradictions import FLAG, check_together

REFUSED = [
    ("--resume X --pretrained-from-file Y", "--resume X and --pretrained-from-file Y"),
    ("--resume X --pretrained", "--resume X and --pretrained contradict"),
    ("--pretrained --pretrained-from-file Y", "--pretrained and --pretrained-from-file Y"),
    ("--evaluate --training-only", "--evaluate and --training-only"),
    ("--training-only --early-stopping-patience 3", "--training-only and --early-stopping-patience 3"),
    ("--training-only --best-metric loss", "--training-only and --best-metric loss"),
    ("--lr 0.1 --base-lr 0.2", "--lr 0.1 and --base-lr 0.2"),
    ("--no-checkpoints --gather-checkpoints 3", "--no-checkpoints and --gather-checkpoints 3"),
    ("--static-loss-scale 128 --precision bf16", "--static-loss-scale 128 needs --precision fp16 or amp"),
    ("--initial-loss-scale 128", "--initial-loss-scale 128 needs --precision fp16 or amp"),
    ("--cuda-graphs on", "--cuda-graphs on needs --compile"),
    ("--cuda-graphs on --compile --device cpu", "--cuda-graphs on and --device cpu"),
    ("--per-class a.csv", "--per-class a.csv is for evaluation; give --evaluate"),
    ("--confusion a.png", "--confusion a.png is for evaluation; give --evaluate"),
    ("--engine torch", "--engine torch is for evaluation; give --evaluate"),
    ("--json", "--json is for evaluation; give --evaluate"),
    ("--reliability a.png", "--reliability a.png is for evaluation; give --evaluate"),
    ("--evaluate --per-class a --confusion a", "--per-class a and --confusion a"),
    ("--evaluate --reliability a --confusion a", "--confusion a and --reliability a"),
    ("--pretrained-source timm", "--pretrained-source timm needs --pretrained"),
    ("--freeze backbone", "--freeze backbone needs weights"),
    ("--pretrained --freeze backbone --backbone-lr-factor 0.1", "no effect with --freeze backbone"),
    ("--pretrained --freeze backbone --layer-decay 0.8", "no effect with --freeze backbone"),
    ("--freeze 3", "--freeze 3 needs weights"),
    ("--bn-statistics weights", "--bn-statistics weights needs weights"),
    ("--probe", "--probe needs weights"),
    ("--unfreeze-every 1", "--unfreeze-every 1 needs --freeze"),
    ("--adamw-betas 0.8 0.9", "--adamw-betas 0.8 0.9 goes with --optimizer adamw"),
    ("--adamw-eps 0.1", "--adamw-eps 0.1 goes with --optimizer adamw"),
    ("--optimizer sgd --rmsprop-eps 0.1", "--rmsprop-eps 0.1 goes with --optimizer rmsprop"),
    ("--augmentation none --augmentation-strength 2", "no effect with --augmentation none"),
    ("--teacher-weight 0.5", "--teacher-weight 0.5 needs --teacher"),
    ("--teacher-temperature 2", "--teacher-temperature 2 needs --teacher"),
    ("--warmup 20 --epochs 10", "--warmup 20 is longer than --epochs 10"),
    ("--check-images --on-bad-image skip", "--check-images and --on-bad-image skip"),
    ("--checkpoint-filename model_best.pth.tar", "--checkpoint-filename model_best.pth.tar"),
    ("--checkpoint-filename checkpoint_0001.pth.tar", "--checkpoint-filename checkpoint_0001.pth.tar"),
    ("--checkpoint-filename report.json", "--checkpoint-filename and --report-file are both report.json"),
]
REFUSED_BY_QUANTIZE = [
    ("--skip-calibration --calib-batches 3", "--skip-calibration and --calib-batches 3"),
    ("--calib-method max --calib-percentile 99", "--calib-percentile 99 goes with --calib-method percentile"),
    ("--no-reduce-range", "--no-reduce-range is for --target onnxruntime or openvino"),
    ("--cpu any", "--cpu any is for --target onnxruntime or openvino"),
    ("--target openvino --cpu any --reduce-range", "--cpu any and --reduce-range contradict each other"),
    ("--freeze-bn 5 --epochs 2", "--freeze-bn 5 is longer than --epochs 2"),
]


@pytest.mark.parametrize(
    ("command", "flags", "words"),
    [("train", *row) for row in REFUSED] + [("quantize", *row) for row in REFUSED_BY_QUANTIZE],
)
def test_contradicting_flags(
    command: str,
    flags: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([command, "no-such-folder", *shlex.split(flags)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "values",
    [
        {"resume": "auto", "pretrained_from_file": "w.pth"},  # the same command again after an interruption
        {"precision": "amp", "static_loss_scale": 256.0},
        {"evaluate": True, "per_class": "a.csv", "epochs": 1},
        {"warmup": 16.0, "epochs": 0},
    ],
)
def test_what_goes_together(values: dict[str, object]) -> None:
    recipe, sources = compose([Layer(FLAG, values)])
    check_together(recipe, sources)


@pytest.mark.parametrize(
    ("of_file", "of_flags"),
    [
        ({"pretrained": True}, {"resume": "c.pth.tar"}),
        ({"early_stopping_patience": 3}, {"training_only": True}),
        ({"static_loss_scale": 256.0, "precision": "amp"}, {"precision": "fp32"}),
        ({"lr": 0.1}, {"lr": None, "base_lr": 0.2}),
    ],
)
def test_a_flag_may_make_a_file_pointless(of_file: dict[str, object], of_flags: dict[str, object]) -> None:
    check_together(*compose([Layer("r.yaml", of_file), Layer(FLAG, of_flags)]))


def test_published_recipes_agree_with_themselves() -> None:
    for name in (
        "finetune",
        "sample",
        "efficientnet-b0/DGXA100/AMP",
        "efficientnet-quant-b0/T4/FP32/evaluate",
    ):
        check_together(*compose(find_recipe(name).layers))
    check_together(Recipe(), {})
