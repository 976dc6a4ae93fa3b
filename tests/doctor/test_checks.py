"""Checks of the machine, on machines that are described by files and by programs of the test."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from effnet.cli import main
from effnet.doctor import machine
from effnet.doctor.bytecode import check_bytecode
from effnet.doctor.finding import Finding
from effnet.doctor.load import Busy, cpu_quota, sample_busy, usable_cores
from effnet.doctor.machine import check_cores, check_processor, check_shared_memory
from effnet.doctor.packages import check_extras
from effnet.doctor.pytorch import check_gpus, driver_gpus
from effnet.doctor.report import lines_of
from effnet.doctor.requirements import read_requirements
from tests.small_disk import small_disk
from tests.wheels import required

CARD = {"name": "NVIDIA H100 80GB HBM3", "memory": 80 * 2**30, "capability": "9.0"}
WORKING = {"version": "2.14.0", "cuda": "13.0", "cuda_works": True, "architectures": ["sm_80", "sm_90"]}


def texts(found: Iterator[Finding]) -> list[tuple[str, str]]:
    return [(finding.status, f"{finding.text} | {finding.remedy}") for finding in found]


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "150000 100000"}, 1.5),
        # The limit of a pod holds for the containers in it.
        ({"pod/cpu.max": "400000 100000", "pod/one/cpu.max": "max 100000"}, 4.0),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu/pod/one/cpu.cfs_quota_us": "50000", "cpu/pod/one/cpu.cfs_period_us": "100000"}, 0.5),
    ],
)
def test_limits_of_control_groups(tmp_path: Path, files: dict[str, str], quota: float | None) -> None:
    for name, content in {
        **{f"sys/fs/cgroup/{name}": text for name, text in files.items()},
        "proc/self/cgroup": "0::/pod/one\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content + "\n")
    assert cpu_quota(tmp_path) == quota


@pytest.mark.parametrize("kept", [False, True])
def test_packages_that_are_compiled_at_every_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kept: bool
) -> None:
    package = tmp_path / "package/__init__.py"
    package.parent.mkdir()
    package.write_text("")
    monkeypatch.setattr(sys, "dont_write_bytecode", not kept)
    found = texts(check_bytecode(package))
    if kept:
        assert found == []
        return
    ((status, text),) = found
    assert status == "warning"
    assert "PYTHONDONTWRITEBYTECODE is set" in text
    # The remedy helps.
    command = text.split(": ")[-1].split()
    subprocess.run(command, check=True)
    assert texts(check_bytecode(package)) == []


def test_a_busy_process_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    # On a loaded machine it gets little of a core.
    monkeypatch.setattr("effnet.doctor.load._SHOWN", 0.001)
    monkeypatch.setattr("effnet.doctor.load._MOST_NAMED", 10_000)
    script = "print(1, flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        for _ in range(60):
            found = {pid for _, pid, _ in sample_busy(usable_cores(), 0.3).processes}
            if process.pid in found:
                break
        process.kill()
    assert process.pid in found


def test_ticks_of_the_allowed_cores_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(busy: int, idle: int) -> None:
        (tmp_path / "stat").write_text(
            f"cpu 9 9 9 9\ncpu0 {busy} 0 0 {idle} 50 0 0 0\ncpu1 7000 0 0 0 0 0 0 0\nintr 1\n"
        )

    write(100, 100)
    monkeypatch.setattr("time.sleep", lambda seconds: write(130, 110))
    busy = sample_busy({0}, 0.4, tmp_path)
    assert busy == Busy(0.75, ())  # 30 of 40 ticks


def test_cores_that_others_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: {0, 1})
    monkeypatch.setattr(machine, "sample_busy", lambda cores: Busy(1.9, (("python", 4711, 1.9),)))
    monkeypatch.setattr(machine, "cpu_quota", lambda: None)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    ((status, text),) = texts(check_cores())
    assert status == "warning"
    assert "others take 1.9: python (process 4711) 1.9" in text
    assert "threads spin meanwhile" in text
    assert "OMP_NUM_THREADS=1 taskset -c 0 effnet train ... --workers 1" in text


def test_a_limit_below_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: set(range(16)))
    monkeypatch.setattr(machine, "sample_busy", lambda cores: Busy(0.0, ()))
    monkeypatch.setattr(machine, "cpu_quota", lambda: 2.5)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    _, (status, text) = texts(check_cores())
    assert status == "warning"
    assert "allows 2.5 of the 16 cores" in text
    assert "export OMP_NUM_THREADS=2" in text
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert [status for status, _ in texts(check_cores())] == ["ok", "ok"]
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    assert [status for status, _ in texts(check_cores())] == ["ok", "warning", "warning"]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("avx2 avx512f avx512_vnni", "AVX-512 with VNNI: an INT8 multiplication takes one instruction"),
        ("avx2 avx_vnni", "VNNI: an INT8 multiplication takes one instruction"),
        ("avx2", "AVX2, no VNNI: an INT8 multiplication takes three instructions"),
        ("sse2", "without AVX2"),
    ],
)
def test_what_the_processor_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, says: str
) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text(f"model name\t: Test 9000\nflags\t\t: fpu {flags}\n")
    for name in ("cpu_model", "has_vnni", "vector_extensions"):
        original = getattr(machine, name)
        monkeypatch.setattr(machine, name, lambda original=original: original(info))
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    ((_, text),) = texts(check_processor())
    assert "Test 9000" in text
    assert says in text


def test_little_shared_memory(tmp_path: Path) -> None:
    with small_disk(tmp_path / "shm", 64) as disk:
        disk.needs_mount()
        ((status, text),) = texts(check_shared_memory(disk.root))
    assert status == "warning"
    assert "of 64 in" in text
    assert "--shm-size=8g" in text
    ((status, text),) = texts(check_shared_memory(tmp_path / "missing"))
    assert status == "broken"
    assert "--workers 0" in text


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for nvidia-smi, which a test writes."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    command = tmp_path / "nvidia-smi"
    command.touch(mode=0o755)
    return command


def gpu_findings(report: dict[str, Any]) -> list[tuple[str, str]]:
    return texts(check_gpus(driver_gpus(), report))


def test_gpus(smi: Path) -> None:
    smi.write_text("#!/bin/sh\necho 'NVIDIA H100 80GB HBM3, 580.65.06, 81559, 61000'\n")
    assert gpu_findings({**WORKING, "gpus": [CARD]}) == [
        ("ok", "NVIDIA H100 80GB HBM3 (80 GiB), driver 580.65.06 | "),
        (
            "warning",
            "GPU 0: 61,000 of 81,559 MiB are taken | see by whom with nvidia-smi, or choose another GPU with "
            "CUDA_VISIBLE_DEVICES",
        ),
    ]


def test_a_pytorch_without_cuda_beside_a_gpu(smi: Path) -> None:
    smi.write_text("#!/bin/sh\necho 'NVIDIA A100-SXM4-40GB, 580.65.06, 40960, 0'\n")
    ((status, text),) = gpu_findings({"version": "2.14.0+cpu", "cuda": None, "gpus": []})
    assert status == "broken"
    assert "A100" in text
    assert "built for CPUs" in text
    assert "install a PyTorch that is built for CUDA" in text


def test_a_driver_that_is_too_old(smi: Path) -> None:
    smi.write_text("#!/bin/sh\necho 'NVIDIA A100-SXM4-40GB, 470.1, 40960, 0'\n")
    old = "CUDA initialization: The NVIDIA driver on your system is too old (found version 11040)."
    ((status, text),) = gpu_findings({**WORKING, "cuda_works": False, "cuda_trouble": [old], "gpus": []})
    assert status == "broken"
    assert "driver 470.1" in text
    assert old in text
    assert "update the driver to one for CUDA 13.0" in text


def test_a_gpu_that_this_pytorch_has_no_code_for(smi: Path) -> None:
    smi.write_text("#!/bin/sh\necho 'Tesla P100, 580.65.06, 16384, [N/A]'\n")
    ((status, text),) = gpu_findings({**WORKING, "gpus": [{**CARD, "name": "P100", "capability": "6.0"}]})
    assert status == "broken"
    assert "compute capability 6.0, for which this PyTorch has no code" in text


def test_a_driver_s_command_on_a_machine_without_a_gpu(smi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed because it could not communicate'\nexit 9\n")
    monkeypatch.setattr("effnet.doctor.pytorch._DRIVER", Path("/nonexistent"))
    assert gpu_findings({"version": "2.14.0+cpu", "cuda": None, "gpus": []}) == [
        ("ok", "none of NVIDIA: everything runs on the CPU | ")
    ]
    monkeypatch.setattr("effnet.doctor.pytorch._DRIVER", Path("/proc"))
    ((status, text),) = gpu_findings({"version": "2.14.0+cpu", "cuda": None, "gpus": []})
    assert status == "broken"
    assert "could not communicate" in text


def test_requirements_are_those_of_the_project() -> None:
    found = read_requirements()
    assert [requirement.name for requirement in found.required] == required()
    assert {"onnx", "openvino", "plots"} <= set(found.extras)
    assert "dev" not in found.extras


def test_an_extra_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("effnet.doctor.packages.installed_version", lambda name: None)
    findings = {finding.name: finding for finding in check_extras({})}
    assert findings["[openvino]"].status == "absent"
    assert findings["[openvino]"].text.startswith("not installed; it is for export openvino")
    assert findings["[openvino]"].remedy.endswith("[openvino]'")


def test_lines_fit_and_commands_stay_whole() -> None:
    finding = Finding(
        "compiler",
        "broken",
        "words " * 30 + "\x1b[31m",
        "run pip install -e '/a/path/that/is/longer/than/the/sixty/columns/that/are/left/for/it[onnx]'",
    )
    lines = list(lines_of(finding, 80))
    assert lines[0].startswith("BROKEN   compiler         words")
    assert [line for line in lines if len(line) > 80] == [line for line in lines if "[onnx]'" in line]
    assert "\x1b" not in "".join(lines)
    assert next(iter(lines_of(finding, 80, coloured=True))).startswith("\x1b[31mBROKEN")


def test_help_fits_eighty_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main(["doctor", "--help"])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
