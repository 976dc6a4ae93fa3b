"""A probe: import modules one after the other, and report their versions.

python -m effnet.doctor.imports MODULE...
"""

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from effnet.doctor.probe import Reporter, described


def main(names: Sequence[str]) -> None:
    """Import modules; report ``version`` of each, of PyTorch also what it finds (`torch_facts`), or an ``error``."""
    reporter = Reporter()
    for name in names:
        reporter.report(name)
        try:
            module = import_module(name)
        except BaseException as error:  # the loader of a library may raise anything
            reporter.report(name, error=described(error))
            continue
        version = getattr(module, "__version__", None)
        facts = torch_facts(module) if name == "torch" else {}
        reporter.report(name, version=None if version is None else str(version), **facts)


def torch_facts(torch: Any) -> dict[str, Any]:
    """Return what an imported PyTorch says of itself and of the GPUs.

    Returns:
        ``cuda``: version that it is built for; ``cuda_works``; ``cuda_trouble``: its warnings; ``architectures`` that
        it has kernels for; ``gpus``: name, memory in bytes and compute capability; ``threads``; ``trouble``: error of
        a small computation. What an old version lacks is missing.
    """
    facts: dict[str, Any] = {}
    try:
        _compute(torch)
        facts["threads"] = torch.get_num_threads()
        facts["cuda"] = torch.version.cuda
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            facts["cuda_works"] = bool(torch.cuda.is_available())
        facts["cuda_trouble"] = [str(warning.message) for warning in caught]
        facts["architectures"] = list(torch.cuda.get_arch_list())
        facts["gpus"] = [_gpu(torch, number) for number in range(torch.cuda.device_count())]
    except Exception as error:
        facts["trouble"] = described(error)
    return facts


def _compute(torch: Any) -> None:
    """Compute a convolution, and hand its result to NumPy, which fails between versions that do not fit."""
    images, kernel = torch.ones(1, 3, 8, 8), torch.ones(4, 3, 3, 3)
    torch.nn.functional.conv2d(images, kernel).numpy()


def _gpu(torch: Any, number: int) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(number)
    return {
        "name": properties.name,
        "memory": properties.total_memory,
        "capability": f"{properties.major}.{properties.minor}",
    }


if __name__ == "__main__":
    main(sys.argv[1:])
