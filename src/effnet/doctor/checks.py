"""The registry of checks, in the order in which they report.

A new one is a function here, or in a module of its own, and a row of `CHECKS`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from effnet.doctor.bytecode import check_bytecode
from effnet.doctor.compiler import check_compiler
from effnet.doctor.engines import check_engine_choices
from effnet.doctor.finding import Finding
from effnet.doctor.load import usable_cores
from effnet.doctor.machine import check_cores, check_memory, check_processor, check_shared_memory
from effnet.doctor.packages import OTHER_MODULES, TORCH_MODULES, check_extras, check_packages
from effnet.doctor.probe import Probe, described
from effnet.doctor.pytorch import check_gpus, check_torch, driver_gpus
from effnet.doctor.storage import check_cache, check_disk, check_temporary
from effnet.runtime.errors import UserError
from effnet.runtime.suggestions import suggested_path

_IMPORT_SECONDS = 60.0
_DECODE_SECONDS = 20.0


@dataclass
class Examination:
    """State shared by the checks; each part is found when it is first asked for.

    Attributes:
        folder: the data, whose disk is measured; None for the current folder.
        decoded: images that the cores decode in a second, once that is known.
    """

    folder: Path | None = None
    decoded: float | None = None
    _probes: list[Probe] = field(default_factory=list)

    def start(self) -> None:
        """Start to import packages, in processes of their own that run beside the checks which do not need them."""
        if not self._probes:
            self._probes = [Probe("effnet.doctor.imports", names) for names in (TORCH_MODULES, OTHER_MODULES)]

    @cached_property
    def imports(self) -> dict[str, dict[str, Any]]:
        """Reports on imported modules by name."""
        self.start()
        return {
            name: report for probe in self._probes for name, report in probe.results(_IMPORT_SECONDS).items()
        }

    @property
    def torch(self) -> dict[str, Any]:
        """The report on PyTorch."""
        return self.imports.get("torch", {"error": "nothing is known of it"})


def _cores(examination: Examination) -> Iterator[Finding]:
    yield from check_cores()
    examination.start()  # only now, as the cores are watched before


def _decoding(examination: Examination) -> Iterator[Finding]:
    """Report how fast JPEG files are decoded."""
    rates = Probe("effnet.doctor.decoding", ()).results(_DECODE_SECONDS)
    decoders = {name: report["rate"] for name, report in rates.items() if "rate" in report}
    if not decoders:
        return  # told with the packages
    name = "simplejpeg" if "simplejpeg" in decoders else "pillow"
    cores = len(usable_cores())
    examination.decoded = decoders[name] * cores
    text = f"{decoders[name]:,.0f} JPEG files of 500 x 375 px a second on a core with {name}"
    if len(decoders) == 2:
        text += f" ({decoders['pillow']:,.0f} with Pillow)"
    facts = {"images_per_s": decoders, "cores": cores}
    yield Finding("decoding", "ok", f"{text}; {cores} cores: about {examination.decoded:,.0f}", facts=facts)


CHECKS: tuple[Callable[[Examination], Iterator[Finding]], ...] = (
    lambda _: check_processor(),
    _cores,
    lambda _: check_memory(),
    lambda _: check_shared_memory(),
    lambda _: check_cache(),
    lambda _: check_temporary(),
    lambda _: check_compiler(),
    lambda _: check_bytecode(),
    lambda examination: check_packages(examination.imports),
    lambda examination: check_torch(examination.torch),
    lambda examination: check_gpus(driver_gpus(), examination.torch),
    lambda examination: check_extras(examination.imports),
    lambda _: check_engine_choices(),
    _decoding,
    lambda examination: check_disk(examination.folder, examination.decoded),
)
"""the registry"""


def examine(folder: Path | None = None) -> Iterator[Finding]:
    """Yield the findings of all checks, each as soon as it is known.

    Args:
        folder: the data, whose disk is measured; None for the current folder.

    Raises:
        UserError: there is no such folder.
    """
    if folder is not None and not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder{suggested_path(folder) or '; pass a folder with files of the data'}"
        )
    examination = Examination(folder)
    for check in CHECKS:
        try:
            yield from check(examination)
        except UserError:
            raise
        except Exception as error:  # the remaining checks are worth more than a traceback
            text = f"a check ended with {described(error)}"
            yield Finding("doctor", "broken", text, "install effnet and what it requires again")
