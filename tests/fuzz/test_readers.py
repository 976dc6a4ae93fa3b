"""Changed files for each reader: nothing but the documented error comes out, in one line, in time.

`make fuzz` runs it with more inputs and prints how many were accepted and refused.
"""

import os
import resource
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.readers import READERS, Reader
from tests.limits import MEMORY, SECONDS

INPUTS = int(os.environ.get("EFFNET_FUZZ_INPUTS", "150"))
SEED = int(os.environ.get("EFFNET_FUZZ_SEED", "0"))


@pytest.fixture
def bounded_memory() -> Iterator[None]:
    """Refuse the process more than twice the memory that a hostile file may take."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2 * MEMORY, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("bounded_memory")
@pytest.mark.parametrize("reader", READERS, ids=[reader.name.replace(" ", "-") for reader in READERS])
def test_nothing_but_the_documented_error(reader: Reader, tmp_path: Path) -> None:
    outcomes: Counter[str] = Counter()
    slowest = 0.0

    @settings(
        max_examples=INPUTS,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(number=st.integers(0, (1 << 64) - 1))
    def read_one(number: int) -> None:
        nonlocal slowest
        reader.make(Random(f"{SEED} {number}"), tmp_path)
        started, refusal = time.process_time(), None
        try:
            reader.read(tmp_path)
        except reader.refuses as error:
            refusal = str(error)
        slowest = max(slowest, time.process_time() - started)
        outcomes["accepted" if refusal is None else "refused"] += 1
        assert refusal is None or ("\n" not in refusal and len(refusal) < 2000)
        assert slowest < SECONDS

    read_one()
    print(f"\n{reader.name}: {dict(outcomes)}, slowest {slowest:.2f} s")
    assert outcomes["refused"] > 0 or not reader.refuses or reader.name == "JSON log"
    assert outcomes["accepted"] > 0
