"""`config.json` beside weights on the hub, in both directions: what timm reads, and our metadata under `effnet`."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from effnet.models.config import MODEL_CONFIGS, ModelConfig, Padding
from effnet.runtime.errors import UserError, one_line
from effnet.runtime.plain import parse_json
from effnet.weights.metadata import IMAGENET, WeightsMetadata

_OWN = "effnet"
_LARGEST = 16 << 20  # bytes; the names of 100,000 classes fit
_PADDINGS: dict[Padding, str] = {"same": "same", "symmetric": ""}
_INTERPOLATIONS = {"triangular": "bilinear"}  # DALI's name, which timm does not know


def timm_name(config: ModelConfig) -> str | None:
    """Return timm's name of a model, whose network timm builds with the arguments of `to_config`; None if it has none.

    Args:
        config: timm has the models with a squeeze width of their block's input or without any, and none quantized.
    """
    if config.quantized or config.squeeze_width == "expanded":
        return None
    name = config.name.replace("efficientnet-v2-", "efficientnetv2-").replace("-", "_")
    return f"tf_{name}" if config.padding == "same" or "v2" in name else name


def to_config(config: ModelConfig, metadata: WeightsMetadata) -> dict[str, Any]:
    """Return the values of `config.json`.

    Args:
        config: of the model, as it is built.
        metadata: of its weights.

    Returns:
        Plain values: timm's, with our name for a model that timm lacks, and all of our metadata under ``effnet``.
    """
    preprocessing = metadata.preprocessing
    size, folders, names = preprocessing["image_size"], metadata.class_folders(), metadata.class_names()
    interpolation = preprocessing["interpolation"]
    values: dict[str, Any] = {
        "architecture": timm_name(config) or config.name,
        "num_classes": config.num_classes,
        "num_features": config.head_channels,
        "global_pool": "avg",
        "model_args": {"bn_eps": config.bn_epsilon, "pad_type": _PADDINGS[config.padding]},
        "pretrained_cfg": {
            "input_size": [3, size, size],
            "fixed_input_size": False,
            "interpolation": _INTERPOLATIONS.get(interpolation, interpolation),
            "crop_pct": _crop_share(size, preprocessing["resize"]),
            "crop_mode": "center",
            "mean": list(preprocessing["mean"]),
            "std": list(preprocessing["std"]),
            "num_classes": config.num_classes,
            "first_conv": "conv_stem",
            "classifier": "classifier",
            "license": metadata.licence,
        },
        _OWN: metadata.to_dict(),
    }
    if folders:
        values["label_names"] = list(folders)
        if folders != names:
            values["label_descriptions"] = dict(zip(folders, names, strict=True))
    return values


def _crop_share(size: int, resize: int) -> float:
    """Return the share from which timm, rounding down, finds the same size before the crop."""
    share = size / resize
    return share if math.floor(size / share) == resize else math.nextafter(share, 0.0)


def metadata_beside(path: Path) -> WeightsMetadata | None:
    """Return the metadata in `config.json` beside a file of weights, ours or else timm's; None if there are none.

    Raises:
        UserError: the file can't be used, or is of a model that this package lacks; it is named.
    """
    file = path.with_name("config.json")
    if not file.is_file():
        return None
    try:
        if file.stat().st_size > _LARGEST:
            raise UserError(f"more than {_LARGEST >> 20} MiB")
        return _metadata(parse_json(file.read_bytes(), characters=_LARGEST))
    except (UserError, OSError) as error:
        raise UserError(f"{file}: {one_line(error)}") from None


def _metadata(values: object) -> WeightsMetadata | None:
    if not isinstance(values, Mapping):
        raise UserError(f"holds a {type(values).__name__}, not named values")
    if _OWN in values:
        return WeightsMetadata.from_dict(values[_OWN])
    architecture = values.get("architecture")
    if not isinstance(architecture, str):
        return None
    model = our_name(architecture)
    if model not in MODEL_CONFIGS:
        raise UserError(
            f"of the model {one_line(repr(architecture))}, which is none of those that `effnet models` lists"
        )
    try:
        return _of_timm(values, model, architecture.startswith("tf_"))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError) as error:
        raise UserError(f"has a value that can't be used: {one_line(error)}") from None


def our_name(builder: str) -> str:
    """Return our name of one of timm's models, which need not exist."""
    name = builder.removeprefix("tf_").partition(".")[0]
    return name.replace("efficientnetv2", "efficientnet_v2").replace("_", "-")


def _of_timm(values: Mapping[str, Any], model: str, from_tensorflow: bool) -> WeightsMetadata:
    """Return the metadata that timm's values stand for; any error of a wrong type or value may be raised."""
    given, arguments = values["pretrained_cfg"], values.get("model_args") or {}
    size = int(given.get("test_input_size", given["input_size"])[-1])
    crop = given.get("test_crop_pct", given.get("crop_pct", 0.875))
    labels = values.get("label_names") or given.get("label_names") or ()
    count = values.get("num_classes", given.get("num_classes"))
    is_imagenet = not labels and count == 1000 and str(given.get("tag", "")).endswith("in1k")
    padding: Padding = "same" if from_tensorflow else "symmetric"
    if "pad_type" in arguments:
        padding = "same" if arguments["pad_type"] == "same" else "symmetric"
    return WeightsMetadata(
        model=model,
        preprocessing={
            "image_size": size,
            "resize": math.floor(size / crop),
            "interpolation": given.get("interpolation", "bicubic"),
            "mean": list(given["mean"]),
            "std": list(given["std"]),
        },
        licence=str(given.get("license") or ""),
        bn_epsilon=arguments.get("bn_eps", 1e-3 if from_tensorflow else 1e-5),
        padding=padding,
        class_list=IMAGENET if is_imagenet else None,
        classes=tuple(labels),
    )
