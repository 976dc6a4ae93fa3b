"""Small files for phones: converted once for all tests, and all workers of pytest-xdist."""

import os
import pickle
from dataclasses import dataclass
from pathlib import Path

import filelock
import pytest
import torch

from effnet.data.preprocessing import Preprocessing
from effnet.export.edge.environment import Converter
from effnet.export.edge.formats import EdgeFile, EdgeFormat, export_edge
from effnet.models.efficientnet import EfficientNet
from effnet.recipe.choices import TargetName
from effnet.weights import WeightsMetadata
from tests.export.test_quantized import SIZE, calibrated, tiny

CLASSES = tuple(f"class {index}" for index in range(10))


@dataclass(frozen=True)
class PhoneFile:
    """A converted file, and the model in PyTorch that it is of."""

    written: EdgeFile
    model: EfficientNet
    metadata: WeightsMetadata

    @property
    def path(self) -> Path:
        return self.written.path


def metadata(name: str) -> WeightsMetadata:
    return WeightsMetadata(name, Preprocessing(SIZE, SIZE).to_dict(), classes=CLASSES)


def in_integers(target: TargetName, name: str = "efficientnet-quant-lite0") -> EfficientNet:
    pixels = torch.randint(
        0, 256, (40, 3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    return calibrated(tiny(name), target, pixels, metadata(name))


def require_converter(converter: Converter) -> None:
    """Skip the test where a converter is missing, except in CI, which installs it."""
    if converter.is_installed:
        return
    reason = f"{converter.packages[0]} is not in the cache: make converters"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def phone_file(
    form: EdgeFormat,
    shared: Path,
    *,
    target: TargetName | None,
    batch_size: int = 1,
    takes_bytes: bool = False,
) -> PhoneFile:
    """Return a file in a format, made by whichever test or worker asks first.

    Args:
        form: the format.
        shared: a folder of this session, the same for all workers.
        target: a model in integers for this target; None for a float model.
        batch_size, takes_bytes: as for `export_edge`.
    """
    require_converter(form.converter)
    name = f"efficientnet-{'quant-' if target else ''}lite0"
    model = in_integers(target) if target else tiny(name)
    path = shared / f"{name}-{batch_size}{'-bytes' if takes_bytes else ''}{form.suffix}"
    facts = path.with_suffix(f"{form.suffix}.pickle")
    with filelock.FileLock(f"{path}.lock"):
        if not facts.exists():
            written = export_edge(
                form,
                model,
                metadata(name),
                path,
                batch_size=batch_size,
                preprocessing_in_graph=takes_bytes,
                install=False,
            )
            facts.write_bytes(pickle.dumps(written))
    return PhoneFile(pickle.loads(facts.read_bytes()), model, metadata(name))


def shared_folder(factory: pytest.TempPathFactory) -> Path:
    """Return a folder of this session that all workers share."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "phones"
    folder.mkdir(exist_ok=True)
    return folder
