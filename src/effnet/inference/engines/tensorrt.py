"""TensorRT on an NVIDIA GPU, on an engine's file. Written against its documentation; not yet run on a GPU."""

from pathlib import Path

import torch
from torch import Tensor

from effnet.export.facts import INPUT, OUTPUT, PRECISION_KEY, read_metadata
from effnet.export.tensorrt import read_engine
from effnet.export.trained import TrainedModel
from effnet.inference.engines.form import EngineKind, without_tf32
from effnet.inference.engines.network import Network, require_fp32
from effnet.runtime.errors import UserError

_BYTES = "uint8"


class TensorRtNetwork(Network):
    """A model in TensorRT, on PyTorch's current stream and in its memory.

    Args:
        path: .engine file that `effnet export tensorrt`, or the command it prints, built.
        device: must be a GPU.
        precision: `fp32`; another one is the file's.
        threads: ignored.

    Raises:
        UserError: TensorRT or a GPU is missing, or the file can't be used.
    """

    def __init__(
        self, path: Path, device: torch.device, *, precision: str = "fp32", threads: int = 0
    ) -> None:
        if device.type != "cuda":
            raise UserError("--engine tensorrt needs an NVIDIA GPU, and PyTorch sees none here")
        require_fp32("TensorRT", precision)
        engine, facts = read_engine(path)
        super().__init__(
            read_metadata(facts, path),
            device,
            takes_bytes=str(engine.get_tensor_dtype(INPUT)).rpartition(".")[2].lower() == _BYTES,
            precision=facts.get(PRECISION_KEY, precision),
        )
        self.engine, self.context = engine, engine.create_execution_context()

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of images."""
        images = images.to(self.device).contiguous()
        self.context.set_input_shape(INPUT, tuple(images.shape))
        logits = torch.empty(tuple(self.context.get_tensor_shape(OUTPUT)), device=self.device)
        self.context.set_tensor_address(INPUT, images.data_ptr())
        self.context.set_tensor_address(OUTPUT, logits.data_ptr())
        self.context.execute_async_v3(torch.cuda.current_stream(self.device).cuda_stream)
        return logits


def _from_weights(trained: TrainedModel, device: torch.device, precision: str, folder: Path) -> Network:
    from effnet.export.tensorrt import export_tensorrt  # not needed for a file that has been built already

    chosen = without_tf32(precision)
    if chosen not in ("fp32", "fp16"):
        raise UserError(f"--precision {chosen}: TensorRT offers fp32 and fp16 here")
    path = folder / "model.engine"
    export_tensorrt(trained.model, trained.metadata, path, precision=chosen, device=device)  # type: ignore[arg-type]
    return TensorRtNetwork(path, device)


ENGINE = EngineKind(
    "tensorrt",
    "TensorRT on an NVIDIA GPU; **not yet run: no GPU has been at hand**",
    "`pip install tensorrt`",
    package="tensorrt",
    from_weights=_from_weights,
    device="cuda",
    suffixes=(".engine", ".plan"),
    network=TensorRtNetwork,
    precisions=("fp32", "tf32", "fp16"),
)
