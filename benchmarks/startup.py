"""Times of whole processes from start to end, against `import torch` alone.

The commands take turns, so that a change of the machine's load affects all of them; the table has medians. The
processor's time is less sensitive to what else runs on the machine.

    python benchmarks/startup.py photo.jpg [--rounds 9]
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

from effnet.cli.arguments import integer

_EFFNET = (sys.executable, "-m", "effnet")


def commands(photo: str) -> dict[str, tuple[str, ...]]:
    """The processes to time, by a short name; the first is the baseline."""
    return {
        "import torch": (sys.executable, "-c", "import torch"),
        "effnet --help": (*_EFFNET, "--help"),
        "effnet models": (*_EFFNET, "models"),
        "create_model": (sys.executable, "-c", "import effnet; effnet.create_model('efficientnet-b0')"),
        "effnet classify": (*_EFFNET, "classify", photo),
    }


def run_once(command: Sequence[str]) -> tuple[float, float]:
    """Run a process to its end.

    Returns:
        Seconds that passed, and seconds of the processor in user and system mode.
    """
    before, begun = os.times(), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    passed, after = time.perf_counter() - begun, os.times()
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    return passed, processor


def main() -> None:
    """Time the commands and print a table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("photo", help="image for `effnet classify`, with weights that are on this machine")
    parser.add_argument(
        "--rounds", type=integer(1, 1000), default=9, help="times that each command runs [default: 9]"
    )
    arguments = parser.parse_args()
    timed = commands(arguments.photo)
    rounds = [{name: run_once(command) for name, command in timed.items()} for _ in range(arguments.rounds)]
    medians = {
        name: [statistics.median(values) for values in zip(*(each[name] for each in rounds), strict=True)]
        for name in timed
    }
    passed, processor = medians["import torch"]
    print(
        "| process | s | of `import torch` | processor s | of `import torch` |\n| --- | --- | --- | --- | --- |"
    )
    for name, (wall, cpu) in medians.items():
        print(f"| {name} | {wall:.2f} | {wall / passed:.2f} | {cpu:.2f} | {cpu / processor:.2f} |")


if __name__ == "__main__":
    main()
