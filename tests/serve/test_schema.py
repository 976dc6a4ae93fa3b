"""A server under requests that schemathesis makes from its OpenAPI description, right ones and wrong ones."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serve.serving import TOKEN, Running

pytest.importorskip("schemathesis", reason="package schemathesis")


@pytest.mark.slow
def test_every_answer_is_as_described(models: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN + "\n")
    limits = ("--max-mib", "2", "--max-pixels", "1000000", "--token-file", str(tmp_path / "token"))
    server = Running(tmp_path, str(models["one"]), *limits)
    command = [str(Path(sys.executable).parent / "schemathesis"), "--no-color"]
    command += ["--config-file", str(Path(__file__).with_name("schemathesis.toml"))]
    command += ["run", f"{server.address}/openapi.json", "-H", f"Authorization: Bearer {TOKEN}"]
    command += ["--phases", "coverage,fuzzing", "--max-examples", "20", "--seed", "1"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    finally:
        server.kill()
    assert done.returncode == 0, done.stdout[-4000:]
    operations, tested = re.findall(r"Selected: \d+/(\d+)\s+Tested: (\d+)", done.stdout)[0]
    assert operations == tested == "5"
    cases = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert cases is not None
    assert int(cases[1]) > 80
