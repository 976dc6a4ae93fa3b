"""Tables of predictions: their columns, and the same bytes whatever happens on the way."""

import csv
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import effnet
from effnet.cli import main
from effnet.inference.classifier import load
from effnet.inference.engine import Engine
from effnet.inference.engines.network import Network
from effnet.inference.predict import job
from effnet.inference.predict.answers import Answers
from effnet.inference.predict.run import run_job
from effnet.inference.predict.work import Work, folder_of
from effnet.runtime.disk import DiskError
from effnet.runtime.errors import UserError
from effnet.runtime.signals import Interrupted
from effnet.weights import WeightsMetadata, save_weights
from effnet.weights.confidence import Confidence, Unknown
from tests.inference.predicting import BATCH, IMAGES, PART, write_source, write_weights
from tests.runs import CLASSES, PREPROCESSING
from tests.small_disk import before_writing, small_disk

parquet = pytest.importorskip("pyarrow.parquet", reason="extra tables")

REPOSITORY = Path(__file__).resolve().parents[2]
SUFFIXES = ("parquet", "csv", "jsonl")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_source(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights") / "w.safetensors")


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "_PART", PART)


def predicted(source: Path, weights: Path, out: Path, **options: Any) -> Path:
    effnet.predict(source, weights, out, **{"batch_size": BATCH, "workers": 0, **options})
    return out


def read(table: Path) -> list[dict[str, Any]]:
    """Rows of a table, by a reader that is not ours."""
    if table.suffix == ".parquet":
        return parquet.read_table(table).to_pylist()
    if table.suffix == ".jsonl":
        return [json.loads(line) for line in table.read_text().splitlines()]
    with table.open(newline="") as file:
        return [
            {name: text if name in ("path", "label") else json.loads(text) for name, text in row.items()}
            for row in csv.DictReader(file)
        ]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_columns_are_what_the_model_says(source: Path, weights: Path, tmp_path: Path, suffix: str) -> None:
    out = predicted(source, weights, tmp_path / f"t.{suffix}", probabilities=True, features=True)
    rows = read(out)
    paths = sorted(str(path.relative_to(source)) for path in source.rglob("[0-9][0-9].jpg"))
    assert sorted(row["path"] for row in rows) == paths
    classifier = load(weights)
    probabilities = classifier.probabilities([source / row["path"] for row in rows])
    np.testing.assert_allclose([row["probabilities"] for row in rows], probabilities, atol=1e-6)
    model = effnet.create_model("efficientnet-lite0", weights=weights, num_classes=3).eval()
    for row, expected in zip(rows, probabilities, strict=True):
        order = np.argsort(-expected)
        assert row["index"] == order[0]
        assert row["topk_labels"] == [CLASSES[index] for index in order]
        assert row["label"] == row["topk_labels"][0]
        assert row["probability"] == row["topk_probabilities"][0] == max(row["probabilities"])
        # The logits again, from the features alone.
        logits = torch.nn.functional.linear(
            torch.tensor(row["features"]), *model.get_classifier().parameters()
        )
        np.testing.assert_allclose(logits.detach().softmax(0), expected, atol=1e-5)


def test_known_follows_the_rule_of_the_weights(source: Path, weights: Path, tmp_path: Path) -> None:
    plain = read(predicted(source, weights, tmp_path / "plain.jsonl", probabilities=True))
    logits = np.log([row["probabilities"] for row in plain])
    cooled = torch.tensor(logits / 2).softmax(1).amax(1).numpy()
    threshold = float(np.median(cooled)) + 1e-6
    model = effnet.create_model("efficientnet-lite0", weights=weights, num_classes=3)
    ruled = replace(model.metadata, confidence=Confidence(2.0, Unknown("max-probability", threshold)))
    save_weights(tmp_path / "ruled.safetensors", model.state_dict(), ruled)
    for suffix in SUFFIXES:
        rows = read(predicted(source, tmp_path / "ruled.safetensors", tmp_path / f"t.{suffix}"))
        np.testing.assert_allclose([row["probability"] for row in rows], cooled, atol=1e-5)
        assert [row["known"] for row in rows] == (cooled >= threshold).tolist()
        assert {row["known"] for row in rows} == {True, False}
    assert "known" not in plain[0]


