"""Runs of most of these tests train small networks."""

from collections.abc import Iterator

import pytest

from tests.runs import networks_made_small

# Trainings whose course or parts do not depend on the network.
SMALL = {
    "batch_size",
    "best",
    "checkpoint",
    "confidence",
    "deterministic",
    "devices",
    "distillation",
    "distributed",
    "divergence",
    "ema",
    "find_lr",
    "foreign_checkpoint",
    "hostile_checkpoint",
    "resume_exact",
}


@pytest.fixture(scope="module", autouse=True)
def _small_networks(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.module.__name__.rpartition(".test_")[2] not in SMALL:
        yield
        return
    with networks_made_small():
        yield
