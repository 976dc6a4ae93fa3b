import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from effnet.data import prepare_sample
from effnet.data.folder import list_images
from effnet.runtime.errors import UserError


def contents(root: Path) -> dict[Path, bytes]:
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*.jpg")}


def test_writes_every_digit_once(tmp_path: Path) -> None:
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    counts = prepare_sample(tmp_path / "new" / "sample")
    train, val = (list_images(tmp_path / "new" / "sample", split) for split in ("train", "val"))
    assert counts == {"train": len(train), "val": len(val)}
    assert len(train) + len(val) == 1797
    assert 0.18 < len(val) / 1797 < 0.21
    assert train.classes == val.classes == [str(digit) for digit in range(10)]
    assert np.ptp(np.bincount(val.targets)) <= 2
    seen = {}
    for images in (train, val):
        for i in range(0, len(images), 7):
            seen[images.path(i)] = int(images.targets[i])
    for path, target in seen.items():
        n = int(path.stem)
        assert digits.target[n] == target
        with Image.open(path) as image:
            assert (image.format, image.size, image.mode) == ("JPEG", (32, 32), "RGB")
            blocks = np.asarray(image.convert("L").resize((8, 8), Image.Resampling.BOX))
        assert np.corrcoef(blocks.ravel(), digits.images[n].ravel())[0, 1] > 0.95


def test_a_second_run_changes_nothing_and_another_folder_gets_the_same_bytes(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    first, second = tmp_path / "first", tmp_path / "second"
    second.mkdir()  # an empty folder is as good as none
    assert prepare_sample(first) == prepare_sample(second)
    assert contents(first) == contents(second)
    times = {path: path.stat().st_mtime_ns for path in first.rglob("*.jpg")}
    prepare_sample(first)
    assert times == {path: path.stat().st_mtime_ns for path in first.rglob("*.jpg")}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["first", "second"]


def test_does_not_touch_a_folder_with_something_else(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="remove it or name another"):
        prepare_sample(tmp_path)
    with pytest.raises(UserError, match="remove it or name another"):
        prepare_sample(tmp_path / "notes.txt")


def test_scikit_learn_is_named_when_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UserError, match=r"install -e '.*\[sample\]'"):
        prepare_sample(tmp_path / "sample")
