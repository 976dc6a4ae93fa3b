"""The models of a server: opened, used by requests, opened again without a dropped request."""

import asyncio
import contextlib
import glob
import logging
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from effnet.inference.classifier import Classifier, load, named_choice
from effnet.inference.explain import Explainer, layer_to_explain
from effnet.runtime.errors import UserError, one_line
from effnet.serve.batching import Batcher, batch_sizes
from effnet.serve.log import fields
from effnet.serve.metrics import Metrics
from effnet.serve.refusal import Refusal
from effnet.serve.settings import NamedSource, ServeSettings
from effnet.weights.hub import is_hub_name

_log = logging.getLogger(__name__)
Signature = tuple[tuple[str, int, int, int], ...]


@dataclass
class Served:
    """A model that answers requests.

    Attributes:
        name: name by which clients ask for it.
        classifier: the model.
        batcher: the thread that computes for it.
        opened: time at which it was opened, in seconds of the epoch.
        explainer: draws its heat maps, in any thread; None without any.
        users: requests that are being answered by it.
        is_retired: another one has taken its place.
    """

    name: str
    classifier: Classifier
    batcher: Batcher
    opened: float
    explainer: Explainer | None
    users: int = 0
    is_retired: bool = False

    def description(self) -> dict[str, Any]:
        """Return what clients may know of it, for JSON."""
        engine = self.classifier.engine
        return {
            "name": self.name,
            "model": self.classifier.arch,
            "engine": engine.name,
            "precision": engine.network.precision,
            "image_size": engine.preprocessing.image_size,
            "classes": len(self.classifier.classes),
            "several_labels": engine.metadata.several_labels,
            "explains": self.explainer is not None,
            "opened": round(self.opened, 3),
        }

    def close_if_unused(self) -> None:
        """End its thread if it is retired and the last request that it answers is over."""
        if self.is_retired and not self.users:
            self.batcher.close()


class Models:
    """The models of a server by name. All but `open` belongs to the thread of the event loop.

    Args:
        settings: the server's.
        metrics: counts batches.
    """

    def __init__(self, settings: ServeSettings, metrics: Metrics) -> None:
        self._settings, self._metrics = settings, metrics
        self._threads = torch.get_num_threads()
        self._reloading = asyncio.Lock()
        self._files: dict[str, Signature] = {}
        self._served: dict[str, Served] = {}

    def open_all(self) -> None:
        """Open all models.

        Raises:
            UserError: one that can't be opened.
        """
        for source in self._settings.models:
            self._files[source.name] = files_of(source.source)
            self._served[source.name] = self.open(source)

    def open(self, source: NamedSource) -> Served:
        """Open a model and compute batches for a trial.

        Raises:
            UserError: it can't be opened, or its engine fails.
        """
        settings = self._settings
        classifier = load(
            source.source,
            engine=settings.engine,
            device=settings.device,
            image_size=settings.image_size,
            precision=settings.precision,
            batch_size=settings.max_batch,
            unknown=settings.unknown,
            tta=settings.tta,
        )
        compiles = classifier.engine.network.compiles_each_size
        sizes = batch_sizes(settings.max_batch, compiles_each_size=compiles)
        batcher = Batcher(
            classifier.rows,
            sizes,
            classifier.engine.preprocessing.image_size,
            trial=sizes if compiles else sorted({1, settings.max_batch}),
            max_wait=settings.max_wait,
            prepare_thread=lambda: torch.set_num_threads(self._threads),
            observe=self._metrics.batches_of(source.name),
        )
        batcher.ready.result()
        layer = layer_to_explain(classifier.engine)
        explainer = None if layer is None else Explainer(classifier, layer=layer)
        return Served(source.name, classifier, batcher, time.time(), explainer)

    def __iter__(self) -> Iterator[Served]:
        return iter(self._served.values())

    @contextlib.contextmanager
    def using(self, name: str | None) -> Iterator[Served]:
        """The model of a name, or the first one for None, which stays open within the block.

        Raises:
            Refusal: there is none of this name.
        """
        served = next(iter(self._served.values())) if name is None else self._served.get(name)
        if served is None:
            raise Refusal(404, f"no model {name!r:.120}; there is {', '.join(self._served)}")
        served.users += 1
        try:
            yield served
        finally:
            served.users -= 1
            served.close_if_unused()

    async def reload(self, executor: Executor, names: Mapping[str, object] | None = None) -> None:
        """Open models again; each takes the place of the former one when it is ready. One that fails changes nothing.

        Args:
            executor: runs the opening.
            names: names of the models; None for all.
        """
        async with self._reloading:
            for source in self._settings.models:
                if names is None or source.name in names:
                    self._files[source.name] = files_of(source.source)
                    await self._replace(source, executor)

    async def _replace(self, source: NamedSource, executor: Executor) -> None:
        try:
            opened = await asyncio.get_running_loop().run_in_executor(executor, self.open, source)
        except Exception as error:
            self._metrics.reloads(source.name, is_good=False)
            reason = (
                one_line(error)
                if isinstance(error, UserError)
                else f"{type(error).__name__}: {one_line(error)}"
            )
            _log.error("model not opened again", extra=fields(model=source.name, error=reason))
            return
        former, self._served[source.name] = self._served[source.name], opened
        former.is_retired = True
        former.close_if_unused()
        self._metrics.reloads(source.name, is_good=True)
        _log.info("model opened again", extra=fields(model=source.name))

    async def watch(self, executor: Executor, seconds: float) -> None:
        """Look at the models' files for ever, and open again those that have changed and stayed so for one look."""
        seen: dict[str, Signature] = {}
        while True:
            await asyncio.sleep(seconds)
            found = {source.name: files_of(source.source) for source in self._settings.models}
            changed = {name: now for name, now in found.items() if now not in ((), self._files[name])}
            settled = {name: now for name, now in changed.items() if seen.get(name) == now}
            seen = changed
            if settled:
                await self.reload(executor, settled)


def files_of(source: str) -> Signature:
    """Return the state of a model's file and of the files beside it that differ from it in the suffix alone.

    Returns:
        Path, time of the last change, size and number of each; nothing for what is no file, or is not there.
    """
    if is_hub_name(source):
        return ()
    with contextlib.suppress(UserError, OSError):
        weights = named_choice(source).weights
        if weights is not None and weights.is_file():
            beside = sorted(weights.parent.glob(f"{glob.escape(weights.stem)}.*"))
            return tuple(_state(path) for path in [weights, *beside])
    return ()


def _state(path: Path) -> tuple[str, int, int, int]:
    found = path.stat()
    return str(path), found.st_mtime_ns, found.st_size, found.st_ino
