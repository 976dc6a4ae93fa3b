"""Fine-tuning with timm, as its training script does it: the alternative that `benchmarks.finetuning` measures.

timm's package lacks its `train.py`, so this puts the same parts of timm together: `create_model`, `create_transform`,
`create_optimizer_v2`, `create_scheduler_v2` and label smoothing, with the script's defaults. It runs as a process of
its own and stops when its wall-clock time is spent; the schedule follows that time. The clock starts when imports are
done and the model is there: importing timm takes several seconds, which say nothing about training.
"""

import argparse
import json
import random
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import nn

MODEL = "tf_efficientnet_lite0"
# The schedule's length: it counts parts of the budget.
_PARTS = 1000
_WARMUP_PARTS = 50
_CROP_SHARE = 224 / 256


def main(argv: Sequence[str] | None = None) -> None:
    """Train, judge, and write a JSON file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path, help="folder with train/ and val/")
    parser.add_argument("--weights", type=Path, required=True, help="state dict of timm's model for ImageNet")
    parser.add_argument("--normalisation", type=float, nargs=2, required=True, help="mean and deviation")
    parser.add_argument("--image-size", type=int, required=True)
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True, help="budget of the training")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(argv)
    random.seed(given.seed)
    torch.manual_seed(given.seed)
    model = _model(given.weights, len(list((given.data / "train").iterdir())))
    begun = time.time()
    steps = _train(model, given, begun)
    seconds = time.time() - begun
    result = {"top1": _judge(model, given), "seconds": seconds, "steps": steps}
    given.out.write_text(json.dumps(result))


def _model(weights: Path, num_classes: int) -> nn.Module:
    import timm

    model: nn.Module = timm.create_model(MODEL, num_classes=num_classes)
    state = torch.load(weights, weights_only=True)
    kept = {name: value for name, value in state.items() if not name.startswith("classifier.")}
    missing = model.load_state_dict(kept, strict=False)
    assert set(missing.missing_keys) == {"classifier.weight", "classifier.bias"}
    assert not missing.unexpected_keys
    return model.to(memory_format=torch.channels_last)


def _loader(given: argparse.Namespace, split: str) -> torch.utils.data.DataLoader[Any]:
    from timm.data import create_transform
    from torchvision.datasets import ImageFolder

    mean, std = given.normalisation
    transform = create_transform(
        given.image_size,
        is_training=split == "train",
        interpolation="random" if split == "train" else "bicubic",
        color_jitter=0.4,
        mean=(mean,) * 3,
        std=(std,) * 3,
        crop_pct=_CROP_SHARE,
    )
    data = ImageFolder(str(given.data / split), transform)
    is_train = split == "train"
    return torch.utils.data.DataLoader(
        data, min(given.batch_size, len(data)), shuffle=is_train, drop_last=is_train, num_workers=1
    )


def _train(model: nn.Module, given: argparse.Namespace, begun: float) -> int:
    from timm.loss import LabelSmoothingCrossEntropy
    from timm.optim import create_optimizer_v2
    from timm.scheduler import create_scheduler_v2

    optimizer = create_optimizer_v2(model, opt="adamw", lr=given.lr, weight_decay=0.05)
    scheduler, _ = create_scheduler_v2(
        optimizer, sched="cosine", num_epochs=_PARTS, warmup_epochs=_WARMUP_PARTS, warmup_lr=given.lr / 100
    )
    loss = LabelSmoothingCrossEntropy(0.1)
    loader, steps = _loader(given, "train"), 0
    model.train()
    for _ in count():
        for images, targets in loader:
            spent = (time.time() - begun) / given.seconds
            if spent >= 1:
                return steps
            scheduler.step(int(_PARTS * spent))
            optimizer.zero_grad()
            loss(model(images.to(memory_format=torch.channels_last)), targets).backward()
            optimizer.step()
            steps += 1
    raise AssertionError("the budget ends the loop")


@torch.no_grad()
def _judge(model: nn.Module, given: argparse.Namespace) -> float:
    """Return the top-1 accuracy on val/ in percent."""
    model.eval()
    right = images = 0
    for batch, targets in _loader(given, "val"):
        right += int((model(batch.to(memory_format=torch.channels_last)).argmax(1) == targets).sum())
        images += len(targets)
    return 100 * right / images


if __name__ == "__main__":
    main()
