"""The page of a comparison of two models: one HTML file that needs nothing else."""

from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from effnet.data.decode import BadImageError
from effnet.inference.classifier import Classifier
from effnet.inference.compare.comparison import Comparison
from effnet.inference.explain import Explainer
from effnet.inference.images import NamedImage
from effnet.inference.overlay import photograph
from effnet.report.html import data_uri, environment, policy, template_text
from effnet.runtime.errors import UserError
from effnet.runtime.files import write_text
from effnet.runtime.progress import ProgressBar
from effnet.runtime.text import printable

_ORDINALS = ("first", "second")


def write_comparison(
    comparison: Comparison, path: Path, *, shown: int = 24, with_heat_maps: bool = True
) -> None:
    """Write the page of a comparison.

    Args:
        comparison: two models on the same images.
        path: HTML file.
        shown: images to show, those that differ most.
        with_heat_maps: draw a heat map of each model's answer over them, of models in PyTorch.

    Raises:
        UserError: the file can't be written.
    """
    write_text(path, render(comparison, shown=shown, with_heat_maps=with_heat_maps))


def render(comparison: Comparison, *, shown: int = 24, with_heat_maps: bool = True) -> str:
    """Return the page; see `write_comparison`."""
    script = template_text("compare.js")
    page: str = (
        environment()
        .get_template("compare.html")
        .render(
            ordinals=_ORDINALS,
            models=[_model(facts) for facts in comparison.models],
            source=printable(comparison.images.root),
            summary=comparison.summary(),
            cards=_cards(comparison, shown, with_heat_maps),
            changes=[_printable(row) for row in comparison.changes()],
            classes=[_printable(row) for row in comparison.by_class()],
            labelled=comparison.targets is not None,
            bad=[f"{printable(name)}: {printable(reason)}" for name, reason in comparison.pairs.bad],
            style=template_text("compare.css"),
            script=script,
            policy=policy([script]),
        )
    )
    return page


def _model(facts: Any) -> dict[str, Any]:
    size = "" if facts.file_bytes is None else f"{facts.file_bytes / 1e6:.1f} MB"
    return {**_printable(vars(facts)), "image_size": f"{facts.image_size} px", "size": size}


def _printable(values: dict[str, Any]) -> dict[str, Any]:
    return {name: printable(value) if isinstance(value, str) else value for name, value in values.items()}


def _cards(comparison: Comparison, shown: int, with_heat_maps: bool) -> list[dict[str, Any]]:
    """Return what is shown of each image."""
    explainers = [_explainer(model) if with_heat_maps else None for model in comparison.classifiers]
    places = comparison.most_different(shown)
    cards = []
    with ProgressBar("drawing", len(places)) as bar:
        for place in places:
            facts = comparison.image(place)
            index = int(comparison.pairs.indices[place])
            image = NamedImage(facts["image"], partial(comparison.images.image, index))
            cards.append(
                {
                    "image": printable(comparison.images.name(index)),
                    "label": printable(facts.get("label", "")),
                    "moved": facts["moved"],
                    "divergence": facts["divergence"],
                    "logit_difference": facts["logit_difference"],
                    "agree": bool(comparison.pairs.agree[place]),
                    "answers": [[_printable(answer) for answer in facts[name][:3]] for name in _ORDINALS],
                    "pictures": _pictures(image, explainers),
                }
            )
            bar.advance(1)
    return cards


def _explainer(model: Classifier) -> Explainer | None:
    """Return what makes heat maps of a model; None for an engine without gradients, or images too small for maps."""
    try:
        return Explainer(model)
    except UserError:
        return None


def _pictures(image: NamedImage, explainers: list[Explainer | None]) -> list[dict[str, str]]:
    """Return the photograph, and the heat maps over it."""
    try:
        pictures = [{"of": "photograph", "uri": data_uri(Image.fromarray(photograph(image.open())))}]
        for name, explainer in zip(_ORDINALS, explainers, strict=True):
            if explainer is not None:
                picture = explainer(image).picture()
                pictures.append({"of": f"heat map of the {name} model's answer", "uri": data_uri(picture)})
    except BadImageError:  # removed meanwhile
        return []
    return pictures
