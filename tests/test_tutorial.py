"""The tutorial's commands, as they stand on the page, end with a served INT8 model that answers right."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tools import tutorial

# One epoch of the smallest images takes the place of the page's six; everything else is as it stands there.
SHORT = "--epochs 1 --image-size 32 --resize 32 --workers 0 --device cpu"


def shortened(line: str) -> str:
    return f"{line} {SHORT}" if line.startswith("effnet train") else line


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    pytest.importorskip("sklearn", reason="extra sample")
    pytest.importorskip("openvino", reason="extra openvino")
    pytest.importorskip("onnxscript", reason="extra onnx")
    pytest.importorskip("uvicorn", reason="extra serve")
    if shutil.which("curl") is None:
        pytest.skip("the page calls curl")
    folder = tmp_path_factory.mktemp("tutorial")
    return folder, tutorial.run(tutorial.script(tutorial.commands()[1:], shortened), folder)


def test_the_page_installs_first() -> None:
    first, *others = tutorial.commands()
    assert first.splitlines() == ["make install", ". .venv/bin/activate"]
    assert not any("install" in block for block in others)


@pytest.mark.slow
def test_the_commands_run_and_the_model_answers_right(
    done: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, ended = done
    assert ended.returncode == 0, ended.stdout
    assert (folder / "digits-int8.onnx").stat().st_size < 6e6  # Lite0 in FP32 has 13 MB
    answers = re.findall(r"digits/val/7/\d+\.jpg\n +([\d.]+) %  (\d)", ended.stdout)
    assert [digit for _, digit in answers] == ["7", "7"], ended.stdout  # before quantization, and after
    (served,) = re.findall(r'^\{"model".*', ended.stdout, re.MULTILINE)
    answer, _ = json.JSONDecoder().raw_decode(served)  # the server's log may go on in the same line
    (image,) = answer["images"]
    assert image["predictions"][0]["name"] == "7"
    assert (folder / "classes.csv").read_text().count("\n") == 11
