"""Environments of the converters: packages that don't fit beside others are installed apart, once, into the cache.

An environment lies over the Python that effnet runs in: it holds a converter's own packages, with exact versions, and
finds PyTorch and NumPy where effnet finds them. So it is small, and no package of the user changes.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import filelock

from effnet.runtime.cache import cache_dir
from effnet.runtime.disk import check_writable
from effnet.runtime.errors import UserError, one_line
from effnet.runtime.progress import working

_SCRIPTS = Path(__file__).parent / "scripts"
_COMPLETE = "complete"
# Packages that an environment takes from the one that effnet runs in.
_SHARED = ("torch", "numpy", "yaml", "typing_extensions")


@dataclass(frozen=True)
class Converter:
    """A converter and what it needs.

    Attributes:
        format: the subcommand of `effnet export`.
        packages: all that is installed, each with its version; the converter itself first.
        megabytes: what they take on the disk, roughly.
        script: its module in `scripts`, with the commands `convert` and `run`.
    """

    format: str
    packages: tuple[str, ...]
    megabytes: int
    script: str

    @property
    def folder(self) -> Path:
        """Folder of the environment: another one for other versions, another Python or another PyTorch."""
        key = "\n".join((sys.version, sys.base_prefix, *self.packages, *_shared_folders()))
        return cache_dir() / "converters" / f"{self.format}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"

    @property
    def is_installed(self) -> bool:
        """True if the environment is there, complete."""
        return (self.folder / _COMPLETE).is_file()

    def missing(self, install: bool) -> str | None:
        """Return why the format can't be written now; None if it can, where `install` allows to install it first."""
        if install or self.is_installed:
            return None
        return f"{self.packages[0]} is not in the cache; --install puts it there ({self.megabytes} MB)"

    def install(self) -> None:
        """Make the environment unless it is there.

        Raises:
            UserError: the cache can't be written, or the packages can't be installed.
        """
        folder = self.folder
        check_writable(folder / _COMPLETE, make_folder=True)
        with filelock.FileLock(f"{folder}.lock"):
            if self.is_installed:
                return
            for entry in folder.iterdir():  # what a killed installation left
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
            with working(f"installing {self.packages[0]} (once, {self.megabytes} MB, into {folder})"):
                self._make(folder)
            (folder / _COMPLETE).touch()

    def _make(self, folder: Path) -> None:
        uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
        python = str(_python(folder))
        install: Sequence[str]
        if uv is not None:
            self._step([uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(folder)])
            install = [uv, "pip", "install", "--quiet", "--python", python]
        else:
            self._step([sys.executable, "-m", "venv", str(folder)])
            install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        self._step([*install, "--no-deps", *self.packages])
        (site,) = folder.glob("lib/python*/site-packages")
        (site / "effnet.pth").write_text("\n".join(_shared_folders()) + "\n", encoding="utf-8")

    def _step(self, command: Sequence[str]) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, check=False
        )
        if done.returncode:
            raise UserError(
                f"effnet export {self.format}: {self.packages[0]} can't be installed: {_cause(done.stderr)}; run the "
                f"command once with a network, which fills {self.folder}"
            )

    def run(self, *arguments: str | Path, install: bool = True) -> None:
        """Run the converter's script in its environment, which is made if it is not there.

        Args:
            arguments: of the script.
            install: False refuses to install anything.

        Raises:
            UserError: the environment is not there and can't or mustn't be made, or the script fails.
        """
        if not self.is_installed:
            if not install:
                raise UserError(
                    f"--no-install: {self.packages[0]} is not there; without the flag effnet installs it (once, "
                    f"{self.megabytes} MB) into {self.folder}"
                )
            self.install()
        # Isolated: neither PYTHONPATH nor the script's folder hides one of the packages.
        command = [
            str(_python(self.folder)),
            "-I",
            str(_SCRIPTS / f"{self.script}.py"),
            *map(str, arguments),
        ]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
        )
        if done.returncode:
            raise UserError(f"effnet export {self.format}: {self.packages[0]} fails: {_cause(done.stderr)}")


def _python(folder: Path) -> Path:
    return folder / "bin" / "python"


def _shared_folders() -> list[str]:
    """Return the folders that hold the shared packages."""
    found = (find_spec(name) for name in _SHARED)
    origins = [Path(spec.origin) for spec in found if spec is not None and spec.origin is not None]
    return sorted({str((path.parent if path.name == "__init__.py" else path).parent) for path in origins})


def _cause(text: str) -> str:
    """Return the line of an error output that says most."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return one_line((errors or lines or ["no reason given"])[-1])
