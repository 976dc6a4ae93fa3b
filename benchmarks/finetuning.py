"""Fine-tuning on few images, beside timm's parts in the same wall-clock time.

Both start from the same weights: the logits of timm's model with ours carried over are compared first. A run is a
process, timed from its start to its end, without validation; the last weights are judged on images of their own
afterwards. timm gets the time that ours took from the start of its process, without paying for its own start, for each
of several learning rates, of which the best one counts.
"""

import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch

from benchmarks.timm_finetuning import MODEL
from effnet.benchmark.environment import environment
from effnet.benchmark.tables import markdown
from effnet.models.efficientnet import EfficientNet
from effnet.runtime.errors import UserError
from effnet.weights import WeightsMetadata, load_model
from effnet.weights.layouts import LAYOUTS

_REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class FinetuningBenchmark:
    """Settings of the benchmark.

    Attributes:
        data: folder with ``train/<class>/`` to draw from and ``val/<class>/`` to judge on.
        weights: weights of efficientnet-lite0, as ``--pretrained-from-file`` takes them.
        per_class: images of a class, a table row for each number.
        image_size: side in pixels.
        seeds: number of seeds, each of which draws other images.
        lrs: learning rates for timm.
        flags: further flags of `effnet train`.
    """

    data: Path
    weights: Path
    per_class: Sequence[int] = (100, 10)
    image_size: int = 96
    seeds: int = 3
    lrs: Sequence[float] = (1e-3, 3e-3, 1e-2)
    flags: Sequence[str] = ()


def benchmark_finetuning(settings: FinetuningBenchmark) -> dict[str, Any]:
    """Fine-tune and judge.

    Returns:
        The runs, `runs` by images of a class, and the environment, as plain values for JSON.

    Raises:
        UserError: images or weights can't be used, or a run failed.
    """
    model = load_model(settings.weights, name="efficientnet-lite0")
    metadata = model.metadata
    assert metadata is not None
    runs = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        carried = folder / "timm.pth"
        difference = carry_over(model, carried)
        for per_class in settings.per_class:
            for seed in range(settings.seeds):
                images = folder / f"{per_class}-{seed}"
                draw(settings.data, images, per_class, seed)
                runs.append(_run(settings, metadata, images, carried, per_class, seed))
                print(json.dumps(runs[-1]), flush=True)
    return {"runs": runs, "largest_logit_difference": difference, "environment": environment()}


def carry_over(model: EfficientNet, path: Path) -> float:
    """Write our weights for timm's model, and return the largest difference of the two models' logits.

    Raises:
        UserError: the models are not the same function.
    """
    import timm

    state = LAYOUTS["timm"].from_ours(model.state_dict(), model.config)
    theirs = timm.create_model(MODEL, num_classes=model.config.num_classes).eval()
    theirs.load_state_dict(state)
    images = torch.randn(4, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model.eval()(images)
        difference = float((theirs(images) - expected).abs().max())
    if difference > 1e-3 * float(expected.abs().max()):
        raise UserError(f"timm's {MODEL} differs from ours in its logits by {difference:g}")
    torch.save(state, path)
    return difference


def draw(data: Path, folder: Path, per_class: int, seed: int) -> None:
    """Make a data folder of links: some images of each class of ``train/``, and all of ``val/``.

    Raises:
        UserError: there are too few images.
    """
    for source in sorted(path for path in (data / "train").iterdir() if path.is_dir()):
        files = sorted(source.iterdir())
        if len(files) < per_class:
            raise UserError(f"{source} has {len(files)} images, fewer than {per_class}")
        (folder / "train" / source.name).mkdir(parents=True)
        for file in random.Random(f"{seed}/{source.name}").sample(files, per_class):
            (folder / "train" / source.name / file.name).symlink_to(file.resolve())
    (folder / "val").symlink_to((data / "val").resolve())


def _run(
    settings: FinetuningBenchmark,
    metadata: WeightsMetadata,
    images: Path,
    carried: Path,
    per_class: int,
    seed: int,
) -> dict[str, Any]:
    seconds, top1 = _ours(settings, images, seed)
    theirs = {}
    for lr in settings.lrs:
        out = images / f"{lr}.json"
        command = [*("-m", "benchmarks.timm_finetuning", str(images), "--weights", str(carried))]
        command += ["--normalisation", *(str(metadata.preprocessing[name][0]) for name in ("mean", "std"))]
        command += ["--image-size", str(settings.image_size), "--lr", str(lr), "--seed", str(seed)]
        command += ["--seconds", str(seconds), "--out", str(out)]
        _process(command)
        theirs[f"{lr:g}"] = json.loads(out.read_text())
    return {"per_class": per_class, "seed": seed, "seconds": seconds, "top1": top1, "timm": theirs}


def _ours(settings: FinetuningBenchmark, images: Path, seed: int) -> tuple[float, float]:
    """Return the seconds of a training process, and the top-1 accuracy of its weights in percent."""
    workspace = images / "run"
    command = ["-m", "effnet", "train", str(images), "--recipe", str(_REPOSITORY / "recipes/finetune.yaml")]
    command += ["--no-pretrained", "--pretrained-from-file", str(settings.weights), "--training-only"]
    command += ["--image-size", str(settings.image_size), "--seed", str(seed), "--workers", "1"]
    command += ["--device", "cpu", "--workspace", str(workspace), *settings.flags]
    begun = time.time()
    _process(command)
    seconds = time.time() - begun
    judge = ["-m", "effnet", "evaluate", str(images), "--json", "--workers", "1", "--device", "cpu"]
    weights = ["--pretrained-from-file", str(workspace / "checkpoint.pth.tar")]
    answer = _process([*judge, *weights, "--workspace", str(images / "judged")])
    return seconds, float(json.loads(answer.splitlines()[-1])["val.top1"])


def _process(arguments: Sequence[str]) -> str:
    """Run Python, and return what it printed.

    Raises:
        UserError: it failed.
    """
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=_REPOSITORY
    )
    if done.returncode:
        raise UserError(f"{' '.join(arguments)} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def table(result: dict[str, Any]) -> str:
    """Return the means over the seeds as a Markdown table."""
    rows = []
    for per_class in dict.fromkeys(run["per_class"] for run in result["runs"]):
        runs = [run for run in result["runs"] if run["per_class"] == per_class]
        ours = [run["top1"] for run in runs]
        by_lr = {lr: [run["timm"][lr]["top1"] for run in runs] for lr in runs[0]["timm"]}
        best = max(by_lr, key=lambda lr: fmean(by_lr[lr]))
        gain = f"{fmean(ours) - fmean(by_lr[best]):+.1f}"
        seconds = f"{fmean(run['seconds'] for run in runs):.0f}"
        rows.append([str(per_class), seconds, _mean(ours), _mean(by_lr[best]), best, gain])
    header = ["images a class", "seconds", "effnet", "timm", "its learning rate", "points"]
    return markdown(header, rows)


def _mean(values: Sequence[float]) -> str:
    spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
    return f"{fmean(values):.1f} %{spread}"