def test_labels_reach_their_thresholds(source: Path, weights: Path, tmp_path: Path) -> None:
    plain = read(predicted(source, weights, tmp_path / "plain.jsonl", features=True))
    model = effnet.create_model("efficientnet-lite0", weights=weights, num_classes=3)
    features = torch.tensor([row["features"] for row in plain])
    expected = (
        torch.nn.functional.linear(features, *model.get_classifier().parameters()).sigmoid().detach().numpy()
    )
    thresholds = np.quantile(expected, 0.5, axis=0) + 1e-6
    several = replace(model.metadata, thresholds=tuple(thresholds.tolist()))
    save_weights(tmp_path / "several.safetensors", model.state_dict(), several)
    for suffix in SUFFIXES:
        rows = read(predicted(source, tmp_path / "several.safetensors", tmp_path / f"t.{suffix}"))
        for row, probabilities in zip(rows, expected, strict=True):
            assert set(row["labels"]) == {CLASSES[i] for i in np.flatnonzero(probabilities >= thresholds)}
            of_labels = [probabilities[CLASSES.index(name)] for name in row["labels"]]
            assert of_labels == sorted(of_labels, reverse=True)
            np.testing.assert_allclose(row["label_probabilities"], of_labels, atol=1e-5)
        assert len({len(row["labels"]) for row in rows}) > 1


def test_the_formats_hold_the_same_rows(source: Path, weights: Path, tmp_path: Path) -> None:
    tables = [predicted(source, weights, tmp_path / f"t.{suffix}", topk=2) for suffix in SUFFIXES]
    first, *others = ([{**row, **_as_float32(row)} for row in read(table)] for table in tables)
    assert len(first) == IMAGES
    assert all(other == first for other in others)


def _as_float32(row: dict[str, Any]) -> dict[str, Any]:
    return {name: np.float32(row[name]).tolist() for name in ("probability", "topk_probabilities")}


def test_bad_images_are_listed_and_stop_nothing(
    source: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "t.csv"
    assert main(["predict", str(source), str(weights), "--out", str(out), "-j", "0", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["images"], summary["bad"], summary["complete"]) == (IMAGES + 2, 2, True)
    with Path(summary["bad_list"]).open(newline="") as file:
        found = {row["path"]: row["reason"] for row in csv.DictReader(file)}
    assert found.keys() == {"05 bad.jpg", "one/bad, too.png"}
    assert all(found.values())
    assert not found.keys() & {row["path"] for row in read(out)}


def test_the_list_of_an_earlier_table_goes(weights: Path, tmp_path: Path) -> None:
    source = write_source(tmp_path / "source")
    out = predicted(source, weights, tmp_path / "t.csv")
    for path in source.rglob("*bad*"):
        path.unlink()
    predicted(source, weights, out, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "t.csv"]
    assert len(read(out)) == IMAGES


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suffix", "moments"),
    # Renames of a call in one go: plan, first bad list and part, second part, third bad list and part, fourth part,
    # list of bad images, table, folder of the parts.
    [("parquet", "1a,2b,2a,2a,3b,2b,2b,2a,3a"), ("jsonl", "3a,2a,3b")],
)
def test_killed_at_any_moment_it_leaves_the_same_bytes(
    source: Path, weights: Path, tmp_path: Path, suffix: str, moments: str
) -> None:
    expected = predicted(source, weights, tmp_path / f"expected.{suffix}", features=True)
    out = tmp_path / f"killed.{suffix}"
    script(moments, "predict", source, weights, "--out", out, "-b", BATCH, "-j", 0, "--features")
    assert out.read_bytes() == expected.read_bytes()
    assert Path(f"{out}.bad.csv").read_bytes() == Path(f"{expected}.bad.csv").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        name for table in (out, expected) for name in (table.name, f"{table.name}.bad.csv")
    )


