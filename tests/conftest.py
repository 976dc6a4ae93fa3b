"""Fixtures for the whole suite."""

import importlib.util
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.browser import Browser, start_browser
from tests.runs import CLASSES, networks_made_small, write_images


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of data outside the repository: EFFNET_SHARED, or ``shared/`` beside a parent folder of
    it."""
    root = Path(__file__).resolve().parents[1]
    candidates = [parent / "shared" for parent in root.parents]
    if named := os.environ.get("EFFNET_SHARED"):
        candidates = [Path(named)]
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    pytest.skip("no shared/ folder beside the repository; EFFNET_SHARED may name one")


@pytest.fixture(scope="session")
def shapes(shared_dir: Path) -> dict[str, dict[str, list[int]]]:
    """Of each published model, every key of its state dict with its shape, in order."""
    published = json.loads((shared_dir / "reference/state_dict_shapes.json").read_text())
    return {name: dict(entries) for name, entries in published.items()}


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes that differ in colour, 12 images each for training and 5 for validation; not to be changed."""
    root = tmp_path_factory.mktemp("images")
    for split, count in (("train", 12), ("val", 5)):
        write_images(root / split, dict.fromkeys(CLASSES, count), coloured=True)
    return root


@pytest.fixture(scope="module")
def small_networks() -> Iterator[None]:
    """Every model of the family made small, for tests of what is done with a network, whichever it is."""
    with networks_made_small():
        yield


@pytest.fixture(scope="session")
def deterministic(shared_dir: Path) -> ModuleType:
    """Weights and inputs of NVIDIA's implementation that can be rebuilt."""
    spec = importlib.util.spec_from_file_location("deterministic", shared_dir / "reference/deterministic.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Headless Chromium, one for the session."""
    started = start_browser()
    yield started
    started.close()
