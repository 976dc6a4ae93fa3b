"""The tutorial's commands, as `tools/tutorial.py` copies them from the page."""

from pathlib import Path

from tools import tutorial


def test_the_page_installs_first() -> None:
    first, *others = tutorial.commands()
    assert first.splitlines() == ["make install", ". .venv/bin/activate"]
    assert not any("install" in block for block in others)


def test_commands_run_in_one_shell_until_one_fails(tmp_path: Path) -> None:
    blocks = ["answer=42\necho $answer > answer.txt\n", "false\n", "touch never\n"]
    done = tutorial.run(tutorial.script(blocks, lambda line: line.replace("42", "43")), tmp_path)
    assert done.returncode == 1
    assert (tmp_path / "answer.txt").read_text() == "43\n"
    assert not (tmp_path / "never").exists()
    assert done.stdout.splitlines()[-1] == "$ false"
