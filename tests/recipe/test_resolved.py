"""Open settings are filled in from NVIDIA's default configuration, the weights, the data and the machine."""

import types
import typing
from dataclasses import fields, replace
from typing import Any

import pytest

from effnet.models import list_models
from effnet.recipe import Recipe, ResolvedRecipe, WeightsFacts
from effnet.runtime.errors import UserError
from effnet.training.facts import facts_of

WEIGHTS = WeightsFacts(image_size=240, resize=300, interpolation="bilinear", bn_epsilon=1e-5)


def resolved(
    arch: str,
    world_size: int = 1,
    weights: WeightsFacts | None = None,
    checkpoint: str | None = None,
    **values: object,
) -> ResolvedRecipe:
    recipe = Recipe().replace({"arch": arch, **values})
    facts = facts_of(recipe, precision="bf16", num_classes=1000, world_size=world_size, resume=checkpoint)
    return recipe.resolve(replace(facts, workers=3, weights=weights))


@pytest.mark.parametrize(
    ("arch", "base_lr", "weight_decay"),
    [
        ("efficientnet-b0", 0.08, 1e-5),
        ("efficientnet-widese-b0", 0.08, 1e-5),
        ("efficientnet-b4", 0.16, 5e-6),
        ("efficientnet-widese-b4", 0.16, 5e-6),
        ("efficientnet-lite4", 0.08, 1e-5),
    ],
)
def test_nvidia_s_configuration(arch: str, base_lr: float, weight_decay: float) -> None:
    recipe = resolved(arch, batch_size=4096)
    assert recipe.optimizer.lr == pytest.approx(base_lr)
    assert recipe.optimizer.weight_decay == weight_decay
    assert (recipe.optimizer.optimizer, recipe.optimizer.momentum) == ("rmsprop", 0.9)
    assert (recipe.optimizer.label_smoothing, recipe.data.mixup) == (0.1, 0.2)
    assert (recipe.schedule.lr_schedule, recipe.schedule.warmup, recipe.schedule.epochs) == (
        "cosine",
        16,
        400,
    )
    assert not recipe.optimizer.bn_weight_decay
    assert recipe.optimizer.rmsprop_eps == 0.01
    assert recipe.data.augmentation == "autoaugment"
    assert (recipe.data.crop_scale, recipe.data.crop_ratio) == ((0.08, 1.0), (3 / 4, 4 / 3))


@pytest.mark.parametrize(
    ("given", "overflows", "is_reduced"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"cpu": "any"}, False, True),
        ({"cpu": "vnni"}, True, False),
        ({"reduce_range": True}, False, True),
        ({"reduce_range": False}, True, False),
        ({"cpu": "any", "reduce_range": False}, False, True),
    ],
)
def test_weights_are_as_wide_as_the_cpu_allows(
    given: dict[str, Any], overflows: bool, is_reduced: bool
) -> None:
    recipe = Recipe().replace({"arch": "efficientnet-quant-b0", "target": "openvino", **given})
    facts = facts_of(recipe, precision="fp32", num_classes=10, world_size=1)
    found = recipe.resolve(replace(facts, sums_overflow=overflows))
    assert found.quantization.reduce_range is is_reduced
    again = Recipe.from_dict(found.to_dict())  # on another machine, as a checkpoint brings it
    assert again.resolve(replace(facts, sums_overflow=not overflows)).quantization.reduce_range is is_reduced


def test_weights_are_rounded_to_nearest_where_they_are_trained_or_examined() -> None:
    assert resolved("efficientnet-quant-b0", epochs=0).quantization.rounding == "gptq"
    assert resolved("efficientnet-quant-b0", epochs=1).quantization.rounding == "nearest"
    assert resolved("efficientnet-quant-b0", epochs=0, sensitivity=True).quantization.rounding == "nearest"
    assert resolved("efficientnet-quant-b0", epochs=1, rounding="gptq").quantization.rounding == "gptq"


def test_learning_rate_is_scaled_to_the_global_batch() -> None:
    assert resolved("efficientnet-b0", batch_size=64).optimizer.lr == pytest.approx(0.08 * 64 / 4096)
    assert resolved("efficientnet-b0", world_size=8, batch_size=256).optimizer.lr == pytest.approx(0.04)
    accumulated = resolved("efficientnet-b0", world_size=8, batch_size=128, optimizer_batch_size=4096)
    assert accumulated.optimizer.lr == pytest.approx(0.08)
    assert accumulated.optimizer.optimizer_batch_size == 4096


