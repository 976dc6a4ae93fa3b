"""Train a detector on an EfficientNet: torchvision's FCOS on the stages that `extract_features` returns.

    python examples/detection.py --steps 60

The images are made here: coloured rectangles on noise, whose boxes and colours are to be found.
"""

import argparse
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS
from torchvision.ops import FeaturePyramidNetwork, box_iou
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

import effnet

COLOURS = {1: (0.9, 0.2, 0.2), 2: (0.2, 0.9, 0.2), 3: (0.2, 0.3, 0.9)}  # class 0 is the background


class Backbone(nn.Module):
    """Features of strides 8 to 128, as torchvision's detectors take them.

    Args:
        name: a model of `effnet.list_models`.
        weights: as for `effnet.create_model`.
        channels: of each level.
    """

    def __init__(self, name: str, weights: str | None, channels: int = 64) -> None:
        super().__init__()
        self.network = effnet.create_model(name, weights=weights).eval()
        with torch.no_grad():
            stages = self.network.extract_features(torch.zeros(1, 3, 64, 64))
        del stages["features"]  # of the head, which is made for classification
        # The last stage of each stride. Of 64 pixels, 8 are left at stride 8.
        self.levels = {64 // stage.shape[2]: name for name, stage in stages.items() if stage.shape[2] <= 8}
        widths = [stages[name].shape[1] for name in self.levels.values()]
        self.pyramid = FeaturePyramidNetwork(widths, channels, LastLevelP6P7(channels, channels))
        self.out_channels = channels

    def train(self, mode: bool = True) -> "Backbone":
        """Keep BatchNorm's statistics: a detector's batches are small."""
        super().train(mode)
        self.network.eval()
        return self

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return five levels, (N, channels, H / stride, W / stride)."""
        stages = self.network.extract_features(images)
        levels: dict[str, Tensor] = self.pyramid({name: stages[name] for name in self.levels.values()})
        return levels


def scenes(size: int, batch: int, seed: int) -> Iterator[tuple[list[Tensor], list[dict[str, Tensor]]]]:
    """Yield batches of images, float32 (3, size, size) from 0 to 1, with their boxes and labels."""
    random = torch.Generator().manual_seed(seed)
    while True:
        images, targets = [], []
        for _ in range(batch):
            image = 0.5 * torch.rand(3, size, size, generator=random)
            sides = torch.randint(size // 4, size // 2, (2,), generator=random)
            corner = torch.randint(0, size // 2, (2,), generator=random)
            (left, top), (right, bottom) = corner.tolist(), (corner + sides).tolist()
            label = int(torch.randint(1, 4, (1,), generator=random))
            image[:, top:bottom, left:right] = torch.tensor(COLOURS[label])[:, None, None]
            images.append(image)
            box = torch.tensor([[left, top, right, bottom]], dtype=torch.float32)
            targets.append({"boxes": box, "labels": torch.tensor([label])})
        yield images, targets


def main() -> None:
    """Train, and find the rectangles of new images."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--size", type=int, default=128, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--arch", default="efficientnet-lite0")
    parser.add_argument("--weights", default="google", help="publisher or file; `none` for random ones")
    given = parser.parse_args()
    torch.manual_seed(0)

    backbone = Backbone(given.arch, None if given.weights == "none" else given.weights)
    detector = FCOS(backbone, num_classes=4, min_size=given.size, max_size=given.size)
    trained = [parameter for parameter in detector.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    detector.train()
    for step, (images, targets) in zip(range(given.steps), scenes(given.size, given.batch, 0), strict=False):
        losses = detector(images, targets)
        loss = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 10 == 0 or step == given.steps - 1:
            parts = ", ".join(f"{name} {value.item():.3f}" for name, value in losses.items())
            print(f"step {step}: loss {loss.item():.3f} ({parts})")

    detector.eval()
    images, targets = next(scenes(given.size, given.batch, seed=1))
    found = 0
    with torch.inference_mode():
        for answer, target in zip(detector(images), targets, strict=True):
            if len(answer["boxes"]):
                is_right = answer["labels"][0] == target["labels"][0]
                found += bool(is_right and box_iou(answer["boxes"][:1], target["boxes"])[0, 0] > 0.5)
    print(f"found {found} of {given.batch} rectangles in new images")


if __name__ == "__main__":
    main()
