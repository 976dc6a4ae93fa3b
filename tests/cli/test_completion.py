"""Completion, by the shells themselves."""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from effnet.cli import main
from effnet.cli.completion import SHELLS
from tests.doctor.environments import variables

pytest.importorskip("shtab", reason="extra completion")


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script for bash, printed by a process that must not load PyTorch for it."""
    code = (
        "import sys\nfrom effnet.cli import main\ncode = main(['completion', 'bash'])\n"
        "sys.exit(code or len({'torch', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=variables(), capture_output=True, text=True, check=True
    )
    path = tmp_path_factory.mktemp("completion") / "effnet.bash"
    path.write_text(done.stdout)
    return path


def completed(script: Path, folder: Path, *words: str) -> set[str]:
    """Return the completions that bash has for the last word of a command line."""
    line = " ".join(words)
    code = f"""
        source {shlex.quote(str(script))}
        COMP_WORDS=({" ".join(map(shlex.quote, words))}) COMP_CWORD={len(words) - 1}
        COMP_LINE={shlex.quote(line)} COMP_POINT={len(line)} COMP_TYPE=9 COMP_KEY=9
        registered=$(complete -p effnet)
        function_of=${{registered##*-F }}; function_of=${{function_of%% *}}
        "$function_of" effnet {shlex.quote(words[-1])} {shlex.quote(words[-2])}
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_commands(script: Path, tmp_path: Path) -> None:
    assert {"train", "classify", "doctor"} <= completed(script, tmp_path, "effnet", "")
    assert completed(script, tmp_path, "effnet", "cla") == {"classify"}
    assert "onnx" in completed(script, tmp_path, "effnet", "export", "o")


def test_flags_and_values(script: Path, tmp_path: Path) -> None:
    assert "--label-smoothing" in completed(script, tmp_path, "effnet", "train", "--label-s")
    assert {"rmsprop", "adamw"} <= completed(script, tmp_path, "effnet", "train", "--optimizer", "")
    assert "efficientnet-lite0" in completed(
        script, tmp_path, "effnet", "classify", "--arch", "efficientnet-l"
    )


def test_folders_and_files(script: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "image.jpg").touch()
    assert completed(script, tmp_path, "effnet", "train", "ima") == {"images"}
    assert "image.jpg" in completed(script, tmp_path, "effnet", "classify", "ima")


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_reads_its_script(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    path = tmp_path / "script"
    path.write_text(capsys.readouterr().out)
    assert "find-lr" in path.read_text()
    if shutil.which(shell) is None:
        return  # it is not installed here
    flags = ["--no-execute"] if shell == "fish" else ["-n"]
    done = subprocess.run([shell, *flags, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
