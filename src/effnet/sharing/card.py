"""The model card, README.md: its header in YAML, which the hub reads, and its text."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from effnet.models.config import ModelConfig
from effnet.runtime.text import printable
from effnet.sharing.history import History
from effnet.weights import WeightsMetadata
from effnet.weights.hub_config import timm_name

_MOST_CLASSES = 200
# Ours by the hub's names; those in percent become shares, as the hub's tables have them.
_METRICS = {"top1": ("accuracy", "Top-1 accuracy", 0.01), "top5": ("accuracy", "Top-5 accuracy", 0.01)}


@dataclass(frozen=True)
class Card:
    """All that a card tells.

    Attributes:
        repository: ``owner/name``.
        config: the model.
        metadata: its weights'.
        history: the run's.
        licence: identifier of the licence; empty if none was named.
        picture: file with the learning curve, or None.
        has_recipe: recipe.yaml is beside the card.
    """

    repository: str
    config: ModelConfig
    metadata: WeightsMetadata
    history: History
    licence: str = ""
    picture: str | None = None
    has_recipe: bool = False

    def text(self) -> str:
        """Return the content of README.md."""
        sections = [
            self._title(),
            self._results(),
            self._use(),
            self._input(),
            self._confidence(),
            self._classes(),
            self._training(),
            self._licence(),
        ]
        return "\n\n".join(("---\n" + self._header() + "---", *(part for part in sections if part))) + "\n"

    @property
    def _timm(self) -> str | None:
        return timm_name(self.config)

    def _header(self) -> str:
        tags = ["image-classification", "effnet", "efficientnet", "pytorch"]
        header: dict[str, Any] = {
            **({"license": self.licence} if self.licence else {}),
            "library_name": "timm" if self._timm else "effnet",
            "pipeline_tag": "image-classification",
            "tags": [*tags, *(["timm"] if self._timm else [])],
        }
        if self.history.metrics:
            header["metrics"] = sorted({row["type"] for row in self._metric_rows()})
            header["model-index"] = [
                {
                    "name": self.repository.partition("/")[2],
                    "results": [
                        {
                            "task": {"type": "image-classification", "name": "Image classification"},
                            "dataset": {"type": "imagefolder", "name": "validation images of the run"},
                            "metrics": self._metric_rows(),
                        }
                    ],
                }
            ]
        return yaml.safe_dump(header, sort_keys=False, allow_unicode=True)

    def _metric_rows(self) -> list[dict[str, Any]]:
        rows = []
        for name, value in self.history.metrics.items():
            kind, shown, factor = _METRICS.get(name, (name, name, 1.0))
            rows.append({"type": kind, "name": shown, "value": round(value * factor, 6)})
        return rows

    def _title(self) -> str:
        config = self.config
        network = "with INT8 quantizers " if config.quantized else ""
        return (
            f"# {self.repository.partition('/')[2]}\n\n"
            f"An image classifier: {config.name} {network}with {config.num_classes} classes, trained with effnet."
        )

    def _results(self) -> str:
        metrics = self.history.metrics
        if not metrics:
            return ""
        count = f" on {self.history.images} images" if self.history.images is not None else ""
        rows = "".join(f"\n| {name} | {value:.4g}{_unit(name)} |" for name, value in metrics.items())
        picture = f"\n\n![Loss and accuracy by epoch]({self.picture})" if self.picture else ""
        return f"## Results\n\nValidation{count}:\n\n| metric | value |\n| --- | --- |{rows}{picture}"

    def _use(self) -> str:
        ours = (
            f'import effnet\n\nclassifier = effnet.load("hf-hub:{self.repository}")\n'
            'print(classifier("photo.jpg").best.name)'
        )
        text = f"## Use\n\nWith effnet:\n\n```python\n{ours}\n```"
        if self._timm is None:
            return f"{text}\n\ntimm has no such network: these weights are in effnet's layout."
        theirs = (
            f'import timm\n\nmodel = timm.create_model("hf-hub:{self.repository}", pretrained=True).eval()'
        )
        return f"{text}\n\nWith timm, which returns the same logits:\n\n```python\n{theirs}\n```"

    def _input(self) -> str:
        values = self.metadata.preprocessing
        return (
            f"## Input\n\nRGB, the shorter side resized to {values['resize']} px ({values['interpolation']}), centre "
            f"crop of {values['image_size']} px, mean {_numbers(values['mean'])}, standard deviation "
            f"{_numbers(values['std'])} on the scale of 0 to 1."
        )

    def _confidence(self) -> str:
        confidence = self.metadata.confidence
        if confidence is None:
            return ""
        text = (
            f"## Confidence\n\nProbabilities are those of the logits divided by {confidence.temperature:.4g}"
        )
        if confidence.unknown is not None:
            score, threshold = confidence.unknown.score, confidence.unknown.threshold
            text += f"; an image whose {score} score is below {threshold:.4g} is of none of the classes"
        return f"{text}. effnet does this, timm returns the logits as they are."

    def _classes(self) -> str:
        names = self.metadata.class_names()
        if not names:
            return ""
        shown = ", ".join(_escaped(name) for name in names[:_MOST_CLASSES])
        more = (
            f", and {len(names) - _MOST_CLASSES} more (`config.json`)" if len(names) > _MOST_CLASSES else ""
        )
        return f"## Classes\n\n{shown}{more}"

    def _training(self) -> str:
        if not self.has_recipe:
            return ""
        epochs = f" for {self.history.epoch} epochs" if self.history.epoch is not None else ""
        return (
            f"## Training\n\nTrained{epochs} by the settings in `recipe.yaml`, which are those that are not effnet's "
            "defaults:\n\n```bash\neffnet train my-images --recipe recipe.yaml\n```"
        )

    def _licence(self) -> str:
        origin = ""
        if self.metadata.source and self.metadata.source.isprintable():
            origin = f" The weights are those of {self.metadata.tag}."
        return f"## Licence\n\n{self.licence or 'No licence was named.'}{origin}"


def _unit(name: str) -> str:
    return " %" if name in _METRICS else ""


def _numbers(values: Any) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _escaped(name: str) -> str:
    """Return a class's name with what Markdown or HTML would act on escaped."""
    return "".join(f"\\{char}" if char in "\\`*_{}[]<>()#+-!|~&" else char for char in printable(name))


def recipe_yaml(groups: Mapping[str, Mapping[str, Any]]) -> str:
    """Return settings by group as a file for `--recipe`."""
    plain = {
        group: {name: list(value) if isinstance(value, tuple) else value for name, value in members.items()}
        for group, members in groups.items()
    }
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
