"""The loop's arithmetic beside a plain PyTorch loop."""

from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor

from effnet.benchmark.train import synthetic_trainer
from effnet.training.trainer import Trainer
from tests.runs import quick_recipe

BATCHES, GROUP = 5, 2
LR = 1e-5  # at higher rates the training of so small a network is chaotic: rounding grows to percents in three steps


def trainer_of_five_batches(workspace: Path) -> Trainer:
    recipe = quick_recipe(
        workspace,
        image_size=64,
        num_classes=4,
        dropout=0.0,
        survival_prob=1.0,
        optimizer="sgd",
        momentum=0.0,
        weight_decay=0.0,
        lr=LR,
        warmup=0.0,
        end_lr=LR,  # a constant rate
        lr_schedule="linear",
        use_ema=0.999,
        epochs=1,
        prof=BATCHES,
        optimizer_batch_size=8 * GROUP,
    )
    trainer, _ = synthetic_trainer(recipe, torch.device("cpu"))
    trainer.loader.load_state_dict({"epoch": 0, "step": 0})
    return trainer


def flat(tensors: Iterable[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().double().reshape(-1) for tensor in tensors])


def test_weights_and_average_are_those_of_a_plain_loop(tmp_path: Path) -> None:
    trainer = trainer_of_five_batches(tmp_path)
    step = deepcopy(trainer.step).train()
    batch, mixes = next(iter(trainer.loader)), trainer.mixes(0)
    trainer.loader.load_state_dict({"epoch": 0, "step": 0})
    start = flat(step.parameters())
    trainer.train_epoch()

    average = start.clone()
    for update, group in enumerate(([0, 1], [2, 3], [4])):
        losses = [step(batch.images, batch.targets, mixes[number]) for number in group]
        gradients = torch.autograd.grad(torch.stack(losses).mean(), list(step.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(step.parameters(), gradients, strict=True):
                parameter.sub_(gradient, alpha=LR)
        average.lerp_(flat(step.parameters()), 1 - (1 + update) / (10 + update))
    assert trainer.state.progress.step == 3
    assert trainer.state.ema is not None
    for ours, plain in ((trainer.state.model, flat(step.parameters())), (trainer.state.ema.module, average)):
        moved = plain - start
        # Halving the last group's gradient, or a decay of 0.999, is off by 10 % and more.
        assert (flat(ours.parameters()) - plain).norm() < 0.03 * moved.norm()