def test_what_is_given_stays() -> None:
    recipe = resolved("efficientnet-b0", lr=0.5, weight_decay=0.0, warmup=0.0, num_classes=7, image_size=96)
    assert recipe.optimizer.lr == 0.5
    assert recipe.optimizer.weight_decay == 0.0
    assert recipe.schedule.warmup == 0.0
    assert (recipe.model.num_classes, recipe.model.image_size) == (7, 96)


def test_short_runs_warm_up_for_a_tenth() -> None:
    assert resolved("efficientnet-b0", epochs=20).schedule.warmup == pytest.approx(2.0)


def test_accumulation_fills_the_step() -> None:
    optimizer = resolved("efficientnet-b0", 8, batch_size=100, optimizer_batch_size=4096).optimizer
    assert optimizer.accumulation(8) == 5
    assert optimizer.optimizer_batch_size == 4000
    assert resolved("efficientnet-b0", 8, batch_size=100).optimizer.accumulation(8) == 1


def test_the_machine_fills_in_precision_and_workers() -> None:
    recipe = resolved("efficientnet-b0", precision="amp")
    assert (recipe.compute.precision, recipe.data.workers) == ("bf16", 3)
    assert resolved("efficientnet-b0", workers=0).data.workers == 0


@pytest.mark.parametrize(
    ("weights", "values", "expected"),
    [
        (None, {}, (224, 256, "bicubic", 1e-3)),
        (None, {"image_size": 32}, (32, 37, "bicubic", 1e-3)),
        (None, {"image_size": 300}, (300, 332, "bicubic", 1e-3)),
        (WEIGHTS, {}, (240, 300, "bilinear", 1e-5)),
        (WEIGHTS, {"image_size": 120}, (120, 150, "bilinear", 1e-5)),
        (WEIGHTS, {"resize": 280, "interpolation": "nearest", "bn_epsilon": 0.1}, (240, 280, "nearest", 0.1)),
    ],
)
def test_weights_fill_in_the_input(
    weights: WeightsFacts | None, values: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    recipe = resolved("efficientnet-b0", weights=weights, **values)
    found = recipe.model.image_size, recipe.data.resize, recipe.data.interpolation, recipe.model.bn_epsilon
    assert found == expected


def test_weights_out_of_range_are_refused() -> None:
    with pytest.raises(UserError, match="--image-size must be at least 32 and at most 4096, not 16"):
        resolved("efficientnet-b0", weights=replace(WEIGHTS, image_size=16))


def test_the_checkpoint_is_that_of_the_facts() -> None:
    assert resolved("efficientnet-b0", resume="auto").run.resume is None
    recipe = resolved("efficientnet-b0", resume="auto", checkpoint="run/checkpoint.pth.tar")
    assert recipe.run.resume == "run/checkpoint.pth.tar"


# Of the settings that may be None in a resolved recipe, what None means there is in its docstring.
NONE_IS_A_VALUE = {
    "pretrained_source",
    "pretrained_from_file",
    "class_map",
    "progressive_sizes",
    "clip_grad",
    "fold",
    "folds",
    "fold_column",
    "group_column",
    "label_column",
    "label_separator",
    "path_column",
    "root",
    "split_column",
    "weight_column",
    "teacher",
    "unfreeze_every",
    "use_ema",
    "early_stopping_patience",
    "static_loss_scale",
    "resume",
    "prof",
    "checkpoint_every",
    "engine",
    "per_class",
    "confusion",
    "reliability",
    "calib_data",
}


def optional_settings(recipe: type) -> set[str]:
    return {
        leaf.name
        for group in fields(recipe)
        for leaf in fields(typing.cast(type, group.type))
        if types.NoneType in typing.get_args(leaf.type)
    }


def test_only_documented_settings_may_be_none() -> None:
    assert optional_settings(ResolvedRecipe) == NONE_IS_A_VALUE
    assert optional_settings(ResolvedRecipe) < optional_settings(Recipe)


@pytest.mark.parametrize("arch", list_models())
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_nothing_else_is_none(arch: str, weights: WeightsFacts | None) -> None:
    groups = resolved(arch, weights=weights).to_dict()
    assert {name for group in groups.values() for name, v in group.items() if v is None} == NONE_IS_A_VALUE


def test_both_recipes_are_written_alike() -> None:
    given, complete = Recipe().to_dict(), resolved("efficientnet-b0").to_dict()
    assert {group: list(values) for group, values in given.items()} == {
        group: list(values) for group, values in complete.items()
    }
    assert Recipe.from_dict(complete).to_dict() == complete


def test_a_resolved_setting_can_not_be_opened_again() -> None:
    recipe = resolved("efficientnet-b0")
    assert recipe.replace({"augmentation": "none"}).data.augmentation == "none"
    with pytest.raises(UserError, match="--lr must be of type float, not None"):
        recipe.replace({"lr": None})
