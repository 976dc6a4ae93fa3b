"""Validation's preprocessing as an ONNX file of its own."""

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from effnet.data.preprocessing import Preprocessing
from effnet.export.onnx_graph import tidy
from effnet.export.packages import load_package
from effnet.export.reference import example_images
from effnet.export.resize import ResizeAndCrop
from effnet.export.tracing import trace
from effnet.quantization.targets import TARGETS
from effnet.runtime.files import atomic_path
from effnet.training.step import Normalise

PREPARED = "prepared"
"""name of the output"""


class PreprocessingGraph(nn.Module):
    """Resize, crop and, on request, normalise images as validation does.

    Shapes: (N, H, W, 3) uint8, any H and W -> (N, 3, S, S) float32, normalised, or (N, S, S, 3) uint8.

    Args:
        preprocessing: sizes, filter, mean and standard deviation.
        as_bytes: leave the normalisation to the model.
    """

    def __init__(self, preprocessing: Preprocessing, *, as_bytes: bool) -> None:
        super().__init__()
        self.resize = ResizeAndCrop(preprocessing)
        self.normalise = None if as_bytes else Normalise(preprocessing)

    def forward(self, images: Tensor) -> Tensor:
        """Prepare images."""
        pixels = self.resize(images)
        if self.normalise is None:
            return pixels.permute(0, 2, 3, 1).to(torch.uint8)
        prepared: Tensor = self.normalise(pixels)
        return prepared


def export_preprocessing(preprocessing: Preprocessing, path: Path, *, as_bytes: bool) -> None:
    """Write the preprocessing as ONNX: ``images`` in, ``prepared`` out; see `PreprocessingGraph`.

    Args:
        preprocessing: its settings, which the file's metadata hold as JSON under ``preprocessing``.
        path: file to write, atomically.
        as_bytes: return bytes, without the normalisation.

    Raises:
        UserError: a package is missing, or the file can't be written.
    """
    onnx = load_package("onnx")
    opset = TARGETS["onnxruntime"].opset
    assert opset is not None
    # Height and width must differ, or they are taken for one size.
    square = example_images(preprocessing, 2, takes_bytes=True)
    names = ("batch", "height", "width")
    proto = trace(
        PreprocessingGraph(preprocessing, as_bytes=as_bytes).eval(),
        torch.cat([square, square[:, :, :3]], dim=2),
        opset=opset,
        open_sizes={axis: torch.export.Dim(name, min=1) for axis, name in enumerate(names)},
        outputs=[PREPARED],
    )
    tidy(proto)
    proto.producer_name, proto.producer_version = "effnet", "pytorch " + torch.__version__
    onnx.helper.set_model_props(proto, {"preprocessing": json.dumps(preprocessing.to_dict())})
    onnx.checker.check_model(proto, full_check=True)
    with atomic_path(path, make_folder=True) as temporary:
        onnx.save(proto, temporary)
