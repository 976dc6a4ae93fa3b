"""Rule for images of none of the classes: a score of the logits, and a threshold that most known images reach.

Images that show none of the classes are rarely at hand, so the score is chosen on ones made of validation images:
blends of two, shuffled patches, and noise.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from effnet.runtime.processes import Processes
from effnet.weights.confidence import Unknown

Ask = Callable[[Tensor], Tensor]
"""returns logits float32 (N, classes) for images uint8 (N, 3, H, W)"""

_MOST_IMAGES = 256
_SHARE = 16  # one validation image in so many is made into others
_MOST_BYTES = 64 << 20
_PATCHES = 4  # of a side
_AT_ONCE = 32
_SEED = 0


def energy(logits: Tensor, temperature: float) -> Tensor:
    """Return the logarithm of the sum of the exponentials of raw logits (arXiv 2010.03759), (N,)."""
    return logits.logsumexp(1)


def max_probability(logits: Tensor, temperature: float) -> Tensor:
    """Return the probability of the predicted class (arXiv 1610.02136), (N,)."""
    return (logits / temperature).softmax(1).amax(1)


SCORE_FUNCTIONS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "energy": energy,
    "max-probability": max_probability,
}
"""functions of raw logits (N, classes) and their temperature by the names of `effnet.weights.confidence.SCORES`; higher
for images of the classes"""


def are_known(logits: Tensor, temperature: float, rule: Unknown) -> Tensor:
    """Return True for images of one of the classes, bool (N,).

    Args:
        logits: float32 (N, classes).
        temperature: of the logits.
        rule: the score and its threshold.
    """
    return SCORE_FUNCTIONS[rule.score](logits, temperature) >= rule.threshold


def auroc(known: Tensor, unknown: Tensor) -> float:
    """Return the probability that a known image's score is above an unknown one's, a tie counting half."""
    ascending = unknown.sort().values
    below = torch.searchsorted(ascending, known) + torch.searchsorted(ascending, known, right=True)
    return float(below.double().mean() / (2 * len(unknown)))


def unknown_images(images: Tensor) -> dict[str, Tensor]:
    """Return images that show none of the classes by their kind.

    Args:
        images: uint8 (N, 3, S, S), two or more, of different classes where possible half of them apart.

    Returns:
        Images of the same shape: means of two, one's patches in random places, and noise.
    """
    generator = torch.Generator().manual_seed(_SEED)
    half = len(images) // 2
    return {
        "blend": ((images.int() + images.roll(half, 0).int()) // 2).to(torch.uint8),
        "shuffled": torch.stack([_shuffled(image, generator) for image in images]),
        "noise": torch.randint(0, 256, images.shape, dtype=torch.uint8, generator=generator).to(
            images.device
        ),
    }


def _shuffled(image: Tensor, generator: torch.Generator) -> Tensor:
    """Return an image with its patches in random places; rows and columns beyond whole patches stay."""
    side = image.shape[1] // _PATCHES
    shuffled = image.clone()
    corners = [(side * row, side * column) for row in range(_PATCHES) for column in range(_PATCHES)]
    order = torch.randperm(len(corners), generator=generator).tolist()
    for (top, left), place in zip(corners, order, strict=True):
        above, beside = corners[place]
        shuffled[:, top : top + side, left : left + side] = image[
            :, above : above + side, beside : beside + side
        ]
    return shuffled


class ImageSample:
    """Evenly spaced images of a validation, the same for any number of processes.

    Args:
        num_images: images of the set over all processes.
    """

    def __init__(self, num_images: int) -> None:
        self._num_images = num_images
        self._images: list[tuple[int, Tensor]] = []

    def add(self, positions: Tensor, images: Tensor) -> None:
        """Keep those of a batch that belong to the sample.

        Args:
            positions: int64 (N,) on the CPU, in the set.
            images: uint8 (N, 3, S, S).
        """
        if not len(images):
            return
        fits = max(2, _MOST_BYTES // images[0].numel())
        wanted = max(2, min(_MOST_IMAGES, fits, self._num_images // _SHARE))
        spacing = max(1, self._num_images // wanted)
        for row in (positions % spacing == 0).nonzero().flatten().tolist():
            if (place := int(positions[row])) < spacing * wanted:
                self._images.append((place, images[row].clone()))

    def images(self, processes: Processes) -> Tensor:
        """Return the images of all processes in the main one, uint8 (N, 3, S, S) by position; in others, any."""
        own = (
            [(place, image.cpu()) for place, image in self._images]
            if processes.world_size > 1
            else self._images
        )
        found = sorted((item for each in processes.collect(own) for item in each), key=lambda item: item[0])
        return torch.stack([image for _, image in found]) if found else torch.empty(0, 3, 1, 1)


def choose_rule(
    logits: Tensor, temperature: float, sample: ImageSample, ask: Ask, keep: float, processes: Processes
) -> Unknown | None:
    """Choose score and threshold; all processes get the same.

    Args:
        logits: float32 (N, classes) of this process's validation images.
        temperature: of the logits.
        sample: images to make unknown ones of.
        ask: returns the model's logits for images.
        keep: share of the validation images whose score reaches the threshold.
        processes: the processes that have the other images.

    Returns:
        The rule; None if the logits of the images that were made are not finite.
    """
    own = {name: score(logits, temperature).cpu() for name, score in SCORE_FUNCTIONS.items()}
    gathered = processes.gather(own)
    known = {name: torch.cat([each[name] for each in gathered]).sort().values for name in own}
    images = sample.images(processes)
    best = _better_score(known, temperature, images, ask) if processes.is_main and len(images) > 1 else None
    name = processes.gather(best)[0]
    if name is None:
        return None
    scores = known[name].double()
    lowest = int((1 - keep) * len(scores))
    # Between two images, so that the last bit of a score, which differs between engines, decides nothing.
    return Unknown(name, float(scores[max(0, lowest - 1) : lowest + 1].mean()))


def _better_score(known: dict[str, Tensor], temperature: float, images: Tensor, ask: Ask) -> str | None:
    """Return the score with the highest mean AUROC over the kinds of unknown images; None if any is not finite."""
    found = dict.fromkeys(known, 0.0)
    for made in unknown_images(images).values():
        logits = torch.cat([ask(part) for part in made.split(_AT_ONCE)])
        if not logits.isfinite().all():
            return None
        for name, score in SCORE_FUNCTIONS.items():
            found[name] += auroc(known[name], score(logits, temperature).cpu())
    return max(found, key=lambda name: found[name])
