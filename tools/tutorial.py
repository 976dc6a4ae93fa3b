"""Run the commands of docs/tutorial.md as they stand there, in a fresh folder or in a fresh clone of this repository.

python tools/tutorial.py [FOLDER]          with the effnet of this environment, all but the first block
python tools/tutorial.py --clone [FOLDER]  everything, in a clone
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = REPOSITORY / "docs" / "tutorial.md"

_BLOCK = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
# Each command is printed before it runs; none outlives the script, whatever fails.
_HEAD = "set -euo pipefail\ntrap 'kill $(jobs -p) 2> /dev/null || true' EXIT\nPS4='$ '\nset -x\n"


def commands() -> list[str]:
    """Return the page's blocks of commands; the first one installs."""
    return _BLOCK.findall(PAGE.read_text(encoding="utf-8"))


def script(blocks: Sequence[str], change: Callable[[str], str] = str) -> str:
    """Return a Bash script that runs blocks in one shell and ends at the first command that fails.

    Args:
        blocks: of `commands`.
        change: what becomes of a line, for a test that shortens a training.
    """
    return _HEAD + "\n".join(change(line) for block in blocks for line in block.splitlines())


def run(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a script in a folder, with this Python's commands first on the path.

    Returns:
        The exit code, and everything that was printed, in the order of its appearance, as `stdout`.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", text],
        cwd=folder,
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def main() -> int:
    """Run the tutorial, print what it printed and how long it took; return its exit code."""
    parser = argparse.ArgumentParser(description="Run the commands of docs/tutorial.md.")
    parser.add_argument("folder", nargs="?", type=Path, help="an empty or new one [default: a temporary one]")
    parser.add_argument("--clone", action="store_true", help="clone this repository, and install it")
    namespace = parser.parse_args()
    folder = namespace.folder or Path(tempfile.mkdtemp(prefix="tutorial-"))
    if namespace.clone:
        subprocess.run(["git", "clone", "-q", str(REPOSITORY), str(folder)], check=True)
    folder.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    done = run(script(commands() if namespace.clone else commands()[1:]), folder)
    print(done.stdout)
    print(f"{folder}: exit code {done.returncode} after {time.monotonic() - start:.0f} s")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
