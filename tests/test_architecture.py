"""Rules of the architecture that import-linter (`[tool.importlinter]` in pyproject.toml) cannot check."""

import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src/effnet"
REPOSITORY = SOURCE.parent.parent

# Each optional package is imported in one module, which names the extra when it is missing.
OPTIONAL = [
    "sklearn",
    "scipy",
    "nvidia.dali",
    "modelopt",
    "tensorrt",
    "openvino",
    "onnxruntime",
    "onnxruntime_extensions",
    "tensorboard",
    "torch.utils.tensorboard",
    "mlflow",
    "wandb",
    "huggingface_hub",
    "starlette",
    "uvicorn",
    "python_multipart",
    "prometheus_client",
    "triton",
    "webdataset",
    "vl_convert",
    "jinja2",
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
