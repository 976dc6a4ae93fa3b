"""Parts of remote files: equal to the file's bytes, and few requests for neighbours."""

import random
from pathlib import Path

import pytest

from effnet.data.files import Part, open_files, runs_of

from .packed_server import serving

SIZE, EACH = 300_000, 200


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for name in ("a.tar", "b.tar"):
        (tmp_path / name).write_bytes(random.Random(name).randbytes(SIZE))
    return tmp_path


def neighbours(name: str, step: int, count: int) -> list[Part]:
    """Parts of EACH bytes, each `step` bytes after the one before."""
    return [Part(name, first, first + EACH) for first in range(0, step * count, step)]


@pytest.mark.parametrize(
    ("wanted", "requests"),
    [
        (neighbours("a.tar", EACH, 256), 1),
        (neighbours("a.tar", 1024, 256), 1),
        (neighbours("a.tar", 40_000, 7), 7),
        (neighbours("a.tar", 1024, 100) + neighbours("b.tar", 1024, 100), 2),
        (random.Random(1).sample(neighbours("b.tar", 1024, 200), 200), 1),
        ([Part("a.tar", 5, 90), Part("a.tar", 5, 90), Part("a.tar", 20, 30)], 1),
        ([], 0),
    ],
    ids=["adjoining", "gaps", "apart", "two files", "any order", "the same twice", "none"],
)
def test_neighbours_come_in_one_request(place: Path, wanted: list[Part], requests: int) -> None:
    local = [bytes(get()) for get in open_files(place).parts(wanted)]
    with serving(place) as server:
        remote = [bytes(get()) for get in open_files(server.url).parts(wanted)]
        assert len(server.requests) == requests
    assert remote == local
    assert [len(data) for data in remote] == [part.stop - part.start for part in wanted]


def test_a_run_is_at_most_a_mebibyte_unless_one_part_is_larger() -> None:
    photographs = [Part("a", n * 110_000, (n + 1) * 110_000) for n in range(64)]
    runs = runs_of(photographs)
    assert max(run.stop - run.start for run, _ in runs) <= 1 << 20
    assert len(runs) == 8
    assert [place for _, places in runs for place in places] == list(range(64))
    large = [Part("a", 0, 3 << 20), Part("a", 10, 20), Part("a", 3 << 20, (3 << 20) + 5)]
    assert [run for run, _ in runs_of(large)] == [large[0], large[2]]


def test_what_is_needed_first_is_fetched_first() -> None:
    wanted = [Part("b", 0, 9), Part("a", 0, 9), Part("b", 9, 18)]
    assert runs_of(wanted) == [(Part("b", 0, 18), [0, 2]), (Part("a", 0, 9), [1])]