@pytest.mark.slow
def test_ray_leaves_the_same_bytes(source: Path, weights: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray.data", reason="extra ray")
    expected = predicted(source, weights, tmp_path / "expected.parquet", features=True)
    out = tmp_path / "ray.parquet"
    done = script("", "predict", source, weights, "--out", out, "-b", BATCH, "-j", 2, "--features", "--ray")
    assert "21 images" in done.splitlines()[-2]
    assert out.read_bytes() == expected.read_bytes()
    assert Path(f"{out}.bad.csv").read_bytes() == Path(f"{expected}.bad.csv").read_bytes()


def script(*arguments: object) -> str:
    """Run `tests.inference.predicting`, with this process's number of threads; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.inference.predicting", *map(str, arguments)],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_is_done_is_not_done_again(
    source: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "t.csv"
    write = Work.write

    def interrupted(work: Work, part: Any) -> None:
        write(work, part)
        if part.number == 1:
            raise Interrupted(signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(Work, "write", interrupted)
        with pytest.raises(Interrupted, match="12 of 23 images are done; the same command goes on"):
            predicted(source, weights, out)
    summary = effnet.predict(source, weights, out, batch_size=BATCH, workers=0)
    assert summary.computed == IMAGES + 2 - 2 * PART
    assert summary.images_per_s > 0


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_shards_in_any_order_leave_the_same_bytes(
    source: Path, weights: Path, tmp_path: Path, suffix: str
) -> None:
    expected = predicted(source, weights, tmp_path / f"expected.{suffix}")
    out = tmp_path / f"t.{suffix}"
    options = {"batch_size": BATCH, "workers": 0}
    for number, complete in ((2, False), (0, False), (1, True)):
        summary = effnet.predict(source, weights, out, shard=(number, 3), **options)
        assert (summary.complete, out.exists()) == (complete, complete)
    assert out.read_bytes() == expected.read_bytes()


def test_auto_continues_on_the_engine_of_the_table(source: Path, weights: Path, tmp_path: Path) -> None:
    out, options = tmp_path / "t.parquet", {"batch_size": BATCH, "workers": 0}
    effnet.predict(source, weights, out, engine="torch", shard=(0, 2), **options)
    assert effnet.predict(source, weights, out, engine="auto", shard=(1, 2), **options).complete
    assert effnet.predict(source, weights, out, engine="torch", **options).complete
    assert effnet.predict(source, weights, out, engine="auto", **options).complete


def test_shards_of_separate_machines_are_merged(
    source: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = predicted(source, weights, tmp_path / "expected.parquet")
    flags = ["-b", str(BATCH), "-j", "0"]
    outs = []
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        outs.append(tmp_path / str(number) / "t.parquet")
        command = ["predict", str(source), str(weights), "--out", str(outs[-1]), "--shard", f"{number}/2"]
        assert main([*command, *flags]) == 0
        assert "not complete yet" in capsys.readouterr().out
    assert main(["predict", "--merge", "--out", str(outs[0])]) == 2
    assert "2 of 4 parts are missing" in capsys.readouterr().err
    for path in folder_of(outs[1]).iterdir():
        path.replace(folder_of(outs[0]) / path.name)
    assert main(["predict", "--merge", "--out", str(outs[0])]) == 0
    assert outs[0].read_bytes() == expected.read_bytes()


def test_a_table_of_paths_is_a_source(source: Path, weights: Path, tmp_path: Path) -> None:
    everything = {row["path"]: row for row in read(predicted(source, weights, tmp_path / "all.jsonl"))}
    wanted = ["one/two/05.jpg", "00.jpg", "one/01.jpg"]
    table = tmp_path / "wanted.csv"
    table.write_text("\n".join(["file,owner", *(f"{path},me" for path in wanted)]) + "\n")
    data = {"path_column": "file", "root": str(source)}
    rows = read(predicted(table, weights, tmp_path / "some.jsonl", data=data))
    assert [row["path"] for row in rows] == wanted
    for row in rows:
        assert row["label"] == everything[row["path"]]["label"]
        assert row["probability"] == pytest.approx(everything[row["path"]]["probability"], abs=1e-6)


def test_workers_change_nothing(source: Path, weights: Path, tmp_path: Path) -> None:
    none, two = (predicted(source, weights, tmp_path / f"{n}.jsonl", workers=n) for n in (0, 2))
    assert none.read_bytes() == two.read_bytes()


def test_another_table_is_not_mixed_in(source: Path, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.parquet"
    effnet.predict(source, weights, out, batch_size=BATCH, workers=0, shard=(0, 2))
    with pytest.raises(UserError, match="another topk; give the same arguments, or --overwrite"):
        predicted(source, weights, out, topk=1)
    assert {
        len(row["topk_labels"]) for row in read(predicted(source, weights, out, topk=1, overwrite=True))
    } == {1}
    # A complete one is left alone, or refused.
    before = out.stat().st_mtime_ns
    assert effnet.predict(source, weights, out, batch_size=BATCH, workers=0, topk=1).computed == 0
    assert out.stat().st_mtime_ns == before
    with pytest.raises(UserError, match="is another table"):
        predicted(source, weights, out, topk=2)
    text = predicted(source, weights, tmp_path / "t.csv")
    with pytest.raises(UserError, match="exists"):
        predicted(source, weights, text)


def test_a_full_disk_keeps_what_is_done(
    source: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = predicted(source, weights, tmp_path / "expected.jsonl", features=True)
    with small_disk(tmp_path / "disk", 8) as disk:
        disk.needs_mount()
        out = disk.root / "t.jsonl"
        with monkeypatch.context() as patched:
            before_writing(patched, "0000002.part", disk.fill)
            with pytest.raises(DiskError, match=r"0000002.part: can't be written \(No space left"):
                predicted(source, weights, out, features=True)
        disk.free()
        summary = effnet.predict(source, weights, out, batch_size=BATCH, workers=0, features=True)
        assert summary.computed == IMAGES + 2 - 2 * PART
        assert out.read_bytes() == expected.read_bytes()


def test_a_killed_worker_is_one_line(
    source: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    this = os.getpid()

    def killed(*_: Any) -> None:
        assert os.getpid() != this
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr("effnet.inference.decoded.ValTransform.__call__", killed)
    with pytest.raises(UserError, match="a loader worker was killed by SIGKILL, possibly out of memory"):
        predicted(source, weights, tmp_path / "t.csv", workers=1)


class LogitsOnly(Network):
    """An engine that returns one logit that is not finite."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.tensor([[0.0, float("nan")]]).repeat(len(images), 1)


def test_what_an_engine_can_t_say_is_refused() -> None:
    engine = Engine("onnxruntime", LogitsOnly(WeightsMetadata("efficientnet-lite0", PREPROCESSING)))
    with pytest.raises(UserError, match="--features: onnxruntime returns logits only"):
        Answers(engine, topk=1, probabilities=False, features=True)
    answers = Answers(engine, topk=1, probabilities=False, features=False)
    with pytest.raises(UserError, match=r"a\.jpg: the logits of efficientnet-lite0 are not finite"):
        answers(np.zeros((1, 32, 32, 3), np.uint8), ["a.jpg"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no source given"),
        (["/no/such/folder"], "/no/such/folder: no such file or folder"),
        (["."], "predictions are written as .parquet, .csv, .jsonl"),
        ([".", "--shard", "2/2"], "--shard 2/2: must be I/N"),
        (["--merge"], "no such folder; run the shards"),
        ([".", "a.onnx", "--arch", "efficientnet-b0"], "more than one model given"),
    ],
)
def test_bad_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    out = tmp_path / ("t.xls" if "written as" in words else "t.csv")
    assert main(["predict", *arguments, "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1


def test_names_that_are_not_utf_8_are_written_escaped(weights: Path, tmp_path: Path) -> None:
    source = write_source(tmp_path / "source")
    os.rename(source / "00.jpg", os.fsencode(source) + b"/\xff.jpg")
    for suffix in SUFFIXES:
        names = [row["path"] for row in read(predicted(source, weights, tmp_path / f"t.{suffix}"))]
        assert "\\udcff.jpg" in names


def test_a_job_is_what_the_plan_says(source: Path, weights: Path, tmp_path: Path) -> None:
    """`run_job` takes what the command line makes."""
    from effnet.export.trained import ModelChoice

    work = job.PredictJob(source, ModelChoice(weights=weights), batch_size=BATCH)
    assert work.part == PART
    assert run_job(work, tmp_path / "t.csv", workers=0).complete
