"""Fixtures for the whole suite."""

import os
from pathlib import Path

import pytest


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
