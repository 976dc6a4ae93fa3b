"""Check the images of a run before its first step."""

from pathlib import Path

import numpy as np

from effnet.data import DataSource
from effnet.data.loader import REMEDY
from effnet.data.sources import SourceImages
from effnet.data.verified import Memory, file_keys, find_broken
from effnet.recipe import ResolvedRecipe
from effnet.runtime.cache import cache_dir
from effnet.runtime.errors import UserError
from effnet.runtime.log import RunLog
from effnet.runtime.processes import Processes
from effnet.runtime.progress import ProgressBar

# Images that a process checks between two collectives: NCCL's time-out, ten minutes, must not be reached.
ROUND = 100_000


def check_images(recipe: ResolvedRecipe, data: DataSource, processes: Processes, log: RunLog) -> None:
    """Check that every image file of a run can be decoded, unless the recipe says not to.

    The processes divide the files among them. Files that could be decoded are remembered in the cache folder, and none
    is decoded again before it changes.

    Args:
        recipe: settings; ``--on-bad-image skip`` needs no check, nor does a run of a few iterations (``--prof``).
        data: the opened data; packed sets are not checked.
        processes: the processes of the run.
        log: where broken images are listed.

    Raises:
        UserError: there are broken images; the first is named. Every process of the run raises it.
    """
    if not recipe.data.check_images or recipe.data.on_bad_image == "skip" or recipe.run.prof is not None:
        return
    broken: dict[str, str] = {}
    for split, images in data.files.items():
        flaws = _flaws(split, images, recipe, processes, log)
        if flaws:
            listed = {images.file(index): flaws[index] for index in sorted(flaws)}
            log.record("event", {"event": "broken images", "split": split, "images": listed})
            broken |= listed
    if broken:
        raise UserError(_told(broken, data.path, Path(recipe.run.workspace, recipe.run.report_file)))


def _flaws(
    split: str, images: SourceImages, recipe: ResolvedRecipe, processes: Processes, log: RunLog
) -> dict[int, str]:
    """Return the reason for each broken image of a folder, by index; all processes must call this together."""
    memory = Memory(cache_dir() / "decodable", images, split)
    mine = np.arange(processes.rank, len(images), processes.world_size)
    keys = file_keys(images, mine, workers=recipe.data.workers, timeout=recipe.data.data_timeout)
    decodable = np.isin(keys, memory.read())
    unknown = np.flatnonzero(~decodable)
    numbers = processes.gather(len(unknown))
    if not any(numbers):
        return {}
    log.print(
        f"images to check before the first step: {sum(numbers):,} of {split}/ (--no-check-images for none)"
    )
    flaws: dict[int, str] = {}
    with ProgressBar("checking", len(unknown), show=processes.is_main) as progress:
        for first in range(0, max(numbers), ROUND):
            if first:
                log.print(f"checked {sum(min(first, number) for number in numbers):,} of {sum(numbers):,}")
            places = unknown[first : first + ROUND]
            found: dict[int, str] = {}
            for part, of_part in find_broken(
                images, mine[places], workers=recipe.data.workers, timeout=recipe.data.data_timeout
            ):
                found |= of_part
                progress.advance(len(part))
            decodable[places] = [index not in found for index in mine[places].tolist()]
            gathered = processes.gather((keys[decodable], found))
            if processes.local_rank == 0:
                memory.write(np.concatenate([of_process for of_process, _ in gathered]))
            for _, of_process in gathered:
                flaws |= of_process
    return flaws


def _told(broken: dict[str, str], path: object, report: Path) -> str:
    name, reason = next(iter(broken.items()))
    if len(broken) == 1:
        return f"{name}: {reason}; {REMEDY}"
    return (
        f"{name}: {reason}; nor can {len(broken) - 1:,} more be decoded ({report} and `effnet prepare check {path}` "
        "list all); fix or remove them, or give --on-bad-image skip"
    )
