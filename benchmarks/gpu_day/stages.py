"""The stages: what runs in each, on a GPU and in the smallest form.

A part is a command in its own process. {out} stands for the folder of results, {data} for that of images, {tests} for
the files of tests that hold tests of GPUs. `python` and `effnet` are those of the running interpreter.
"""

from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
DATA = REPOSITORY / ".gpu-day"
"""folder that travels to the machine beside the repository"""


@dataclass(frozen=True)
class Stage:
    """A stage.

    Attributes:
        name: selects it; so does its first letter, with all others of that letter.
        shows: what it is for.
        minutes: all of its parts are ended after these.
        parts: name of a part to its command, on a GPU.
        smallest: some of these, at sizes for two cores.
    """

    name: str
    shows: str
    minutes: float
    parts: dict[str, str]
    smallest: dict[str, str]


_IMAGES = "python -m benchmarks.gpu_day.images {data}"
_TRAIN = "effnet benchmark train --amp --json {out}/"
_INFERENCE = "effnet benchmark inference --precision amp --json {out}/"
_LAB = "python -m benchmarks "
_SMALL_LAB = "python -m benchmarks.gpu_day.smallest "
_CIFAR = "effnet train {data}/cifar10-packed --data-backend packed --resize 64 --workspace {out}/cifar10"
_SMALL = " --image-size 32 --device cpu"
_ONE_ROUND = " --rounds 1 --steps 1 --eager-only"
_SMALL_TRAIN = f"effnet benchmark train --batch-size 2{_SMALL}{_ONE_ROUND} --precision bf16 --json {{out}}/"
_SMALL_INFERENCE = (
    f"effnet benchmark inference{_SMALL}{_ONE_ROUND} --seconds 0.01 --engine torch --json {{out}}/"
)

