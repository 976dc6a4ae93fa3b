"""Metadata as files: at the end of a file for phones, or beside a model in its folder."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

from effnet.export.facts import CLASSES_KEY, METADATA_KEY, PRECISION_KEY, THRESHOLDS_KEY
from effnet.weights import WeightsMetadata


def append_facts(path: Path, metadata: WeightsMetadata, precision: str, taken: Mapping[str, str]) -> None:
    """Append the metadata as a zip archive, which runtimes do not read and every unzip does."""
    facts = {**fact_files(metadata), PRECISION_KEY: precision, **taken}
    with zipfile.ZipFile(path, "a") as archive:
        for name, text in facts.items():
            archive.writestr(name, text)


def fact_files(metadata: WeightsMetadata) -> dict[str, str]:
    """Return the metadata that go with a model, as texts by file name."""
    facts = {
        f"{METADATA_KEY}.json": json.dumps(metadata.to_dict()),
        f"{CLASSES_KEY}.txt": "".join(f"{name}\n" for name in metadata.class_names()),
    }
    if metadata.several_labels:
        facts[f"{THRESHOLDS_KEY}.json"] = json.dumps(list(metadata.thresholds))
    return facts


def read_facts(path: Path) -> dict[str, str]:
    """Return a file's metadata by key, as `effnet.export.facts.read_metadata` takes them.

    Returns:
        Nothing for a file that another program wrote.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name: Path(name).stem for name in archive.namelist()}
            return {key: archive.read(name).decode() for name, key in names.items()}
    except (zipfile.BadZipFile, ValueError):
        return {}
