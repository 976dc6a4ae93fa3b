"""Flags are the recipe's settings, under NVIDIA's names."""

import argparse

import pytest

from effnet.cli.commands import command_parser
from effnet.cli.flags import Parser, add_recipe_flags, field_docs, given_settings
from effnet.recipe import Recipe, settings
from effnet.runtime.errors import UserError


def parse(*arguments: str) -> dict[str, object]:
    parser = Parser(prog="effnet train")
    parser.add_argument("dir", nargs="?")
    add_recipe_flags(parser)
    return given_settings(parser.parse_args(arguments))


# Every flag of NVIDIA's README and scripts, with the setting it becomes.
REFERENCE_FLAGS = [
    ("--arch efficientnet-b4", {"arch": "efficientnet-b4"}),
    ("-a efficientnet-b4", {"arch": "efficientnet-b4"}),
    ("--data-backend synthetic", {"data_backend": "synthetic"}),
    ("--data-backends synthetic", {"data_backend": "synthetic"}),
    ("--interpolation bilinear", {"interpolation": "bilinear"}),
    ("-j 3", {"workers": 3}),
    ("--workers 3", {"workers": 3}),
    ("--prefetch 4", {"prefetch": 4}),
    ("--epochs 5", {"epochs": 5}),
    ("--run-epochs 5", {"run_epochs": 5}),
    ("--early-stopping-patience 5", {"early_stopping_patience": 5}),
    ("--image-size 96", {"image_size": 96}),
    ("-b 7", {"batch_size": 7}),
    ("--batch-size 7", {"batch_size": 7}),
    ("--batch_size 7", {"batch_size": 7}),
    ("--optimizer-batch-size 4096", {"optimizer_batch_size": 4096}),
    ("--lr 0.5", {"lr": 0.5}),
    ("--learning-rate 0.5", {"lr": 0.5}),
    ("--lr-schedule linear", {"lr_schedule": "linear"}),
    ("--end-lr 1e-5", {"end_lr": 1e-5}),
    ("--warmup 8", {"warmup": 8.0}),
    ("--label-smoothing 0.1", {"label_smoothing": 0.1}),
    ("--mixup 0.2", {"mixup": 0.2}),
    ("--optimizer sgd", {"optimizer": "sgd"}),
    ("--momentum 0.8", {"momentum": 0.8}),
    ("--weight-decay 1e-4", {"weight_decay": 1e-4}),
    ("--wd 1e-4", {"weight_decay": 1e-4}),
    ("--bn-weight-decay", {"bn_weight_decay": True}),
    ("--rmsprop-alpha 0.8", {"rmsprop_alpha": 0.8}),
    ("--rmsprop-eps 1e-2", {"rmsprop_eps": 1e-2}),
    ("--nesterov", {"nesterov": True}),
    ("-p 20", {"print_freq": 20}),
    ("--print-freq 20", {"print_freq": 20}),
    ("--resume c.pth.tar", {"resume": "c.pth.tar"}),
    ("--static-loss-scale 256", {"static_loss_scale": 256.0}),
    ("--prof 100", {"prof": 100}),
    ("--amp", {"precision": "amp"}),
    ("--seed 3", {"seed": 3}),
    ("--gather-checkpoints 5", {"gather_checkpoints": 5}),
    ("--raport-file r.json", {"report_file": "r.json"}),
    ("--report-file r.json", {"report_file": "r.json"}),
    ("--evaluate", {"evaluate": True}),
    ("--training-only", {"training_only": True}),
    ("--no-checkpoints", {"no_checkpoints": True}),
    ("--checkpoint-filename c", {"checkpoint_filename": "c"}),
    ("--workspace w", {"workspace": "w"}),
    ("--memory-format nchw", {"memory_format": "nchw"}),
    ("--use-ema 0.999", {"use_ema": 0.999}),
    ("--augmentation autoaugment", {"augmentation": "autoaugment"}),
    ("--gpu-affinity none", {"gpu_affinity": "none"}),
    ("--topk 3", {"topk": 3}),
    ("--pretrained", {"pretrained": True}),
    ("--pretrained-from-file w.pth", {"pretrained_from_file": "w.pth"}),
    ("--num-classes 10", {"num_classes": 10}),
    ("--num_classes 10", {"num_classes": 10}),
    ("--dropout 0.3", {"dropout": 0.3}),
    ("--survival-prob 0.9", {"survival_prob": 0.9}),
    ("--bn-momentum 0.1", {"bn_momentum": 0.1}),
    ("--bn-epsilon 1e-5", {"bn_epsilon": 1e-5}),
    ("--conv-init fan_out", {"conv_init": "fan_out"}),
    ("--jit script", {}),
    ("--device cpu", {"device": "cpu"}),
    ("--precision bf16", {"precision": "bf16"}),
    ("--compile", {"compile": True}),
    ("--crop-scale 0.2 1", {"crop_scale": [0.2, 1.0]}),
]


