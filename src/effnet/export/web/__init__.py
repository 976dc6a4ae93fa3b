"""A folder of static files that classifies photographs in a browser, by onnxruntime-web, without a server's help."""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from effnet.export.reference import check_difference
from effnet.export.trained import ModelChoice
from effnet.export.web.models import WebModel, web_model
from effnet.export.web.runtime import VERSION, copy_runtime
from effnet.runtime.disk import check_new_folder
from effnet.runtime.errors import UserError, one_line
from effnet.runtime.files import atomic_folder
from effnet.runtime.progress import working

_CHECK_S = 900
_WORKER = "offline.js"


@dataclass(frozen=True)
class WebFolder:
    """A folder that has been written.

    Attributes:
        path: the folder.
        size: bytes of all files.
        models: name and bytes of each model.
        differences: largest difference of a logit in onnxruntime-web to PyTorch's, of each model; None where Node.js
            is missing.
    """

    path: Path
    size: int
    models: tuple[tuple[str, int], ...]
    differences: tuple[float, ...] | None

    def lines(self) -> list[str]:
        """Return what to tell of it."""
        lines = [f"{self.path}: {self.size / 2**20:.1f} MiB, onnxruntime-web {VERSION}"]
        for index, (name, size) in enumerate(self.models):
            compared = (
                "not compared with PyTorch here, since Node.js is missing; the page does so when it opens it"
                if self.differences is None
                else f"logits in WebAssembly differ from PyTorch's by at most {self.differences[index]:.1e}"
            )
            lines.append(f"{name}: {size / 2**20:.1f} MiB; {compared}")
        return lines


def export_web(
    choices: Sequence[ModelChoice],
    folder: Path,
    *,
    runtime: Path | None = None,
    webgpu: bool = True,
) -> WebFolder:
    """Write a page that classifies photographs, with its models and its runtime.

    Each ONNX file is compared with PyTorch as `effnet.export.onnx.export_onnx` does it. Then, where Node.js is
    installed, the page's own code prepares an image and runs it in onnxruntime-web, and the folder is written only if
    the logits are PyTorch's. The page repeats this comparison in each browser that opens it.

    Args:
        choices: the models, weights or ONNX files; the page opens the first.
        folder: to write; must be empty if it exists.
        runtime: npm package of onnxruntime-web; None for the one in the cache, which npm downloads.
        webgpu: bring the runtime for WebGPU along.

    Raises:
        UserError: the folder has something in it, a model or the runtime can't be used, or other logits than PyTorch's.
    """
    check_new_folder(folder)
    with atomic_folder(folder) as unfinished:
        for name in ("models", "runtime"):
            (unfinished / name).mkdir()
        with working("fetching onnxruntime-web"):
            copy_runtime(unfinished / "runtime", source=runtime, webgpu=webgpu)
        models = [web_model(choice, unfinished / "models") for choice in choices]
        _write_page(models, unfinished, webgpu)
        with working("comparing with PyTorch in WebAssembly"):
            differences = _differences(unfinished)
        for model, difference in zip(models, differences or (), strict=False):
            check_difference(folder, difference, model.tolerance)
        size = sum(file.stat().st_size for file in unfinished.rglob("*") if file.is_file())
        named = tuple((model.name, model.file.stat().st_size) for model in models)
    return WebFolder(folder, size, named, differences)


def _write_page(models: Sequence[WebModel], folder: Path, webgpu: bool) -> None:
    assets = resources.files(__package__).joinpath("assets")
    for asset in assets.iterdir():
        (folder / asset.name).write_bytes(asset.read_bytes())
    (folder / "runtime" / "licence.txt").write_bytes((folder / "runtime-licence.txt").read_bytes())
    (folder / "runtime-licence.txt").unlink()
    facts = {"webgpu": webgpu, "runtime": VERSION, "models": [model.facts() for model in models]}
    (folder / "models.json").write_text(json.dumps(facts), encoding="utf-8")
    # The browser keeps the files of one build together.
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(file.read_bytes())
    worker = folder / _WORKER
    worker.write_text(worker.read_text(encoding="utf-8").replace("BUILD", digest.hexdigest()[:16]), "utf-8")


def _differences(folder: Path) -> tuple[float, ...] | None:
    """Return the differences that Node.js finds with the folder's own code; None without Node.js."""
    node = shutil.which("node")
    if node is None:
        return None
    with resources.as_file(resources.files(__package__).joinpath("check.mjs")) as script:
        try:
            done = subprocess.run(
                [node, str(script), str(folder)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_CHECK_S,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UserError(f"Node.js can't run the page's code: {one_line(error)}") from None
    if done.returncode:
        raise UserError(f"Node.js can't run the page's code: {one_line(done.stderr.strip()[-300:])}")
    return tuple(float("nan") if each is None else float(each) for each in json.loads(done.stdout))
