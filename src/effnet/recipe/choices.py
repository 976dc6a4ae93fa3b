"""Names that settings offer: one list for each kind of thing that can be added to the project.

The implementations need PyTorch and lie in the packages above this one; flags, YAML files and `--help` need the names
alone. Each list has one registry (`effnet.runtime.registry`), which refuses to be built from other names than these.
The order is that of the help and of the tables in `docs/choices.md`.
"""

from typing import Literal

AugmentationName = Literal["none", "autoaugment", "autoaugment-torchvision", "randaugment", "trivialaugment"]
"""modules of `effnet.data.augmentations`"""

BackendName = Literal["pytorch", "dali-cpu", "dali-gpu", "packed", "synthetic"]
"""modules of `effnet.data.backends`"""

SourceName = Literal["datasets", "folder", "single-folder", "table", "archive"]
"""modules of `effnet.data.sources`, in the order in which ``auto`` looks"""

OptimizerName = Literal["rmsprop", "sgd", "adamw"]
"""rows of `effnet.training.optimizers`"""

ScheduleName = Literal["cosine", "linear", "step"]
"""rows of `effnet.training.schedule`"""

LossName = Literal["cross-entropy", "focal"]
"""rows of `effnet.training.losses`"""

SamplerName = Literal["none", "balanced", "weighted"]
"""rows of `effnet.data.sampling`"""

MetricName = Literal[
    "loss",
    "top1",
    "topk",
    "balanced_accuracy",
    "precision",
    "recall",
    "f1",
    "precision_weighted",
    "recall_weighted",
    "f1_weighted",
    "average_precision",
    "auroc",
    "ece",
]
"""rows of `effnet.training.metrics`"""

OnnxTargetName = Literal["tensorrt", "onnxruntime", "openvino"]
"""those of `TargetName` that read ONNX"""

TargetName = Literal[OnnxTargetName, "litert", "executorch"]
"""rows of `effnet.quantization.targets`"""

DecodeName = Literal["none", "resize", "jpeg"]
"""steps of an exported graph before it normalises: none, validation's resize and crop, or decoding and these"""

FeaturesName = Literal["pooled", "map"]
"""features that an exported graph returns: the head's mean over height and width, or the head's output"""

EngineName = Literal["tensorrt", "openvino", "onnxruntime", "torch-compiled", "torch", "litert"]
"""modules of `effnet.inference.engines`, in the order in which ``auto`` takes them where it measures nothing"""

ViewsName = Literal["none", "flip", "five", "ten"]
"""rows of `effnet.data.views`"""

OutputFormatName = Literal["parquet", "csv", "jsonl"]
"""modules of `effnet.inference.predict.formats`: suffixes of the file that ``effnet predict`` writes"""

HeatMapName = Literal["grad-cam", "layer-cam"]
"""rows of `effnet.inference.heat_maps`"""

TrackerName = Literal["tensorboard", "mlflow", "wandb"]
"""modules of `effnet.training.trackers`"""
