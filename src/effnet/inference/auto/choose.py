"""The fastest candidate: from the cache, by a race if there is enough work for it, or the first of a fixed order."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from effnet.inference.auto.race import MOST_SECONDS, Race, fewest_seconds, race
from effnet.inference.auto.step import step_of
from effnet.inference.engines.form import Candidate
from effnet.inference.engines.network import Network
from effnet.runtime.engine_choices import EngineChoices, Kept
from effnet.runtime.errors import UserError, one_line

_LOG = logging.getLogger(__name__)
_SHARE = 0.25  # of the work's time that a measurement may take
_OPENING = 1.0  # seconds, about, until another candidate computes
Clock = Callable[[], float]


@dataclass(frozen=True)
class Work:
    """The images that an engine is opened for.

    Attributes:
        batch_size: images in a batch.
        images: number of images; None for one that is not known or has no end, as in a server.
        again: measure even if a result is kept, and whatever it costs.
        measures: False for the first candidate of the fixed order, whatever is kept.
    """

    batch_size: int
    images: int | None = None
    again: bool = False
    measures: bool = True

    @property
    def batch(self) -> int:
        """Images in its largest batch."""
        return self.batch_size if self.images is None else max(1, min(self.batch_size, self.images))


@dataclass(frozen=True)
class Case:
    """A model for which an engine is to be chosen.

    Attributes:
        key: names all that the choice depends on: model, batch, precision, versions, machine.
        candidates: what may run it; the first one that opens is taken where nothing is measured.
        open: opens the model on one of them.
        images: images in the batch to measure.
    """

    key: str
    candidates: Sequence[Candidate]
    open: Callable[[Candidate], Network]
    images: int


class Opened(NamedTuple):
    """A candidate with the model on it."""

    candidate: Candidate
    network: Network


@dataclass(frozen=True)
class Chooser:
    """Chooses among candidates.

    Attributes:
        kept: the results of earlier choices.
        step: returns the computation of a batch of so many images on a network.
        clock: returns seconds.
    """

    kept: EngineChoices = field(default_factory=EngineChoices)
    step: Callable[[Network, int], Callable[[], object]] = step_of
    clock: Clock = time.perf_counter

    def choose(self, case: Case, work: Work) -> Opened:
        """Return the fastest candidate for a model, opened.

        Args:
            case: the model and the candidates.
            work: what it is for.

        Raises:
            UserError: no candidate can be opened.
        """
        use_known = work.measures and not work.again
        if use_known and (known := self._known(case)):
            return known
        first = self._first(case)
        seconds, reason = self._before(case, first, work)
        if reason:
            _say("%s, %s", first.candidate, reason)
            return first
        with self.kept.alone() as is_alone:
            if use_known and (known := self._known(case)):  # measured by another process meanwhile
                return known
            images = _fitting(case, seconds)
            return self._measured(case, first, images, keeps=is_alone, again=work.again)

    def _before(self, case: Case, first: Opened, work: Work) -> tuple[float, str]:
        """Return the seconds of a batch, and the reason not to measure; it is empty if that is to be done."""
        if len(case.candidates) == 1:
            return 0.0, "the only one that runs here"
        if not work.measures:
            return 0.0, "the first of those installed, as for all who share the work"
        try:
            seconds = self._seconds(first, case.images)
        except UserError as error:  # such as a file for batches of another size
            return 0.0, f"the first of those installed; not measured: {one_line(error)}"
        if work.again or _pays(work, case, seconds):
            return seconds, ""
        count = "1 image is" if work.images == 1 else f"{work.images} images are"
        return seconds, f"the first of those installed: {count} too little work to compare others"

    def _known(self, case: Case) -> Opened | None:
        """Open the candidate that an earlier measurement has found."""
        kept = self.kept.get(case.key)
        found = next((each for each in case.candidates if str(each) == kept.best), None)
        if found is None:
            return None
        try:
            opened = Opened(found, case.open(found))
        except (UserError, ImportError) as error:
            _say("%s left out: %s", found, one_line(error))
            return None
        _say("%s, as kept in %s", kept.told(), self.kept.path)
        return opened

    def _first(self, case: Case) -> Opened:
        errors: list[Exception] = []
        for candidate in case.candidates:
            try:
                return Opened(candidate, case.open(candidate))
            except (UserError, ImportError) as error:
                _say("%s left out: %s", candidate, one_line(error))
                errors.append(error)
        raise errors[0] if errors else UserError("--engine auto: no engine runs here")

    def _seconds(self, opened: Opened, images: int) -> float:
        """Return about the time of a batch; it is the second one that counts."""
        step = self.step(opened.network, images)
        step()
        begun = self.clock()
        step()
        return self.clock() - begun

    def _measured(
        self,
        case: Case,
        first: Opened,
        images: int,
        *,
        keeps: bool,
        again: bool,
    ) -> Opened:
        """Let all candidates that work take part in a race, and keep the result."""
        failed = () if again else self.kept.get(case.key).failed
        if keeps:
            self.kept.put(case.key, Kept(failed=failed))
        opened = {str(first.candidate): first}
        steps = {str(first.candidate): self.step(first.network, images)}
        for candidate in case.candidates:
            name = str(candidate)
            if candidate == first.candidate:
                continue
            if name in failed:
                _say("%s left out: an earlier measurement ended in it", name)
                continue
            with self._tried(case, candidate, keeps=keeps):
                own = Opened(candidate, case.open(candidate))
                step = self.step(own.network, images)
                step(), step()
                opened[name], steps[name] = own, step
        found = race(steps, MOST_SECONDS, self.clock)
        self._keep(case, found, images, failed, keeps=keeps)
        return opened[found.best]

    @contextmanager
    def _tried(self, case: Case, candidate: Candidate, *, keeps: bool) -> Iterator[None]:
        """Leave a candidate out that fails for any reason: others remain."""
        try:
            with self.kept.trying(case.key, str(candidate)) if keeps else nullcontext():
                yield
        except Exception as error:
            _say("%s left out: %s", candidate, one_line(error) or type(error).__name__)

    def _keep(self, case: Case, found: Race, images: int, failed: tuple[str, ...], *, keeps: bool) -> None:
        result = Kept(
            found.best,
            {name: 1000 * seconds for name, seconds in found.seconds.items()},
            images,
            found.spread,
            datetime.now(UTC).date().isoformat(),
            failed,
        )
        if not found.is_clear:
            end = f"not kept, as the times varied by {found.spread:.0%}: is the machine busy?"
        elif keeps and self.kept.put(case.key, result):
            end = f"kept in {self.kept.path}"
        else:
            end = "not kept"
        _say("%s, %s", result.told(), end)


def _pays(work: Work, case: Case, seconds: float) -> bool:
    """Return True if there is enough work for a measurement."""
    if work.images is None:
        return True
    count = len(case.candidates)
    least = fewest_seconds(count, seconds) + _OPENING * (count - 1)
    return least <= _SHARE * seconds * work.images / case.images


def _fitting(case: Case, seconds: float) -> int:
    """Return the images of a batch with which a race ends in time: with long steps fewer than asked for."""
    images = case.images
    while images > 1 and fewest_seconds(len(case.candidates), seconds) > MOST_SECONDS:
        images, seconds = images // 2, seconds / 2
    return images


def _say(message: str, *values: object) -> None:
    _LOG.info(f"engine: {message}", *values)
