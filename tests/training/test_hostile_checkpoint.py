"""Checkpoints with entries that are missing or something else: one line, whoever reads them, and nothing half-read."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from effnet.benchmark.train import synthetic_trainer
from effnet.export.weights import export_weights
from effnet.runtime.errors import UserError
from effnet.training import checkpoint as checkpoint_module
from effnet.training.content import check_content, resuming
from effnet.training.foreign_checkpoint import with_our_names
from effnet.training.origin import find_origin
from effnet.training.resume import inherited_settings
from effnet.training.trainer import Trainer
from effnet.weights import files as files_module
from effnet.weights import load_model, read_metadata
from tests.limits import refusal, refused, within_limits
from tests.runs import quick_recipe

pytestmark = pytest.mark.usefixtures("small_networks")

Content = dict[str, Any]
PATH = "folder/checkpoint.pth.tar"


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    values = {"num_classes": 3, "prof": 1, "use_ema": 0.9, "precision": "fp16"}
    recipe = quick_recipe(tmp_path_factory.mktemp("run"), **values)
    made, _ = synthetic_trainer(recipe, torch.device("cpu"))
    origin, given = replace(made.opened.origin, resume=PATH), made.opened.given.replace({"resume": PATH})
    made.opened = replace(made.opened, origin=origin, given=given)
    return made


@pytest.fixture(scope="module")
def good(trainer: Trainer) -> Content:
    return copy.deepcopy({**trainer.opened.description(), **trainer.state.state_dict()})


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[object], None]:
    """Let every reader of a file find a content, as if it had been written and read."""
    (tmp_path / PATH).parent.mkdir()
    (tmp_path / PATH).touch()
    monkeypatch.chdir(tmp_path)

    def hold(content: object) -> None:
        for module in (checkpoint_module, files_module):
            monkeypatch.setattr(module, "read_torch_file", lambda path: content)

    return hold


def resume(trainer: Trainer) -> None:
    origin = find_origin(trainer.opened.given)
    inherited_settings(PATH)
    assert origin.checkpoint is not None
    trainer.resume(origin.checkpoint)


def evaluate(trainer: Trainer) -> None:
    origin = find_origin(trainer.opened.given)
    with resuming(PATH):
        content = with_our_names(origin.checkpoint or {}, trainer.opened.model)
        trainer.opened.model.load_state_dict(content["state_dict"])


def classify(trainer: Trainer) -> None:
    read_metadata(PATH)
    load_model(PATH)


READERS = {"resume": resume, "evaluate": evaluate, "classify": classify}
OTHERS: dict[str, object] = {
    "None": None,
    "number": 5,
    "large number": 10**5000,
    "list": [1, "a"],
    "text": "x",
    "tensor": torch.zeros(2),
    "empty": {},
    "keys that are no names": {1: {2: 3}},
}
# Without these a run can't go on as it was.
NEEDED = {"epoch", "state_dict", "optimizer", "loss_scaler", "progress", "loader"}
FREE = {"best_prec1", "resolved_recipe", "state_dict_ema", "arch", "metadata"}


def outcome(reader: Callable[[Trainer], None], trainer: Trainer) -> str | None:
    """Return the error's line, or None if the content was accepted; anything else fails the test."""
    line = None
    with within_limits():
        try:
            reader(trainer)
        except UserError as error:
            line = str(error)
    assert line is None or (PATH in line and "\n" not in line)
    return line


@pytest.mark.parametrize("reader", READERS)
def test_a_whole_one_is_read(
    trainer: Trainer, good: Content, held: Callable[[object], None], reader: str
) -> None:
    held(copy.deepcopy(good))
    assert outcome(READERS[reader], trainer) is None


@pytest.mark.parametrize("reader", READERS)
def test_an_entry_that_is_absent(
    trainer: Trainer, good: Content, held: Callable[[object], None], reader: str
) -> None:
    for name in good:
        held({key: value for key, value in good.items() if key != name})
        line = outcome(READERS[reader], trainer)
        if name == "state_dict" or (reader == "resume" and name in NEEDED - {"epoch"}):
            assert line is not None, name


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("other", OTHERS)
def test_an_entry_that_is_something_else(
    trainer: Trainer, good: Content, held: Callable[[object], None], reader: str, other: str
) -> None:
    for name in good:
        held({**good, name: OTHERS[other]})
        line = outcome(READERS[reader], trainer)
        is_wrong = name in NEEDED - {"loss_scaler", "epoch"} or (name == "epoch" and other != "number")
        if name == "state_dict" or (reader == "resume" and is_wrong):
            assert line is not None, name


