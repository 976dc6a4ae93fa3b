"""A training loop of one's own from the library's parts: data, augmentation, model, schedule, averaged weights, file.

    effnet prepare sample data/sample
    python examples/custom_loop.py data/sample --epochs 3

What `effnet train` adds: checkpoints that go on bit for bit, several GPUs, mixed precision, a log, guards against bad
images and bad steps.
"""

import argparse
from pathlib import Path

import torch
from torch.nn import functional as F

import effnet
from effnet.data import DataRequest, Loader, Preprocessing, find_classes, open_data
from effnet.recipe import Recipe
from effnet.training.ema import ModelEMA
from effnet.training.facts import facts_of
from effnet.training.schedule import learning_rate
from effnet.training.step import Normalise
from effnet.weights import WeightsMetadata, save_weights


@torch.inference_mode()
def accuracy(model: torch.nn.Module, loader: Loader, normalise: Normalise) -> float:
    """Return the top-1 accuracy in percent."""
    right = sum(int((model(normalise(b.images)).argmax(1) == b.targets).sum()) for b in loader)
    return 100 * right / loader.num_images


def main() -> None:
    """Train on the folder of the command line, and write the averaged weights."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="with train/<class>/ and val/<class>/")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("custom.safetensors"))
    given = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    # Settings as for `effnet train`; `resolve` fills in what is left open.
    settings = {"arch": "efficientnet-lite0", "image_size": 32, "resize": 32, "bn_momentum": 0.1}
    settings |= {
        "augmentation": "none",
        "hflip": 0.0,
        "crop_scale": (0.6, 1.0),
        "batch_size": given.batch_size,
        "lr": 2e-3,
    }
    settings |= {"epochs": given.epochs, "warmup": 0.2 * given.epochs, "workers": given.workers}
    recipe = Recipe().replace(settings)
    classes = find_classes(recipe, given.folder)
    resolved = recipe.resolve(facts_of(recipe, precision="fp32", num_classes=len(classes)))
    preprocessing = Preprocessing(image_size=32, resize=32)
    data = open_data(DataRequest(resolved, given.folder, preprocessing, device))
    assert data.train is not None
    assert data.val is not None

    torch.manual_seed(0)
    model = effnet.create_model("efficientnet-lite0", num_classes=len(classes), bn_momentum=0.1)
    model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    normalise = Normalise(preprocessing).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=1e-4)
    average = ModelEMA(model, decay=0.98)
    taken = torch.tensor(True, device=device)
    steps = len(data.train)
    for epoch in range(given.epochs):
        model.train()
        total = torch.zeros((), device=device)
        for step, batch in enumerate(data.train):
            lr = learning_rate(resolved.schedule, resolved.optimizer.lr, epoch + step / steps)
            optimizer.param_groups[0]["lr"] = lr
            loss = F.cross_entropy(model(normalise(batch.images)), batch.targets, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            average.update(taken)
            total += loss.detach()
        top1 = accuracy(average.module, data.val, normalise)
        print(f"epoch {epoch + 1}: loss {total.item() / steps:.3f}, top-1 of the average {top1:.1f} %")
    metadata = WeightsMetadata("efficientnet-lite0", preprocessing.to_dict(), classes=tuple(data.classes))
    save_weights(given.output, average.module.state_dict(), metadata)
    print(f"try it: effnet classify {given.output} IMAGE")


if __name__ == "__main__":
    main()
