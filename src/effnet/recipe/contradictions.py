"""Settings that contradict each other, or that have no effect beside others: refused, with both named.

A recipe file may hold what a flag makes pointless, such as a patience beside ``--training-only``. So a contradiction
counts if both settings come from flags or neither does, and a setting without effect if it is a flag.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from effnet.recipe.given import Recipe, settings
from effnet.runtime.errors import UserError

FLAG = "flag"
"""source of a setting that the command line gives"""

_Values = Mapping[str, Any]


@dataclass(frozen=True)
class _Contradiction:
    """Two settings of which a run can have one."""

    first: str
    second: str
    holds: Callable[[_Values], bool]


@dataclass(frozen=True)
class _Idle:
    """A setting without effect. The message is its flag, then `words`, in which ``{name}`` is another setting."""

    name: str
    holds: Callable[[_Values], bool]
    words: str


def _both(first: str, second: str) -> _Contradiction:
    """Return the contradiction of two settings that are both given and neither False."""
    return _Contradiction(first, second, lambda v: bool(v[first]) and bool(v[second]))


def _same_file(first: str, second: str) -> _Contradiction:
    """Return the row of two settings that must not name the same file."""
    return _Contradiction(first, second, lambda v: v[first] == v[second] is not None)


def _names_checkpoint(values: _Values) -> bool:
    """Return True for a checkpoint to resume; ``auto`` may find none, and then needs weights to start from."""
    return values["resume"] not in (None, "auto")


def _starts_fresh(values: _Values) -> bool:
    return not (values["pretrained"] or values["pretrained_from_file"] or values["resume"])


def _trains_classifier_alone(values: _Values) -> bool:
    return values["freeze"] == "backbone" and values["unfreeze_every"] is None


_CONTRADICTIONS = (
    _Contradiction("resume", "pretrained", lambda v: _names_checkpoint(v) and v["pretrained"]),
    _Contradiction(
        "resume", "pretrained_from_file", lambda v: _names_checkpoint(v) and bool(v["pretrained_from_file"])
    ),
    _both("pretrained", "pretrained_from_file"),
    _both("evaluate", "training_only"),
    _both("training_only", "early_stopping_patience"),
    _both("average_last", "early_stopping_patience"),
    _both("training_only", "best_metric"),
    _both("training_only", "folds"),
    _both("evaluate", "folds"),
    _both("run_epochs", "folds"),
    _both("lr", "base_lr"),
    _both("no_checkpoints", "gather_checkpoints"),
    _both("static_loss_scale", "initial_loss_scale"),
    _both("skip_calibration", "calib_method"),
    _both("skip_calibration", "calib_percentile"),
    _both("skip_calibration", "calib_batches"),
    _both("skip_calibration", "calib_data"),
    _both("skip_calibration", "rounding"),
    _both("cpu", "reduce_range"),
    _Contradiction(
        "check_images", "on_bad_image", lambda v: v["check_images"] and v["on_bad_image"] == "skip"
    ),
    _same_file("per_class", "confusion"),
    _same_file("per_class", "reliability"),
    _same_file("confusion", "reliability"),
    # Of classes that are shown equally often there is no preference to take away.
    _Contradiction(
        "sampler", "logit_adjustment", lambda v: v["sampler"] == "balanced" and v["logit_adjustment"] > 0
    ),
    _Contradiction(
        "ranking_metrics",
        "best_metric",
        lambda v: v["ranking_metrics"] == "off" and v["best_metric"] in ("average_precision", "auroc"),
    ),
    _Contradiction("cuda_graphs", "device", lambda v: v["cuda_graphs"] == "on" and v["device"] == "cpu"),
)

_FOR_EVALUATION = "is for evaluation; give --evaluate, or `effnet evaluate`"
_FOR_WEIGHTS = "needs weights; give --pretrained, --pretrained-from-file or --resume"
_FOR_BACKBONE = "has no effect with --freeze backbone; give one"
_FOR_FP16 = "needs --precision fp16 or amp"


def _has_one_width(values: Mapping[str, Any]) -> bool:
    """Return True for targets whose weights have 8 bits in any case."""
    return values["target"] not in ("onnxruntime", "openvino")


_IDLE = (
    _Idle("cuda_graphs", lambda v: v["cuda_graphs"] == "on" and not v["compile"], "needs --compile"),
    _Idle("per_class", lambda v: not v["evaluate"], _FOR_EVALUATION),
    _Idle("confusion", lambda v: not v["evaluate"], _FOR_EVALUATION),
    _Idle("reliability", lambda v: not v["evaluate"], _FOR_EVALUATION),
    _Idle("engine", lambda v: not v["evaluate"], _FOR_EVALUATION),
    _Idle("tta", lambda v: v["tta"] != "none" and not v["evaluate"], _FOR_EVALUATION),
    _Idle("track", lambda v: v["evaluate"] or v["epochs"] == 0, "follows a training; here is none"),
    _Idle("static_loss_scale", lambda v: v["precision"] not in ("fp16", "amp"), _FOR_FP16),
    _Idle("initial_loss_scale", lambda v: v["precision"] not in ("fp16", "amp"), _FOR_FP16),
    _Idle("pretrained_source", lambda v: not v["pretrained"], "needs --pretrained"),
    _Idle(
        "freeze",
        lambda v: v["freeze"] != "none" and _starts_fresh(v),
        _FOR_WEIGHTS,
    ),
    _Idle("bn_statistics", lambda v: v["bn_statistics"] == "weights" and _starts_fresh(v), _FOR_WEIGHTS),
    _Idle("probe", lambda v: v["probe"] and _starts_fresh(v), _FOR_WEIGHTS),
    _Idle("unfreeze_every", lambda v: v["freeze"] == "none", "needs --freeze"),
    _Idle("backbone_lr_factor", _trains_classifier_alone, _FOR_BACKBONE),
    _Idle("layer_decay", _trains_classifier_alone, _FOR_BACKBONE),
    _Idle("adamw_betas", lambda v: v["optimizer"] != "adamw", "goes with --optimizer adamw"),
    _Idle("adamw_eps", lambda v: v["optimizer"] != "adamw", "goes with --optimizer adamw"),
    _Idle("focal_gamma", lambda v: v["loss"] != "focal", "goes with --loss focal"),
    _Idle("rmsprop_alpha", lambda v: v["optimizer"] != "rmsprop", "goes with --optimizer rmsprop"),
    _Idle("rmsprop_eps", lambda v: v["optimizer"] != "rmsprop", "goes with --optimizer rmsprop"),
    _Idle(
        "augmentation_strength",
        lambda v: v["augmentation"] == "none",
        "has no effect with --augmentation none; give one",
    ),
    _Idle("teacher_weight", lambda v: v["teacher"] is None, "needs --teacher"),
    _Idle("teacher_temperature", lambda v: v["teacher"] is None, "needs --teacher"),
    _Idle("val_split", lambda v: v["folds"] is not None, "has no effect with --folds; give one"),
    _Idle("warmup", lambda v: v["warmup"] > v["epochs"] > 0, "is longer than --epochs {epochs}"),
    _Idle("freeze_bn", lambda v: v["freeze_bn"] > v["epochs"] > 0, "is longer than --epochs {epochs}"),
    _Idle(
        "calib_percentile", lambda v: v["calib_method"] != "percentile", "goes with --calib-method percentile"
    ),
    _Idle("cpu", _has_one_width, "is for --target onnxruntime or openvino"),
    _Idle("reduce_range", _has_one_width, "is for --target onnxruntime or openvino"),
)


def check_together(recipe: Recipe, sources: Mapping[str, str]) -> None:
    """Refuse settings that contradict each other or have no effect.

    Args:
        recipe: settings as given.
        sources: source of each setting that does not have its default, `FLAG` for flags.

    Raises:
        UserError: both settings are named.
    """
    values = {leaf.name: getattr(getattr(recipe, group), leaf.name) for group, _, leaf in settings()}
    for pair in _CONTRADICTIONS:
        given = [sources[name] == FLAG for name in (pair.first, pair.second) if name in sources]
        if len(given) == 2 and given[0] == given[1] and pair.holds(values):
            first, second = _flag(pair.first, values), _flag(pair.second, values)
            raise UserError(f"{first} and {second} contradict each other; give one")
    for row in _IDLE:
        if sources.get(row.name) == FLAG and values[row.name] is not None and row.holds(values):
            raise UserError(f"{_flag(row.name, values)} {row.words.format_map(values)}")


def _flag(name: str, values: _Values) -> str:
    value, flag = values[name], "--" + name.replace("_", "-")
    if isinstance(value, bool):
        return flag if value else flag.replace("--", "--no-", 1)
    if isinstance(value, tuple):
        return f"{flag} {' '.join(map(str, value))}"
    return f"{flag} {value:g}" if isinstance(value, float) else f"{flag} {value}"