def changed(good: Content, place: str, value: object) -> Content:
    """Return a copy of a content with one value changed; `place` has the keys on the way to it."""
    *way, last = place.split("/")
    content = here = dict(good)
    for key in way:
        here[key] = dict(here[key])
        here = here[key]
    here[last] = value
    return content


WEIGHT = "features.conv.weight"
FIRST = "stem.conv.weight"


def like(form: Callable[[Tensor], Tensor]) -> Callable[[Content, str], Tensor]:
    return lambda good, key: form(good["state_dict"][key])


TENSORS: dict[str, Callable[[Content, str], object]] = {
    "sparse": like(lambda weight: weight.to_sparse()),
    "meta": like(lambda weight: weight.to("meta")),
    "quantized": like(lambda weight: torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8)),
    "complex": like(lambda weight: weight.to(torch.complex64)),
    "no dimension": like(lambda weight: torch.tensor(1.0)),
    "integers": like(lambda weight: torch.zeros(weight.shape, dtype=torch.int64)),
    "truths": like(lambda weight: torch.zeros(weight.shape, dtype=torch.bool)),
    "NaN": like(lambda weight: torch.full_like(weight, float("nan"))),
    "one infinity": like(lambda weight: torch.where(weight == weight.max(), torch.inf, weight)),
    "another shape": like(lambda weight: weight[1:]),
    "a view larger than its memory": like(lambda weight: torch.zeros(1).expand(1 << 40)),
    "the right shape, but a view": like(lambda weight: torch.zeros(1).expand(weight.shape)),
    "list": lambda good, key: [1.0],
    "None": lambda good, key: None,
}


@pytest.mark.filterwarnings("ignore:.*quantize_per_tensor")
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", TENSORS)
def test_weights_that_are_none(
    trainer: Trainer, good: Content, held: Callable[[object], None], reader: str, name: str
) -> None:
    held(changed(good, f"state_dict/{WEIGHT}", TENSORS[name](good, WEIGHT)))
    line = outcome(READERS[reader], trainer)
    assert line is not None
    assert WEIGHT in line


@pytest.mark.filterwarnings("ignore:.*quantize_per_tensor")
@pytest.mark.parametrize("name", TENSORS)
def test_optimizer_state_that_is_none(
    trainer: Trainer, good: Content, held: Callable[[object], None], name: str
) -> None:
    held(changed(good, f"optimizer/{FIRST}/square_avg", TENSORS[name](good, FIRST)))
    line = outcome(resume, trainer)
    # Integers stand for the same numbers, and a mean of squares may overflow.
    assert (line is None) == (name in ("integers", "one infinity"))


WRONG: dict[str, tuple[object, ...]] = {
    "progress/epoch": (-1, 1.5, True, "1", None, 10**30, [1]),
    "progress/step": (-1, "1"),
    "progress/best_value": ("1", [1]),
    "progress/best_metric": (1, None, "x" * 1000),
    "progress/best_is_ema": (1, None),
    "progress/invented_later": (1,),
    "loader/epoch": (None, "a", [1], {}),
    "loader/step": (None, "a"),
    "processes": (None, {}, [1], [{}], [{"loader": {"epoch": "a", "step": 0}}]),
    "in_epoch": (None, [1], {"batches": "a"}, {"invented": 1}),
    "layout": (None, [1]),
    "metrics": (None, [1]),
    "log": (None, 1),
    "loss_scaler/scale": (None, "a", [1], float("nan"), float("inf")),
    "epoch": (-1, 1.5, True, 10**30),
    "recipe/model": (None, [1], {"invented": 1}, {"arch": 5}, {"image_size": 10**9}, {"num_classes": 10**12}),
    "recipe/optimizer": ({"lr": "x"}, {"lr": float("nan")}, {"removed_setting": 1}, {"batch_size": -1}),
    "recipe/data": ({"crop_scale": {"a": 1}}, {"augmentation": "x"}),
    "metadata/format": (3, "2", None, 10**30),
    "metadata/classes": (["a", "b"], ["a", "a", "b"], ["a", "", "b"], [1, 2, 3], "abc"),
    "metadata/model": ("../../x", "/tmp/x", "a\nb", "a\x1b[31m", "", 5, "x" * 1000),
    "random_states/cpu": (None, "x", torch.zeros(3), torch.zeros(5056, dtype=torch.uint8)),
}


