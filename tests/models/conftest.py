"""The reference's facts, for parity tests."""

import importlib.util
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
