"""The bare command's defaults are the document's default configuration."""

import pytest

from effnet.recipe import Recipe
from effnet.training.defaults import resolve


def resolved(arch: str, world_size: int = 1, **values: object) -> Recipe:
    return resolve(Recipe().replace({"arch": arch, **values}), num_classes=1000, world_size=world_size)


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
def test_document_s_configuration(arch: str, base_lr: float, weight_decay: float) -> None:
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


def test_everything_that_bears_on_training_is_settled() -> None:
    recipe = resolved("efficientnet-b4").to_dict()
    for group, open_settings in {
        "model": {"pretrained_source", "pretrained_from_file"},
        "data": {"workers", "interpolation", "resize", "class_map"},
        "optimizer": {"use_ema"},
        "schedule": {"early_stopping_patience"},
    }.items():
        assert {name for name, value in recipe[group].items() if value is None} == open_settings
