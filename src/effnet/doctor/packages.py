"""Checks of installed packages: those that are required, and those of each extra."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from effnet.doctor.finding import Finding
from effnet.doctor.probe import SLOW
from effnet.doctor.requirements import installed_version, read_requirements
from effnet.runtime.extras import install_command, pip_command

if TYPE_CHECKING:
    from packaging.requirements import Requirement

Imports = Mapping[str, Mapping[str, Any]]
"""reports of `effnet.doctor.imports` by module"""

TORCH_MODULES = ("torch", "torchvision")
# Modules that are imported on trial, by distribution. Of the others, which take long, only the version is looked up.
_MODULES = {
    "torch": "torch",
    "torchvision": "torchvision",
    "numpy": "numpy",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "safetensors": "safetensors",
    "filelock": "filelock",
    "simplejpeg": "simplejpeg",
    "rich": "rich",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "ai-edge-litert": "ai_edge_litert",
    "pyarrow": "pyarrow",
}
OTHER_MODULES = tuple(module for module in _MODULES.values() if module not in TORCH_MODULES)
_BUSY = "try again when the machine is less busy; a disk that is reached by a network may be the cause, too"
_WITHOUT = {"simplejpeg": "JPEG files are decoded by Pillow, more slowly"}
_PURPOSES = {
    "dali": "--data-backend dali-cpu and dali-gpu",
    "imagenet": "prepare imagenet --devkit",
    "sample": "prepare sample",
    "plots": "--plot, --reliability and pictures of a model card",
    "onnx": "export onnx, --engine onnxruntime",
    "onnx-decode": "export onnx --decode jpeg",
    "openvino": "export openvino, --engine openvino",
    "litert": ".tflite files, --engine litert",
    "tables": "Parquet files, for lists of images and for predictions",
    "datasets": "folders of Hugging Face's datasets library",
    "completion": "effnet completion: commands, flags and values by the Tab key",
    "hub": "hf-hub:OWNER/NAME, effnet push",
    "ray": "predict --ray",
    "tensorboard": "--track tensorboard",
    "mlflow": "--track mlflow",
    "wandb": "--track wandb",
}


@dataclass(frozen=True)
class Installed:
    """A distribution, as it is installed.

    Attributes:
        version: its version; None where it is missing.
        trouble: why it can't be used; empty if it can.
    """

    version: str | None
    trouble: str = ""


def look_up(requirement: "Requirement", imports: Imports) -> Installed:
    """Return how a required distribution is installed."""
    report = imports.get(_MODULES.get(requirement.name, ""), {})
    version = installed_version(requirement.name)
    if error := report.get("error"):
        if version is None:
            return Installed(None, "is missing")
        return Installed(version, f"{version} is installed, but can't be imported ({error})")
    version = _imported_version(report) or version
    if version is None:
        return Installed(None, "is missing")
    if not requirement.specifier.contains(version, prereleases=True):
        return Installed(version, f"{version} does not fit: {requirement.specifier} is needed")
    return Installed(version)


def _imported_version(report: Mapping[str, Any]) -> str | None:
    """Return the version of what is imported, which may be another copy than the installed one."""
    from packaging.version import InvalidVersion, Version

    try:
        return str(Version(report.get("version") or ""))
    except InvalidVersion:
        return None


def check_packages(imports: Imports) -> Iterator[Finding]:
    """Report the required packages: one finding for all that are right, and one for each other."""
    right: dict[str, str] = {}
    for requirement in read_requirements().required:
        found = look_up(requirement, imports)
        if found.version is not None and not found.trouble:
            right[requirement.name] = found.version
            continue
        if SLOW in found.trouble:
            yield Finding(requirement.name, "warning", found.trouble, _BUSY, {"version": found.version})
            continue
        without = f"; {_WITHOUT[requirement.name]}" if requirement.name in _WITHOUT else ""
        yield Finding(
            requirement.name,
            "broken",
            found.trouble + without,
            _install(requirement, found),
            {"version": found.version},
        )
    if right:
        listed = ", ".join(f"{name} {version}" for name, version in right.items())
        yield Finding("packages", "ok", listed, facts={"versions": right})


def check_extras(imports: Imports) -> Iterator[Finding]:
    """Report the extras: one finding for all that are complete, and one for each other, with how to get it."""
    complete: dict[str, dict[str, str | None]] = {}
    others: list[Finding] = []
    for extra, requirements in read_requirements().extras.items():
        found = {requirement.name: look_up(requirement, imports) for requirement in requirements}
        if any(entry.trouble for entry in found.values()):
            others.append(_incomplete(extra, found))
        else:
            complete[extra] = {name: entry.version for name, entry in found.items()}
    if complete:
        yield Finding("extras", "ok", f"complete: {', '.join(complete)}", facts={"versions": complete})
    yield from others


def _incomplete(extra: str, found: Mapping[str, Installed]) -> Finding:
    versions = {name: entry.version for name, entry in found.items()}
    there = [name for name, version in versions.items() if version is not None]
    troubles = ", ".join(f"{name} {entry.trouble}" for name, entry in found.items() if entry.trouble)
    if not there:
        troubles = "not installed"
    purpose = f"; it is for {_PURPOSES[extra]}" if extra in _PURPOSES else ""
    return Finding(
        f"[{extra}]",
        "warning" if there else "absent",
        troubles + purpose,
        install_command(extra),
        {"versions": versions},
    )


def _install(requirement: "Requirement", found: Installed) -> str:
    wanted: Sequence[str] = (f"{requirement.name}{requirement.specifier}",)
    again = "--force-reinstall " if "can't be imported" in found.trouble else ""
    return f"{pip_command()} install {again}{' '.join(repr(text) for text in wanted)}"
