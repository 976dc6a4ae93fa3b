"""A run or a file of weights, made into a folder for the hub and pushed there."""

import json
import tempfile
from dataclasses import replace
from os import PathLike
from pathlib import Path

from effnet.export.trained import ModelChoice, open_trained
from effnet.inference.engines import is_exported
from effnet.models.efficientnet import EfficientNet
from effnet.runtime.errors import UserError
from effnet.runtime.files import atomic_folder, write_text
from effnet.sharing.card import Card, recipe_yaml
from effnet.sharing.history import read_history
from effnet.sharing.pictures import draw_learning_curve
from effnet.training.run_weights import averaged_is_better, best_checkpoint
from effnet.weights import LAYOUTS, save_weights
from effnet.weights.hub import CONFIG_FILE, WEIGHTS_FILE, parse_hub_name, upload
from effnet.weights.hub_config import timm_name, to_config
from effnet.weights.tensors import check_finite

RECIPE_FILE, CARD_FILE = "recipe.yaml", "README.md"


def push(
    source: str | PathLike[str],
    repository: str,
    *,
    private: bool = False,
    message: str | None = None,
    licence: str | None = None,
    ema: bool | None = None,
) -> str:
    """Push a trained model to the Hugging Face hub: weights, configuration, model card and recipe, nothing else.

    Args:
        source: as for `write_folder`.
        repository: ``owner/name``; made if it does not exist.
        private: the repository is to be private.
        message: of the commit.
        licence: as for `write_folder`.
        ema: as for `write_folder`.

    Returns:
        The repository's address.

    Raises:
        UserError: see `write_folder` and `effnet.weights.hub.upload`.
    """
    parse_hub_name(repository)
    with tempfile.TemporaryDirectory(prefix="effnet-push-") as place:
        folder = Path(place) / "model"
        write_folder(source, repository, folder, licence=licence, ema=ema)
        return upload(folder, repository, private=private, message=message or "Push a model of effnet")


def write_folder(
    source: str | PathLike[str],
    repository: str,
    folder: Path,
    *,
    licence: str | None = None,
    ema: bool | None = None,
) -> None:
    """Write the files that `push` pushes.

    ``model.safetensors`` is in timm's layout where timm has the network, else in ours.

    Args:
        source: folder of a run (its best checkpoint), a checkpoint or a file of weights.
        repository: ``owner/name``, which the model card names.
        folder: folder to write; must be empty if it exists.
        licence: identifier such as ``apache-2.0``; None for that of published weights, if they are what is pushed.
        ema: take a checkpoint's averaged weights; None for those that were the better ones in validation.

    Raises:
        UserError: weights that can't be read or are not finite; a folder with something in it.
    """
    name = parse_hub_name(repository)
    if name.revision is not None:
        raise UserError(f"{repository}: a push makes a new revision; leave @{name.revision} out")
    path = _weights_of(Path(source))
    averaged = averaged_is_better(path) if ema is None else ema
    trained = open_trained(ModelChoice(weights=path, ema=averaged))
    model, metadata = trained.model, trained.metadata
    assert isinstance(model, EfficientNet)
    licence = (licence or metadata.licence).lower()
    metadata = replace(metadata, model=model.config.name, licence=licence)
    layout = LAYOUTS["timm" if timm_name(model.config) else "effnet"]
    tensors = layout.from_ours(model.state_dict(), model.config)
    check_finite(tensors, str(path))
    history = read_history(path, ema=averaged)
    try:
        with atomic_folder(folder) as place:
            save_weights(place / WEIGHTS_FILE, tensors, metadata)
            config = json.dumps(to_config(model.config, metadata), indent=2, ensure_ascii=False)
            write_text(place / CONFIG_FILE, config + "\n")
            if history.settings:
                write_text(place / RECIPE_FILE, recipe_yaml(history.settings))
            picture = draw_learning_curve(history.curve, place)
            card = Card(
                name.repository, model.config, metadata, history, licence, picture, bool(history.settings)
            )
            write_text(place / CARD_FILE, card.text())
    except FileExistsError:
        raise UserError(f"{folder}: exists, and is not empty; name another folder") from None


def _weights_of(source: Path) -> Path:
    if is_exported(source):
        raise UserError(f"{source}: an exported graph; push the run or the weights that it was exported from")
    if source.is_dir():
        pushed = source / WEIGHTS_FILE
        return pushed if pushed.is_file() else best_checkpoint(source)
    return source
