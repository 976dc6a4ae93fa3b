"""Answers for a thousand classes that no model has given."""

import numpy as np

from effnet.report.findings import Answer, Findings, Mistake


def many_findings(classes: int = 1000, images: int = 50, mistakes: int = 24, seed: int = 0) -> Findings:
    """Findings as a validation on ImageNet has them: three quarters right, the rest spread over similar classes.

    Args:
        classes: number of classes.
        images: images of each class.
        mistakes: mistakes with pictures of noise, which compress worse than photographs.
        seed: of the random numbers.
    """
    random = np.random.default_rng(seed)
    names = [f"n{index:08d} class number {index}" for index in range(classes)]
    truth = np.repeat(np.arange(classes), images)
    near = (truth + random.integers(1, 25, truth.shape)) % classes
    chosen = np.where(random.random(truth.shape) < 0.75, truth, near)
    pairs, counts = np.unique(np.stack([truth, chosen]), axis=1, return_counts=True)
    cells = [(int(true), int(each), int(count)) for true, each, count in zip(*pairs, counts, strict=True)]
    by_class = {
        name: {
            "images": float(images),
            "precision": random.random(),
            "recall": random.random(),
            "f1": random.random(),
        }
        for name in names
    }
    shown = [
        Mistake(
            f"/data/val/{names[index]}/{index}.jpg",
            names[index],
            tuple(Answer(names[index + other], 0.9 / other) for other in range(1, 6)),
            random.integers(0, 256, (224, 224, 3), dtype=np.uint8),
        )
        for index in range(mistakes)
    ]
    bins = [
        (place / 15, (place + 1) / 15, 100, (place + 0.5) / 15, (place + 0.2) / 15) for place in range(15)
    ]
    metrics = {"images": float(len(truth)), "top1": 75.0, "ece": 0.02, "calibrated_ece": 0.01}
    return Findings("model_best.pth.tar", names, metrics, cells, by_class, shown, {1.0: bins, 1.3: bins})
