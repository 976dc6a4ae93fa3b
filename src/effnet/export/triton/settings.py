"""Settings of a model repository."""

import re
from dataclasses import dataclass

from effnet.export.triton.config import DynamicBatching, InstanceKind
from effnet.recipe.choices import OnnxTargetName
from effnet.runtime.errors import UserError

# The name is that of a folder and a part of URLs.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class TritonSettings:
    """Settings of a model repository.

    Attributes:
        backend: the server's program that runs the model.
        name: the model's name; None for that of the architecture.
        max_batch_size: largest batch.
        preferred: batches that are run as soon as they are full; empty for a quarter, a half and all of the largest.
        max_delay_us: microseconds that a request waits for others.
        instances: copies of each model that run at the same time.
        kind: where the model runs; None for ``gpu`` with TensorRT, else ``cpu``. The preprocessing runs on the CPU.

    Raises:
        UserError: values that contradict each other; the flags are named.
    """

    backend: OnnxTargetName = "onnxruntime"
    name: str | None = None
    max_batch_size: int = 32
    preferred: tuple[int, ...] = ()
    max_delay_us: int = 5000
    instances: int = 1
    kind: InstanceKind | None = None

    def __post_init__(self) -> None:
        if self.name is not None and not _NAME.fullmatch(self.name):
            raise UserError(
                f"--name {self.name!r}: must be letters, digits, dots, dashes and underscores, at most 100, and begin "
                "with a letter or digit"
            )
        if self.preferred and not 1 <= min(self.preferred) <= max(self.preferred) <= self.max_batch_size:
            raise UserError(
                f"--preferred-batch-size {max(self.preferred)} is above --max-batch-size {self.max_batch_size}"
            )
        if self.kind is not None and self.kind == _IMPOSSIBLE.get(self.backend):
            raise UserError(
                f"--instance-kind {self.kind}: the server's {self.backend} backend does not run there"
            )

    @property
    def runs_on(self) -> InstanceKind:
        """Where the model runs."""
        return self.kind or ("gpu" if self.backend == "tensorrt" else "cpu")

    @property
    def batching(self) -> DynamicBatching | None:
        """The batching of requests; None where no batch is larger than one image."""
        largest = self.max_batch_size
        if largest == 1:
            return None
        sizes = self.preferred or [size for size in (largest // 4, largest // 2, largest) if size > 1]
        return DynamicBatching(tuple(sorted(set(sizes))), self.max_delay_us)


_IMPOSSIBLE: dict[OnnxTargetName, InstanceKind] = {"tensorrt": "cpu", "openvino": "gpu"}