STAGES = (
    Stage(
        "a-tests",
        "every path of a GPU computes what the CPU does",
        8.5,
        {"tests": "python -m pytest -q -m cuda -p no:cacheprovider --junitxml {out}/tests.xml {tests}"},
        {
            "tests": "python -m pytest -q -k cpu -p no:cacheprovider --junitxml {out}/tests.xml"
            " tests/training/test_ema.py"
        },
    ),
    Stage(
        "b-kernels",
        "the Triton kernels: errors against float64, times by shape, and the first start that chooses among them",
        8.5,
        {
            "kernels-b0": f"{_LAB}kernels --batch-size 256 --amp --json {{out}}/kernels-b0.json",
            "first-start": f"{_LAB}epoch --data-backend synthetic --batch-size 256 --amp --rounds 1 --steps 5"
            " --json {out}/first-start.json",
        },
        {
            "kernels-b0": f"{_SMALL_LAB}kernels --anywhere --shapes 1 --batch-size 1{_SMALL} --precision fp16"
            " --json {out}/kernels-b0.json"
        },
    ),
    Stage(
        "c-train-b0",
        "B0's training step beside torchvision's and timm's",
        8.9,
        {
            # PyTorch's operators first: they need no tuning.
            "train-b0": f"{_TRAIN}train-b0.json --batch-size 256 --steps 10 --kernels torch",
            "train-b0-kernels": f"{_TRAIN}train-b0-kernels.json --batch-size 256 --steps 10 --no-baselines"
            " --kernels auto",
        },
        {"train-b0": f"{_SMALL_TRAIN}train-b0.json --kernels torch"},
    ),
    Stage(
        "c-train-b4",
        "B4's",
        8.9,
        {
            "train-b4-eager": f"{_TRAIN}train-b4-eager.json -a efficientnet-b4 --batch-size 64 --eager-only"
            " --kernels torch",
            "train-b4": f"{_TRAIN}train-b4.json -a efficientnet-b4 --batch-size 64 --kernels torch",
        },
        {"train-b4": f"{_SMALL_TRAIN}train-b4.json -a efficientnet-b4 --no-baselines --kernels torch"},
    ),
    Stage(
        "c-inference",
        "engines beside torchvision and timm",
        8.9,
        {
            "inference-b0": f"{_INFERENCE}inference-b0.json --batch-size 1 256",
            "inference-b4": f"{_INFERENCE}inference-b4.json -a efficientnet-b4 --batch-size 1 64",
        },
        {"inference-b0": f"{_SMALL_INFERENCE}inference-b0.json --batch-size 1 2"},
    ),
    Stage(
        "d-roofline",
        "time of each stage beside its floor, and the ten most expensive kernels of a step",
        8.5,
        {
            "profile": f"{_LAB}profile --batch-size 256 --amp --compile --json {{out}}/profile.json",
            "roofline-eager": f"{_LAB}roofline --batch-size 256 --amp --json {{out}}/roofline-eager.json",
            "roofline": f"{_LAB}roofline --batch-size 256 --amp --compile --json {{out}}/roofline.json",
        },
        {
            "profile": f"{_SMALL_LAB}profile --steps 1 --batch-size 2{_SMALL} --json {{out}}/profile.json",
            "roofline": f"{_SMALL_LAB}roofline -a efficientnet-lite0 --batch-size 2{_SMALL}"
            " --json {out}/roofline.json",
        },
    ),
    Stage(
        "e-input",
        "does the GPU ever wait for images",
        8.5,
        {
            "images": _IMAGES,
            "packed": f"{_LAB}epoch {{data}}/cifar10-packed --data-backend packed --image-size 64 --resize 64"
            " --batch-size 512 --amp --compile --json {out}/epoch-cifar10.json",
            "jpeg": f"{_LAB}epoch {{data}}/photographs --batch-size 256 --amp --compile --json {{out}}/epoch-jpeg.json",
        },
        {
            "images": f"{_IMAGES} --smallest",
            "packed": f"{_SMALL_LAB}epoch {{data}}/cifar10-packed --data-backend packed --batch-size 8 --resize 32"
            f" -a efficientnet-lite0 --workers 0 --rounds 1 --steps 2{_SMALL} --json {{out}}/epoch-cifar10.json",
            "jpeg": f"{_SMALL_LAB}epoch {{data}}/photographs --batch-size 4 --workers 0 --rounds 1 --steps 2{_SMALL}"
            " -a efficientnet-lite0 --json {out}/epoch-jpeg.json",
        },
    ),
    Stage(
        "f-cifar10",
        "a whole training on CIFAR-10, for accuracy",
        8.9,
        {
            "images": _IMAGES,
            "train": f"{_CIFAR} --image-size 64 --batch-size 512 --optimizer-batch-size 512 --optimizer sgd --nesterov"
            " --lr 0.2 --warmup 5 --weight-decay 5e-4 --epochs 80 --lr-schedule cosine"
            " --label-smoothing 0.1 --augmentation none --crop-scale 0.4 1"
            " --mixup 0 --dropout 0.1 --use-ema 0.999 --amp --compile --kernels torch --no-calibrate-confidence",
        },
        {
            "images": f"{_IMAGES} --smallest",
            "train": f"{_CIFAR} --batch-size 20 --optimizer-batch-size 20 --optimizer sgd --nesterov"
            f" --lr 0.02 --warmup 0 --epochs 1 --augmentation none --mixup 0 -a efficientnet-lite0 --workers 0{_SMALL}",
        },
    ),
)


def selected(names: list[str]) -> list[Stage]:
    """Return the stages of these names or first letters, in their order; all if none is given.

    Raises:
        KeyError: a name is no stage's; holds the name.
    """
    for name in names:
        if not any(name in (stage.name, stage.name[0]) for stage in STAGES):
            raise KeyError(name)
    return [stage for stage in STAGES if not names or stage.name in names or stage.name[0] in names]


def files_of_gpu_tests() -> list[str]:
    """Return the files that hold tests of GPUs; those of other files may need packages that a GPU machine lacks."""
    marker = "mark." + "cuda"
    return sorted(
        str(path.relative_to(REPOSITORY))
        for path in (REPOSITORY / "tests").rglob("test_*.py")
        if marker in path.read_text(encoding="utf-8")
    )
