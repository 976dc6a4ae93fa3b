"""Runs of `effnet predict` for its tests: small images, weights and parts; calls that kill themselves.

As a script it makes calls in forked processes:
python -m tests.inference.predicting MOMENTS ARGUMENTS, where MOMENTS says by call at which of its renames it is killed,
before or after: 1b,2a. The last call is not.
"""

import os
import signal
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image

from effnet.cli import main
from effnet.inference.predict import job, run
from effnet.inference.predict.formats import FORMATS
from effnet.weights import WeightsMetadata, create_model, save_weights
from tests.runs import CLASSES, PREPROCESSING

IMAGES, BATCH = 21, 3
PART = 6
"""images of a part in these tests"""


def write_source(root: Path) -> Path:
    """Images without classes, some in subfolders, two of them bad."""
    random = np.random.default_rng(0)
    for index in range(IMAGES):
        folder = root / ("", "one", "one/two")[index % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(
            folder / f"{index:02d}.jpg"
        )
    (root / "05 bad.jpg").write_bytes(b"\xff\xd8 nothing more")
    (root / "one/bad, too.png").write_bytes(b"")
    (root / "notes.txt").write_text("no image")
    return root


def write_weights(path: Path) -> Path:
    """Weights whose answers differ from image to image."""
    torch.manual_seed(0)
    model = create_model("efficientnet-lite0", num_classes=len(CLASSES))
    torch.nn.init.normal_(model.get_classifier().weight, std=0.3)
    metadata = WeightsMetadata("efficientnet-lite0", PREPROCESSING, padding="same", classes=CLASSES)
    save_weights(path, model.state_dict(), metadata)
    return path


def forked(arguments: list[str], moment: str) -> int:
    """Run a command in a forked process, which is killed at a moment; return its code as `os.waitpid` gives it."""
    process = os.fork()
    if process:
        return os.waitpid(process, 0)[1]
    number, after = int(moment[:-1]), moment.endswith("a")
    original = os.replace

    def replace(*names: str | Path) -> None:
        nonlocal number
        number -= 1
        if number == 0 and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        original(*names)
        if number == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    with patch("os.replace", replace):
        os._exit(main(arguments))


if __name__ == "__main__":
    print(run.__name__, [form.check() for form in FORMATS.values()])  # imported once for all calls
    job._PART = PART
    for kill in filter(None, sys.argv[1].split(",")):
        assert forked(sys.argv[2:], kill) == signal.SIGKILL, kill
    sys.exit(main(sys.argv[2:]))
