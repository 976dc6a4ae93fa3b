"""The folder in which the parts of a table gather: ``FILE.parts``, removed when the table is written."""

import csv
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effnet.inference.predict.columns import Column
from effnet.inference.predict.computing import Part
from effnet.inference.predict.formats import format_of
from effnet.inference.predict.formats.csv import csv_bytes
from effnet.inference.predict.job import same_table
from effnet.runtime.disk import cannot_write
from effnet.runtime.errors import UserError
from effnet.runtime.files import atomic_file, atomic_path, move_into_place, write_text
from effnet.runtime.lock import exclusive
from effnet.runtime.temporary import remove_stale_temporaries, temporary_path

_PLAN = "plan.json"
_DONE, _BAD = ".part", ".bad"


@dataclass(frozen=True)
class Shard:
    """A share of the parts: those from `number` / `count` of them on, in order.

    Attributes:
        number: from 0.
        count: shares that there are.
    """

    number: int = 0
    count: int = 1

    def parts(self, parts: int) -> range:
        """Return the share of so many parts."""
        return range(self.number * parts // self.count, (self.number + 1) * parts // self.count)


class Work:
    """The parts of a table.

    Args:
        out: file of the table.
        plan: what identifies it; see `PredictJob.header`.
    """

    def __init__(self, out: Path, plan: Mapping[str, Any]) -> None:
        self.out = out
        self.plan = plan
        self.folder = folder_of(out)
        self.images = int(plan["source"]["images"])
        self.parts = -(-self.images // int(plan["part"]))

    @classmethod
    def found(cls, out: Path) -> "Work":
        """Return the work that a file's folder holds.

        Raises:
            UserError: there is none.
        """
        plan = plan_of(out)
        if plan is None:
            raise UserError(f"{folder_of(out)}: no such folder; run the shards of {out} first")
        return cls(out, plan)

    def begin(self, *, overwrite: bool) -> None:
        """Make the folder, or take the one that an earlier call left.

        Args:
            overwrite: remove one of another table.

        Raises:
            UserError: it is of another table.
            DiskError: it can't be written.
        """
        try:
            self.folder.mkdir(exist_ok=True)
            remove_stale_temporaries(self.folder)
            before = _read_plan(self.folder)
            if before is not None and same_table(before, self.plan):
                self.plan = before
            elif before is not None:
                if not overwrite:
                    raise UserError(_differing(self.folder, before, self.plan))
                remove_at_once(self.folder)
                self.folder.mkdir(exist_ok=True)
            if self.plan is not before:
                write_text(self.folder / _PLAN, json.dumps(self.plan, indent=1))
        except OSError as error:
            raise cannot_write(error.filename or self.folder, error) from None

    @contextmanager
    def held(self, name: str) -> Iterator[bool]:
        """Hold a share of the work in the block, or wait for who does. Yields False if the folder is gone then."""
        try:
            with exclusive(self.folder, f".{name}.lock", make=False):
                yield True
        except FileNotFoundError:
            if self.folder.exists():
                raise
            yield False

    def missing(self, shard: Shard) -> list[int]:
        """Return the parts of a share that are not finished."""
        finished = {path.stem for path in self.folder.glob(f"*{_DONE}")}
        return [number for number in shard.parts(self.parts) if _stem(number) not in finished]

    def images_of(self, numbers: Sequence[int]) -> int:
        """Return the images of some parts."""
        size = int(self.plan["part"])
        return sum(min(size, self.images - number * size) for number in numbers)

    def write(self, part: Part) -> None:
        """Write a finished part.

        Raises:
            DiskError: it can't be written.
        """
        place = self.folder / _stem(part.number)
        # The part comes last: it is by this that it counts as finished.
        for suffix, content in ((_BAD, part.bad), (_DONE, part.content)):
            if content or suffix == _DONE:
                with atomic_file(place.with_suffix(suffix)) as file:
                    file.write(content)

    def join(self) -> None:
        """Write the table and the list of bad images from all parts, and remove the folder.

        Raises:
            UserError: a part is missing.
            DiskError: the table can't be written; the parts are kept.
        """
        if missing := self.missing(Shard()):
            raise UserError(
                f"{self.out}: {len(missing)} of {self.parts} parts are missing, the first is part {missing[0]}; "
                "run the shards that have not ended"
            )
        self._join_bad()
        columns = [Column(**column) for column in self.plan["columns"]]
        parts = [self.folder / f"{_stem(number)}{_DONE}" for number in range(self.parts)]
        with atomic_path(self.out) as path:
            format_of(self.out).join(columns, parts, path, self.plan)
        remove_at_once(self.folder)

    def _join_bad(self) -> None:
        found = sorted(self.folder.glob(f"*{_BAD}"))
        listed = bad_list(self.out)
        if not found:
            listed.unlink(missing_ok=True)
            return
        content = b"".join(path.read_bytes() for path in found)
        with atomic_file(listed) as file:
            file.write(csv_bytes([["path", "reason"]]) + content)


def folder_of(out: Path) -> Path:
    """Return the folder for the parts of a table."""
    return out.with_name(f"{out.name}.parts")


def bad_list(out: Path) -> Path:
    """Return the file that lists the bad images of a table."""
    return out.with_name(f"{out.name}.bad.csv")


def count_bad(out: Path) -> int:
    """Return the number of bad images of a table that is written."""
    try:
        with bad_list(out).open(encoding="utf-8", newline="") as file:
            return sum(1 for _ in csv.reader(file)) - 1
    except FileNotFoundError:
        return 0


def remove_at_once(folder: Path) -> None:
    """Remove a folder, which a kill in between does not leave half empty under its name."""
    doomed = temporary_path(folder)
    move_into_place(folder, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _stem(number: int) -> str:
    return f"{number:07d}"


def plan_of(out: Path) -> dict[str, Any] | None:
    """Return what identifies the table that has been begun for a file; None where there is none.

    Raises:
        UserError: it can't be read.
    """
    return _read_plan(folder_of(out))


def _read_plan(folder: Path) -> dict[str, Any] | None:
    try:
        plan = json.loads((folder / _PLAN).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        plan = None
    if not isinstance(plan, dict):
        raise UserError(f"{folder / _PLAN} is damaged; remove {folder} and start again")
    return plan


def _differing(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    names = [name for name in now if name != "threads" and before.get(name) != now[name]]
    return (
        f"{folder} holds parts of a table with another {' and '.join(names) or 'version'}; give the same "
        "arguments, or --overwrite to start again"
    )
