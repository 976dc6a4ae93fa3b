"""Priorities of a worker's threads, as the system tells them."""

import os
import sys
import threading
import time
from typing import Any

import pytest
from torch.utils.data import Dataset

from effnet.data.politeness import politely
from effnet.data.watched import WatchedLoader

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a priority is a process's")


def priority() -> int:
    time.sleep(0.05)
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


class Priorities(Dataset[Any]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[int, int]:
        return politely(priority), os.getpriority(os.PRIO_PROCESS, os.getpid())


def read(*, polite: bool) -> list[tuple[int, int]]:
    loader = WatchedLoader(
        Priorities(), workers=1, polite=polite, name_of=str, batch_size=None, prefetch_factor=4
    )
    found = []
    for result in loader:
        found.append(result)
        if len(found) == 1:
            time.sleep(1)  # a step of training, in which the worker prepares four more
    loader.stop()
    return found


def test_while_nobody_waits_images_are_prepared_at_the_lowest_priority() -> None:
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    found = read(polite=True)
    assert found[0][0] == usual  # the first one is waited for
    assert [image for image, _ in found[1:5]].count(
        19
    ) >= 3  # one may have begun while the first was waited for
    assert found[-1][0] == usual
    assert {worker for _, worker in found} == {usual}


def test_without_the_setting_priorities_stay() -> None:
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    assert set(read(polite=False)) == {(usual, usual)}


def refuse(_: int) -> int:
    raise PermissionError(1, "Operation not permitted")


def test_a_system_that_forbids_it(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    monkeypatch.setattr(os, "nice", refuse)  # the workers are forks
    assert set(read(polite=True)) == {(usual, usual)}


def fails() -> int:
    raise ValueError("broken")


class Failing(Dataset[Any]):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> str:
        try:
            politely(fails)
        except ValueError as error:
            return f"{index} {error}"
        return "no error"


def test_errors_arrive_where_the_image_was_asked_for() -> None:
    loader = WatchedLoader(Failing(), workers=1, polite=True, name_of=str, batch_size=None)
    assert list(loader) == ["0 broken", "1 broken"]
    loader.stop()
