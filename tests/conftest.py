"""Fixtures for all tests."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Reference facts and real images that are not part of the repository: `shared/` in a folder above it."""
    named = os.environ.get("EFFNET_SHARED")
    candidates = [Path(named)] if named else [parent / "shared" for parent in REPOSITORY.parents]
    for candidate in candidates:
        if (candidate / "reference").is_dir():
            return candidate
    pytest.skip("the folder shared/ with reference facts and real images is not here (EFFNET_SHARED)")