@pytest.mark.parametrize(("flags", "expected"), REFERENCE_FLAGS)
def test_reference_flags(flags: str, expected: dict[str, object]) -> None:
    assert parse(*flags.split(), "DIR") == expected
    Recipe().replace(expected)


def test_every_setting_has_a_flag_and_a_docstring() -> None:
    parser = Parser()
    add_recipe_flags(parser)
    destinations = {action.dest for action in parser._actions}
    for _, cls, leaf in settings():
        assert leaf.name in destinations
        assert field_docs(cls)[leaf.name], leaf.name


def test_help_shows_groups_defaults_and_units() -> None:
    parser = Parser(prog="effnet train")
    add_recipe_flags(parser)
    text = " ".join(parser.format_help().split())
    for words in ("Optimizer and loss", "[default: 0.2]", "--image-size PIXELS", "[default: the model's"):
        assert words in text


def test_leaf_names_are_unique() -> None:
    names = [leaf.name for _, _, leaf in settings()]
    assert len(names) == len(set(names))


def test_settings_that_are_not_given_are_absent() -> None:
    assert parse("DIR") == {}
    assert given_settings(argparse.Namespace(dir="x", lr=1.0)) == {"lr": 1.0}


ORDERS = {
    "evaluate": [
        "DIR MODEL --batch-size 4 --json",
        "--json DIR --batch_size 4 MODEL",
        "DIR --batch-size=4 --json MODEL",
    ],
    "classify": ["a.jpg b.jpg - --topk 3", "a.jpg --topk 3 b.jpg -", "--topk 3 a.jpg b.jpg -"],
    "prepare": [
        "pack DIR OUT --size 64 --raw",
        "pack --raw DIR --size 64 OUT",
        "pack DIR --raw OUT --size 64",
    ],
    "export": ["onnx --trt True --output a.onnx", "onnx --output a.onnx --trt True"],
}


@pytest.mark.parametrize("command", ORDERS)
def test_flags_stand_anywhere(command: str) -> None:
    first, *others = [
        vars(command_parser().parse_args([command, *order.split()])) for order in ORDERS[command]
    ]
    for other in others:
        assert other == first


def test_a_name_that_looks_like_a_flag_comes_after_two_dashes() -> None:
    assert command_parser().parse_args(["classify", "--topk", "3", "--", "-a.jpg", "--b.jpg"]).images == [
        "-a.jpg",
        "--b.jpg",
    ]


@pytest.mark.parametrize(
    "arguments", ["evaluate DIR MODEL --json MORE", "train DIR --amp MORE", "models MORE"]
)
def test_one_argument_too_many(arguments: str) -> None:
    with pytest.raises(UserError, match="unknown argument MORE"):
        command_parser().parse_args(arguments.split())


@pytest.mark.parametrize("arguments", ["prepare pack DIR --raw", "export weights --weight-path a.pth"])
def test_a_missing_argument_is_named(arguments: str) -> None:
    with pytest.raises(UserError, match="required: (OUT|out|--checkpoint-path)"):
        command_parser().parse_args(arguments.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--optimzer", "sgd"], "did you mean --optimizer"),
        (["--epochs", "many"], "--epochs"),
        (["--optimizer", "adam"], "--optimizer"),
    ],
)
def test_errors_name_the_flag(arguments: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse(*arguments)
