import json
from pathlib import Path

import numpy as np
import pytest

from effnet.benchmark import data as module
from effnet.benchmark.data import DataBenchmark, benchmark_data
from effnet.benchmark.data_pipelines import BASELINE, PIPELINES, Pipeline, Setup, UnavailableError
from effnet.benchmark.passes import Pass, Round, interleaved_passes
from effnet.cli import main
from effnet.data.folder import list_images
from effnet.data.pack import PackSettings, pack
from effnet.runtime.errors import UserError
from tests.runs import write_images


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 images in two class folders."""
    root = tmp_path_factory.mktemp("folder")
    write_images(root / "train", {"cat": 6, "dog": 6})
    return root


SMALL = {"images": 24, "image_size": 32, "batch_size": 4, "workers": 0, "repeats": 2}


def small(path: Path, **settings: object) -> DataBenchmark:
    return DataBenchmark(path, **{**SMALL, **settings})


@pytest.mark.parametrize("below", ["", "train"])
def test_every_pipeline_goes_through_the_same_images(
    folder: Path, below: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: dict[str, list[int]] = {}

    def counting(passes: dict[tuple[str, str], Pass], repeats: int) -> dict[tuple[str, str], list[Round]]:
        rounds = interleaved_passes(passes, repeats)
        counted.update({" ".join(key): [r.images for r in of] for key, of in rounds.items()})
        return rounds

    monkeypatch.setattr(module, "interleaved_passes", counting)
    result = benchmark_data(small(folder / below))
    here = [name for name in PIPELINES if name not in result["skipped"]]  # no GPU, or an extra that is absent
    assert {"decoding alone", BASELINE, "pytorch", "packed, JPEG", "packed, raw"} <= set(here)
    expected = [(name, "none") for name in here] + [(name, "autoaugment") for name in here[1:]]
    assert [(row["name"], row["augmentation"]) for row in result["rows"]] == expected
    assert all(images == [24, 24] for images in counted.values())
    assert result["images"] == 24
    baseline = {r["augmentation"]: r["images_per_second"] for r in result["rows"] if r["name"] == BASELINE}
    for row in result["rows"]:
        assert len(row["rounds"]) == 2
        assert row["images_per_second"] == pytest.approx(np.median(row["rounds"]))
        assert row[f"ratio_to_{BASELINE}"] == pytest.approx(
            row["images_per_second"] / baseline[row["augmentation"]]
        )
    assert result["environment"]["versions"]["torch"]
    json.dumps(result)


def test_a_table_s_images_are_taken(folder: Path, tmp_path: Path) -> None:
    files = sorted(folder.rglob("*.jpg"))
    rows = [f"{file},{file.parent.name}/x,train" for file in files]
    (tmp_path / "table.csv").write_text("\n".join(["path,label,split", *rows]))
    module._repeat(tmp_path / "table.csv", tmp_path / "linked", len(files))
    linked = list((tmp_path / "linked").rglob("*.jpg"))
    assert sorted(str(file.resolve()) for file in linked) == sorted(str(file.resolve()) for file in files)
    assert {file.parent.name for file in linked} == {"cat_x", "dog_x"}


def test_images_are_repeated_or_thinned_out_evenly(folder: Path, tmp_path: Path) -> None:
    module._repeat(folder, tmp_path / "more", 36)
    more = list_images(tmp_path / "more", "train")
    originals = [more.path(n).resolve() for n in range(len(more))]
    assert {originals.count(path) for path in originals} == {3}
    assert len(more) == 36
    module._repeat(folder, tmp_path / "fewer", 4)
    fewer = list_images(tmp_path / "fewer", "train")
    assert len({fewer.path(n).resolve() for n in range(len(fewer))}) == 4
    assert np.bincount(fewer.targets).tolist() == [2, 2]


def test_a_pipeline_that_is_not_here_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(setup: Setup) -> Pass:
        raise UnavailableError("pip install 'effnet[dali]'")

    monkeypatch.setitem(PIPELINES, "dali", Pipeline(missing))
    result = benchmark_data(small(folder, only=["dali", "pytorch"]))
    assert result["skipped"] == {"dali": "pip install 'effnet[dali]'"}
    assert {row["name"] for row in result["rows"]} == {"pytorch"}


def test_packed_sets_of_the_user(folder: Path, tmp_path: Path) -> None:
    pack(folder, tmp_path / "out", PackSettings(48, None), workers=0)
    result = benchmark_data(small(folder, packed=[tmp_path / "out"], only=["packed, raw", "packed, JPEG"]))
    assert {row["name"] for row in result["rows"]} == {"packed, raw"}
    assert "--packed" in result["skipped"]["packed, JPEG"]
    with pytest.raises(UserError, match="no packed train images"):
        benchmark_data(small(folder, packed=[tmp_path]))


def test_the_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--images", "8", "--image-size", "32", "-b", "4", "-j", "0", "--repeats", "1"]
    out = tmp_path / "result.json"
    command = ["benchmark", "data", str(folder), *flags, "--only", "pytorch", "--only", BASELINE]
    assert main([*command, "--json", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "pytorch" in printed
    assert "autoaugment" in printed
    assert {row["name"] for row in json.loads(out.read_text())["rows"]} == {"pytorch", BASELINE}
    assert main(["benchmark", "data", str(folder), "--only", "nothing"]) == 2
    assert "--only must be of decoding alone" in capsys.readouterr().err
    assert main(["benchmark", "data", str(folder), "--repeats", "0"]) == 2
    assert "--repeats" in capsys.readouterr().err
    assert main(["benchmark", "data", str(tmp_path / "nowhere"), *flags]) == 2
    assert "nowhere" in capsys.readouterr().err