@pytest.mark.parametrize(("place", "value"), [(place, value) for place in WRONG for value in WRONG[place]])
def test_values_that_can_not_be(
    trainer: Trainer, good: Content, held: Callable[[object], None], place: str, value: object
) -> None:
    if place.startswith("random_states") and "random_states" not in good:
        pytest.skip("checkpoints hold no random states")
    held(changed(good, place, value))
    line = outcome(resume, trainer)
    # Another number of classes than the weights' is the weights' reader to find.
    assert (line or outcome(classify, trainer)) is not None


def test_a_later_version_is_named(trainer: Trainer, good: Content, held: Callable[[object], None]) -> None:
    held(changed(good, "metadata/format", 3))
    for reader in READERS.values():
        assert "update effnet" in (outcome(reader, trainer) or "")


def test_lists_that_hold_each_other(good: Content) -> None:
    nested: list[Any] = ["x"]
    for _ in range(60):
        nested = [nested] * 3
    for place in (
        "recipe/model",
        "recipe/optimizer",
        "metadata",
        "loader",
        "loss_scaler",
        "progress",
        "arch",
    ):
        with refused(Path(PATH)):
            check_content(changed(good, place, nested), PATH)


FOREIGN: dict[str, object] = {
    "no optimizer": {"optimizer": None},
    "ours": {},
    "no groups": {"optimizer": {"state": {}}},
    "groups that are none": {"optimizer": {"state": {}, "param_groups": 5}},
    "a group that is none": {"optimizer": {"state": {}, "param_groups": [5]}},
    "a group of nothing": {"optimizer": {"state": {}, "param_groups": [{}]}},
    "parameters that are none": {"optimizer": {"state": {}, "param_groups": [{"params": [[]]}]}},
    "state that is none": {"optimizer": {"state": {0: 5}, "param_groups": [{"params": [0]}]}},
    "epoch": {"epoch": "x"},
    "negative epoch": {"epoch": -1},
    "weights": {"state_dict": {"a": torch.zeros(1)}},
}


@pytest.mark.parametrize("name", FOREIGN)
def test_another_programs(trainer: Trainer, good: Content, held: Callable[[object], None], name: str) -> None:
    foreign = {key: good[key] for key in ("arch", "epoch", "state_dict", "optimizer", "best_prec1")}
    held({**foreign, **FOREIGN[name]})  # type: ignore[dict-item]
    assert outcome(resume, trainer) is not None


def test_on_the_command_line(
    good: Content, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One file with NaN weights, and one whose model is a path, in every command that reads a checkpoint."""
    path = tmp_path / "c.pth.tar"
    picture = str(next((images / "val").rglob("*.jpg")))
    common = ["--workspace", str(tmp_path / "run"), "--device", "cpu", "--workers", "0"]
    quick = ["-a", "efficientnet-lite0", "--image-size", "32", "-b", "8", *common]
    commands = [
        ["train", str(images), *quick, "--resume", str(path)],
        ["train", str(images), *quick, "--pretrained-from-file", str(path)],
        ["evaluate", str(images), *quick, "--resume", str(path)],
        ["classify", "--pretrained-from-file", str(path), picture],
        ["export", "onnx", "--pretrained-from-file", str(path), "-a", "efficientnet-lite0"],
        ["export", "weights", "--checkpoint-path", str(path), "--weight-path", str(tmp_path / "w.pth")],
    ]
    before = sorted(tmp_path.parent.iterdir())
    for place, value in {
        f"state_dict/{WEIGHT}": torch.full_like(good["state_dict"][WEIGHT], float("nan")),
        "metadata/model": "../../outside",
    }.items():
        torch.save(changed(good, place, value), path)
        for command in commands:
            refusal(path, *command, capsys=capsys)
    assert sorted(tmp_path.parent.iterdir()) == before
    assert not (tmp_path / "w.pth").exists()


def test_weights_that_are_not_finite_are_not_exported(good: Content, tmp_path: Path) -> None:
    torch.save({"a": torch.tensor([1.0, float("nan")])}, tmp_path / "w.pth")
    with refused(tmp_path / "w.pth"):
        export_weights(tmp_path / "w.pth", tmp_path / "out.pth")
    assert not (tmp_path / "out.pth").exists()
