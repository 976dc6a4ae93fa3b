"""The engines that were measured to be the fastest, kept in the cache folder for the next command."""

import json
import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from effnet.runtime.cache import cache_dir
from effnet.runtime.disk import DiskError, cannot_write
from effnet.runtime.errors import UserError
from effnet.runtime.files import write_text
from effnet.runtime.plain import is_count, is_number, parse_json

_LOG = logging.getLogger("effnet")
_MOST = 200  # records; the oldest are dropped
_WAIT = 120.0  # seconds for another process that measures
_LONGEST = 1e6  # milliseconds
_MOST_IMAGES = 1 << 20


@dataclass(frozen=True)
class Kept:
    """A measurement of engines for one model, batch and machine.

    Attributes:
        best: the candidate that was the fastest, as text; empty if none was kept.
        milliseconds: median time of a batch by candidate.
        images: images in the batch that was timed.
        spread: differences between the rounds, relative to the median.
        measured: date.
        failed: candidates in whose trial the process died.
    """

    best: str = ""
    milliseconds: Mapping[str, float] = field(default_factory=dict)
    images: int = 0
    spread: float = 0.0
    measured: str = ""
    failed: tuple[str, ...] = ()

    @property
    def is_usable(self) -> bool:
        """True if it names the fastest candidate."""
        return bool(self.best)

    def told(self) -> str:
        """Return the result in words: ``openvino (12.1 ms for 8 images; onnxruntime 14.0, torch 21.3)``.

        Of an engine's settings, only the fastest are named.
        """
        others = dict[str, float]()
        for name, time in sorted(self.milliseconds.items(), key=lambda item: item[1]):
            engine = name.partition(" ")[0]
            if engine != self.best.partition(" ")[0]:
                others.setdefault(engine, time)
        own = f"{self.milliseconds[self.best]:.1f} ms for {self.images} image{'s'[: self.images != 1]}"
        rest = ", ".join(f"{name} {time:.1f}" for name, time in others.items())
        return f"{self.best} ({own}{'; ' if rest else ''}{rest})"


class EngineChoices:
    """The file of measurements, by a key that names all they depend on. A damaged file counts as an empty one.

    Args:
        path: the file; None for the one in `cache_dir`.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or cache_dir() / "engines.json"

    def all(self) -> dict[str, Kept]:
        """Return all measurements."""
        try:
            content = parse_json(self.path.read_bytes())
            if not isinstance(content, dict):
                raise UserError("no measurements")
            return {key: _kept(values) for key, values in content.items()}
        except FileNotFoundError:
            return {}
        except (OSError, UserError) as error:
            _LOG.warning("engine: %s can't be read; measuring again (%s)", self.path, error)
            return {}

    def get(self, key: str) -> Kept:
        """Return what is kept for a key; an empty measurement where there is nothing."""
        return self.all().get(key, Kept())

    def put(self, key: str, kept: Kept) -> bool:
        """Keep a measurement in place of the key's former one, and return True; False if the disk does not take it."""
        known = self.all()
        known.pop(key, None)
        latest = [*known.items(), (key, kept)][-_MOST:]
        try:
            write_text(self.path, json.dumps({key: asdict(each) for key, each in latest}, indent=1))
        except DiskError as error:
            _LOG.warning("%s; the engines are measured again by the next command", error)
            return False
        return True

    def forget(self) -> int:
        """Remove all measurements, and return their number.

        Raises:
            DiskError: the file can't be removed.
        """
        known = self.all()
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(self.path, error) from None
        return len(known)

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Let one process on a machine measure, while the others wait. Yields False if that can't be had."""
        from filelock import FileLock, Timeout  # not for `effnet doctor`, which runs without packages

        lock = FileLock(self.path.with_suffix(".lock"), timeout=_WAIT)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            _LOG.warning("engine: another process measures for %.0f s; going on without it", _WAIT)
            yield False
            return
        except OSError as error:
            _LOG.warning(
                "%s; the engines are measured again by the next command", cannot_write(self.path, error)
            )
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    @contextmanager
    def trying(self, key: str, candidate: str) -> Iterator[None]:
        """Note within the block that a candidate is tried, so that one in which the process dies is known as such."""
        before = self.get(key)
        self.put(key, replace(before, failed=(*before.failed, candidate)))
        try:
            yield
        finally:
            self.put(key, before)


def _kept(values: object) -> Kept:
    """Return the measurement of plain values.

    Raises:
        UserError: they are none.
    """
    try:
        kept = Kept(**values)  # type: ignore[arg-type]
    except TypeError:
        raise UserError("no measurement") from None
    times, failed = kept.milliseconds, kept.failed
    is_right = (
        isinstance(times, dict)
        and all(is_number(time, 0, _LONGEST) for time in times.values())
        and is_count(kept.images, 0, _MOST_IMAGES)
        and is_number(kept.spread, 0, _LONGEST)
        and _are_texts([kept.best, kept.measured])
        and isinstance(failed, list)
        and _are_texts(failed)
        and (not kept.best or kept.best in times)
    )
    if not is_right:
        raise UserError("no measurement")
    return replace(kept, failed=tuple(failed))


def _are_texts(values: Collection[object]) -> bool:
    return all(isinstance(value, str) for value in values)
