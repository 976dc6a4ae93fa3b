"""Distillation: the blended loss, what the teacher sees, and whole runs."""

from pathlib import Path
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effnet.data.mixup import Mix
from effnet.data.preprocessing import Preprocessing
from effnet.recipe import Recipe
from effnet.runtime.errors import UserError
from effnet.runtime.precision import Precision
from effnet.training.checkpoint import read_checkpoint
from effnet.training.distillation import Distillation, Teacher, open_teacher
from effnet.training.losses import CrossEntropy
from effnet.training.run import train
from effnet.training.step import TrainStep
from effnet.weights import hub
from tests.runs import CLASSES, quick_recipe
from tests.training.resumed import assert_same, interrupted

pytestmark = pytest.mark.usefixtures("small_networks")

CPU = torch.device("cpu")
OWN = Preprocessing(8, 8, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
GIVEN = Preprocessing(16, 16, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))


class Recorder(nn.Module):
    """Returns fixed logits and keeps what it was given."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(logits)
        self.seen = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x
        return self.weight


def test_the_loss_is_a_blend_with_hinton_s_distance() -> None:
    student = torch.randn(6, 4, requires_grad=True)
    answers = torch.randn(6, 4)
    targets = torch.arange(6) % 4
    blend = Distillation(Recorder(answers), weight=0.7, temperature=3.0)
    found = blend(F.cross_entropy(student, targets), student, torch.zeros(6, 3, 8, 8))
    p, q = (answers / 3).softmax(1), (student / 3).softmax(1)
    expected = 0.3 * F.cross_entropy(student, targets) + 0.7 * 9 * (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(found, expected)
    # At a high temperature the gradient is that of squared differences of centred logits: (s - t) / (N classes).
    hot = Distillation(Recorder(answers), weight=1.0, temperature=1e3)
    (gradient,) = torch.autograd.grad(hot(torch.zeros(()), student, torch.zeros(6, 3, 8, 8)), student)
    apart = student.detach() - answers
    torch.testing.assert_close(
        gradient, (apart - apart.mean(1, keepdim=True)) / (6 * 4), rtol=0.02, atol=1e-3
    )


def test_with_several_labels_each_class_is_a_question() -> None:
    student, answers = torch.randn(6, 4), torch.randn(6, 4)
    blend = Distillation(Recorder(answers), weight=1.0, temperature=2.0, several_labels=True)
    found = blend(torch.zeros(()), student, torch.zeros(6, 3, 8, 8))
    p, q = (answers / 2).sigmoid(), (student / 2).sigmoid()
    distance = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    torch.testing.assert_close(found, 4 * distance.mean())


def test_the_teacher_gets_the_mixed_images_in_its_own_preprocessing() -> None:
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    mix = Mix(torch.tensor(0.75), torch.tensor([3, 2, 1, 0]))
    recorder = Recorder(torch.randn(4, 7))
    teacher = Teacher(recorder, OWN, GIVEN, torch.tensor([6, 0, 3]))
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))
    step = TrainStep(
        model,
        GIVEN,
        num_classes=3,
        loss=CrossEntropy(),
        precision=Precision(None, CPU),
        mixes=True,
        distillation=Distillation(teacher, weight=1.0, temperature=1.0),
    ).train()
    loss = step(images, torch.tensor([0, 1, 2, 0]), mix)
    mixed = 0.75 * images.float() + 0.25 * images[mix.partners].float()
    smaller = F.interpolate(mixed, (8, 8), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (OWN.mean, OWN.std))
    torch.testing.assert_close(recorder.seen, (smaller / 255 - mean) / std, rtol=1e-3, atol=1e-3)
    assert not teacher.training
    assert not recorder.training
    loss.backward()
    assert recorder.weight.grad is None
    assert not recorder.seen.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(teacher(step.normalise(images)), recorder.weight[:, [6, 0, 3]])


def recipe(workspace: Path, **changes: object) -> Recipe:
    return quick_recipe(workspace, epochs=1, batch_size=12, training_only=True, mixup=0.2, **changes)


@pytest.fixture(scope="module")
def teacher(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Workspace of a teacher."""
    workspace = tmp_path_factory.mktemp("teacher")
    train(recipe(workspace), images)
    return workspace


@pytest.mark.slow
def test_a_run_with_a_teacher_goes_on_exactly(images: Path, teacher: Path, tmp_path: Path) -> None:
    for name in ("whole", "parts"):
        settings = recipe(tmp_path / name, teacher=str(teacher), seed=1)
        if name == "parts":
            assert interrupted(settings, images, 1)
            settings = settings.replace({"resume": "auto"})
        train(settings, images)
    assert_same(tmp_path / "parts", tmp_path / "whole")
    content = read_checkpoint(tmp_path / "whole" / "checkpoint.pth.tar")
    assert not any("teacher" in key for key in content["state_dict"])


@pytest.mark.slow
def test_weight_nought_is_a_run_without(images: Path, teacher: Path, tmp_path: Path) -> None:
    train(recipe(tmp_path / "one", teacher=str(teacher), teacher_weight=0.0), images)
    train(recipe(tmp_path / "other"), images)
    assert_same(tmp_path / "one", tmp_path / "other")


def test_a_teacher_is_loaded_once_however_often_parts_are_freed(
    images: Path, teacher: Path, tmp_path: Path
) -> None:
    best = teacher / "checkpoint.pth.tar"
    frozen = {"pretrained_from_file": str(best), "freeze": "backbone", "unfreeze_every": 1}
    settings = recipe(tmp_path, teacher=str(teacher), **frozen).replace({"epochs": 2})
    with mock.patch("effnet.training.setup.open_teacher", wraps=open_teacher) as opened:
        train(settings, images)
    assert opened.call_count == 1


def test_a_teacher_on_the_hub(teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = {"hf-hub:me/birds": teacher / "checkpoint.pth.tar"}
    monkeypatch.setattr(hub, "fetch", fetched.__getitem__)
    assert open_teacher("hf-hub:me/birds", CLASSES, GIVEN, CPU).order.tolist() == [0, 1, 2]


def test_classes_are_matched_by_name(teacher: Path) -> None:
    loaded = open_teacher(str(teacher), CLASSES[::-1], GIVEN, CPU)
    assert loaded.order.tolist() == [2, 1, 0]
    assert open_teacher(str(teacher), CLASSES[1:], GIVEN, CPU).order.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("nothing", "--teacher nothing: no such file, folder of a run, or model"),
        ("efficientnet-quant-b0", "--teacher efficientnet-quant-b0 is quantized"),
        ("model.onnx", "is for another engine"),
    ],
)
def test_teachers_that_can_not_be(
    source: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.onnx").touch()
    with pytest.raises(UserError, match=words):
        open_teacher(source, CLASSES, GIVEN, CPU)


def test_a_class_that_the_teacher_does_not_know(teacher: Path) -> None:
    with pytest.raises(UserError, match="does not know the classes moon; train it on the same ones"):
        open_teacher(str(teacher), ["circle", "moon"], GIVEN, CPU)
