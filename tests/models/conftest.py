"""The reference's facts, for parity tests."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def deterministic(shared_dir: Path) -> ModuleType:
    """The reference's weights and inputs that anyone can rebuild."""
    spec = importlib.util.spec_from_file_location("deterministic", shared_dir / "reference/deterministic.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def shapes(shared_dir: Path) -> dict[str, dict[str, list[int]]]:
    """Of each published model, every key of its state dict with its shape, in order."""
    published = json.loads((shared_dir / "reference/state_dict_shapes.json").read_text())
    return {name: dict(entries) for name, entries in published.items()}
