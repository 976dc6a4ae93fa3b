"""`effnet doctor` where something is really broken names it and says what to do."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.doctor.environments import QUICK_TORCH, environment, variables
from tests.small_disk import small_disk

TORCH = {("torch", "99.0"): QUICK_TORCH, ("torchvision", "99.0"): "__version__ = '99.0'"}


def examined(
    python: str | Path, home: Path, *arguments: str, **changes: str
) -> tuple[int, dict[str, dict[str, Any]]]:
    """Run `effnet doctor --json`; return the exit code and the findings by name."""
    done = subprocess.run(
        [str(python), "-m", "effnet", "doctor", "--json", *arguments],
        env=variables(**{"EFFNET_HOME": str(home), **changes}),
        capture_output=True,
        text=True,
    )
    assert done.stdout, done.stderr
    report = json.loads(done.stdout)
    assert report["fine"] == (done.returncode == 0)
    return done.returncode, {finding["name"]: finding for finding in report["findings"]}


def broken(found: dict[str, dict[str, Any]]) -> set[str]:
    """Names of what is broken; the stand-in for PyTorch sees no GPU, where there is one."""
    return {name for name, finding in found.items() if finding["status"] == "broken"} - {"GPU"}


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder that can't be written, by root either."""
    with small_disk(tmp_path / "disk", 4) as disk:
        folder = disk.root / "cache"
        folder.mkdir()
        if disk.is_real:
            disk.remount("ro")
        elif os.geteuid():
            folder.chmod(0o500)
        else:
            folder = Path("/proc/effnet")  # where nobody makes a folder
        yield folder


@pytest.mark.slow
def test_this_environment_is_fine_and_the_doctor_itself_imports_no_pytorch(
    tmp_path: Path, images: Path
) -> None:
    script = (
        "import sys\nfrom effnet.cli import main\n"
        f"code = main(['doctor', {str(images)!r}])\n"
        "print(code, sorted({'torch', 'numpy', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=variables(EFFNET_HOME=str(tmp_path / "home"), COLUMNS="80"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    first, *lines, last = done.stdout.splitlines()
    assert last == "0 []", done.stdout
    assert first.startswith("effnet ")
    assert {"processor", "cores", "memory", "cache", "compiler", "decoding", "disk"} <= {
        line.split()[1] for line in lines if not line.startswith(" ")
    }
    assert not any(line.startswith("BROKEN") for line in lines), done.stdout
    assert list((tmp_path / "home").iterdir()) == []  # nothing is left behind


def test_no_compiler(tmp_path: Path) -> None:
    python = environment(tmp_path / "env", stubs=TORCH)
    (tmp_path / "bin").mkdir()
    _, found = examined(python, tmp_path, PATH=str(tmp_path / "bin"), CXX="")
    assert broken(found) == set()  # PyTorch's operators take the kernels' place
    assert found["compiler"]["status"] == "warning"
    assert "no C++ compiler" in found["compiler"]["text"]
    assert "g++" in found["compiler"]["remedy"]


def test_a_compiler_without_its_library(tmp_path: Path) -> None:
    compiler = tmp_path / "half-g++"
    compiler.write_text("#!/bin/sh\necho 'trial.cpp:1:10: fatal error: omp.h: No such file' >&2\nexit 1\n")
    compiler.chmod(0o755)
    python = environment(tmp_path / "env", stubs=TORCH)
    code, found = examined(python, tmp_path, "--strict", CXX=str(compiler))
    assert code == 1  # --strict
    assert "omp.h" in found["compiler"]["text"]
    assert "OpenMP" in found["compiler"]["remedy"]


def test_no_simplejpeg_and_no_onnxruntime(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="extra onnx")
    pytest.importorskip("onnx", reason="extra onnx")
    python = environment(tmp_path / "env", without=["simplejpeg", "onnxruntime"], stubs=TORCH)
    code, found = examined(python, tmp_path)
    assert code == 1
    assert found["simplejpeg"]["status"] == "broken"
    assert "is missing; JPEG files are decoded by Pillow" in found["simplejpeg"]["text"]
    assert "install 'simplejpeg>=" in found["simplejpeg"]["remedy"]
    assert "with pillow" in found["decoding"]["text"]
    assert found["[onnx]"]["status"] == "warning"
    assert found["[onnx]"]["text"].startswith("onnxruntime is missing;")
    assert found["[onnx]"]["remedy"].endswith("[onnx]'")
    assert "simplejpeg" not in found["packages"]["text"]


def test_too_old_pytorch(tmp_path: Path) -> None:
    python = environment(tmp_path / "env", stubs={("torch", "2.1.0"): "__version__ = '2.1.0+cpu'"})
    code, found = examined(python, tmp_path)
    assert code == 1
    assert found["torch"]["status"] == "broken"
    assert "2.1.0+cpu does not fit: >=" in found["torch"]["text"]
    assert "install 'torch>=" in found["torch"]["remedy"]


def test_the_cache_can_only_be_read(tmp_path: Path, read_only: Path) -> None:
    python = environment(tmp_path / "env", stubs=TORCH)
    code, found = examined(python, read_only)
    assert code == 1
    assert found["cache"]["status"] == "broken"
    assert str(read_only) in found["cache"]["text"]
    assert "EFFNET_HOME" in found["cache"]["remedy"]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("raise ImportError('libcudart.so.13: cannot open')", "libcudart.so.13"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGILL)", "killed by SIGILL"),
        ("import os\nos._exit(3)", "exit code 3"),
    ],
)
def test_a_broken_pytorch_is_told_and_the_rest_examined(tmp_path: Path, source: str, says: str) -> None:
    python = environment(tmp_path / "env", stubs={("torch", "99.0"): source})
    code, found = examined(python, tmp_path)
    assert code == 1
    assert "99.0 is installed, but can't be imported" in found["torch"]["text"]
    assert says in found["torch"]["text"]
    assert "--force-reinstall" in found["torch"]["remedy"]
    assert "numpy" in found["packages"]["text"]
    assert "disk" in found


