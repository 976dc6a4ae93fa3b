"""The rules of the architecture that a reviewer would otherwise have to check by hand."""

import ast
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src/effnet"
REPOSITORY = SOURCE.parent.parent

# An image's way from a folder to an answer: a package may import those before it, never those behind it.
ORDER = [
    "recipe",
    "catalog",
    "cfg_file",
    "data",
    "models",
    "training",
    "quantization",
    "export",
    "inference",
    "benchmark",
    "report",
    "cli",
]
# What settings, errors and memory are stands below everything but the models, which stand alone.
FOUNDATION = {"errors", "memory", "settings"}


def imported(path: Path) -> set[str]:
    """Parts of the project that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("effnet.")}


def part(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


FILES = [path for path in sorted(SOURCE.rglob("*.py")) if part(path) in ORDER]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_one_way(path: Path) -> None:
    here = part(path)
    allowed = {here} if here == "models" else {*ORDER[: ORDER.index(here) + 1], *FOUNDATION}
    if here == "data":
        allowed.discard("models")
    assert imported(path) <= allowed


# Each optional package is imported in one module, which names the extra when it is missing.
OPTIONAL = [
    "sklearn",
    "scipy",
    "nvidia.dali",
    "modelopt",
    "tensorrt",
    "openvino",
    "onnxruntime",
    "tensorboard",
    "triton",
    "webdataset",
]


@pytest.mark.parametrize("package", OPTIONAL)
def test_an_optional_package_is_imported_in_one_module(package: str) -> None:
    importing = [
        path
        for path in SOURCE.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.strip().startswith((f"import {package}", f"from {package}"))
    ]
    assert len(set(importing)) <= 1


def test_no_large_file_is_tracked() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    paths = [REPOSITORY / name for name in listed.stdout.decode().split("\0") if name]
    assert [path for path in paths if path.is_file() and path.stat().st_size > 1_000_000] == []
