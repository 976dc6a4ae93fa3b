"""The registry, and what is made from it or has to agree with it."""

import pickle
import subprocess
import sys
import typing

import numpy as np
import pytest

from effnet.data.augmentations import AUGMENTATIONS
from effnet.recipe import DataSettings
from tests.commands import REPOSITORY
from tests.data.conftest import photograph


def test_the_flag_offers_all() -> None:
    choices = typing.get_args(typing.get_type_hints(DataSettings)["augmentation"])
    assert list(choices) == list(AUGMENTATIONS)
    assert all(name == row.name for name, row in AUGMENTATIONS.items())


def test_the_documentations_table_lists_all() -> None:
    page = (REPOSITORY / "docs" / "choices.md").read_text(encoding="utf-8")
    rows = [f"| `{row.name}` | {row.summary} |" for row in AUGMENTATIONS.values()]
    assert "\n".join(rows) in page


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_worker_can_be_given_one(name: str) -> None:
    form = AUGMENTATIONS[name].pixels()
    copied = pickle.loads(pickle.dumps(form))
    if form is None:
        assert copied is None
        return
    for seed in range(5):
        ours, theirs = (
            one(np.asarray(photograph(40, 40)), np.random.default_rng(seed)) for one in (form, copied)
        )
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_neither_dali_nor_torchvision_is_imported_before_it_is_needed() -> None:
    code = (
        "import sys; import effnet.data.augmentations as a; a.AUGMENTATIONS['autoaugment'].pixels(); "
        "sys.exit('nvidia.dali' in sys.modules or 'torchvision' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