def test_the_first_lines_come_while_pytorch_is_still_being_imported(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    # Its import ends when the test opens the gate.
    python = environment(
        tmp_path / "env",
        stubs={
            ("torch", "99.0"): f"open({str(gate)!r}).read()\n{QUICK_TORCH}",
            **dict([list(TORCH.items())[1]]),
        },
    )
    with subprocess.Popen(
        [str(python), "-m", "effnet", "doctor"],
        env=variables(EFFNET_HOME=str(tmp_path)),
        stdout=subprocess.PIPE,
        text=True,
    ) as doctor:
        assert doctor.stdout is not None
        assert doctor.stdout.readline().startswith("effnet ")
        assert doctor.stdout.readline().split()[1] == "processor"
        with gate.open("w"):
            pass
        assert "computes with 7 threads" in doctor.stdout.read()


def test_without_what_the_command_line_needs_it_names_another_way(tmp_path: Path) -> None:
    python = environment(tmp_path / "env", without=["yaml", "pyyaml"], stubs=TORCH)
    settings = variables(EFFNET_HOME=str(tmp_path))
    failed = subprocess.run([python, "-m", "effnet", "doctor"], env=settings, capture_output=True, text=True)
    assert failed.returncode == 2
    assert failed.stderr.splitlines() == [
        "effnet: error: No module named 'yaml'; the installation is broken: "
        f"{python} -m effnet.doctor says what is missing and what to do"
    ]
    done = subprocess.run([python, "-m", "effnet.doctor"], env=settings, capture_output=True, text=True)
    assert done.returncode == 1
    assert "pyyaml" in done.stdout
    assert "is missing" in done.stdout


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "effnet", "doctor", str(tmp_path / "nowhere")],
        env=variables(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "no such folder" in done.stderr


def test_the_environments_lack_what_they_should(tmp_path: Path) -> None:
    if shutil.which("g++") is None:
        pytest.skip("no compiler to hide")
    python = environment(tmp_path / "env", without=["simplejpeg"])
    looked = "import importlib.util as u, shutil; print(u.find_spec('simplejpeg'), u.find_spec('torch') is not None)"
    done = subprocess.run([python, "-c", looked], env=variables(), capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["None", "True"]
