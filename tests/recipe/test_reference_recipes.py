"""Published recipes resolve to what NVIDIA's implementation resolves, but for the rows of deviations.yaml."""

import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from effnet.recipe import Recipe
from effnet.recipe.catalog import DEVIATIONS, Deviation, compose, deviations, deviations_table, published
from tests.runs import resolved

REPOSITORY = Path(__file__).resolve().parents[2]
DIFFERENCES = REPOSITORY / "docs/differences.md"
BEGIN, END = "<!-- recipes/deviations.yaml -->\n", "<!-- end -->\n"
# GPUs of a platform, for each of which there is a process.
PROCESSES = {"T4": 1, "DGX1V": 8, "DGX1V-16G": 8, "DGX1V-32G": 8, "DGXA100": 8}
# Settings of the table that NVIDIA's QAT scripts give otherwise or leave to defaults that are not known.
NOT_OF_QAT = {"optimizer_batch_size", "rmsprop_alpha", "rmsprop_eps", "label_smoothing", "mixup", "warmup"}
# What a script says beside settings.
ABOUT_SCRIPTS = {"processes", "scaled", "first_argument"}

Difference = tuple[str, str, Any, Any]
"""recipe, setting, NVIDIA's value, ours"""


@pytest.fixture(scope="module")
def reference(shared_dir: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((shared_dir / "reference/recipes.json").read_text())
    for platforms in facts["models"].values():
        platforms["DGX1V"] = platforms["DGX1V-16G"]  # the short name of the machine with 16 GB
    return facts


def expected(facts: dict[str, Any]) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Every recipe of NVIDIA's implementation: name, processes, and its values under our settings' names."""
    for model, platforms in facts["models"].items():
        script = facts["defaults"]["qat_scripts"].get(model)
        for platform, precisions in platforms.items():
            for precision, entry in precisions.items():
                for mode, changes in facts["modes"].items():
                    values = {**(with_script(entry, script) if script else entry), **changes}
                    values |= {"survival_prob": 0.8 if model.endswith("b4") else 1.0}
                    values |= {"dropout": facts["defaults"]["dropout"][model[-2:]]}
                    processes = script["processes"] if script else PROCESSES[platform]
                    yield f"{model}/{platform}/{precision}/{mode}", processes, in_our_terms(values, precision)


def with_script(entry: dict[str, Any], script: dict[str, Any]) -> dict[str, Any]:
    """A quantized model's values: the table's, so far as they are the platform's, and those of its QAT script."""
    assert not script["scaled"]
    of_platform = {name: value for name, value in entry.items() if name not in NOT_OF_QAT}
    of_script = {name: value for name, value in script.items() if name not in ABOUT_SCRIPTS}
    step = script["processes"] * script["batch_size"]
    return {**of_platform, **of_script, "optimizer_batch_size": step}


def in_our_terms(values: dict[str, Any], precision: str) -> dict[str, Any]:
    """Values of `recipes.json` under the names of our settings."""
    ours = {name: float(v) if name == "weight_decay" else v for name, v in values.items()}
    assert ours.pop("amp") == (precision == "AMP")
    ours["precision"] = precision.lower()
    ours["no_checkpoints"] = not ours.pop("save_checkpoints")
    # NVIDIA's scale is dynamic in spite of the setting's name ("amp_loss_scale").
    if "static_loss_scale" in ours:
        ours |= {"initial_loss_scale": ours["static_loss_scale"], "static_loss_scale": None}
    ours.setdefault("prof", None)
    return ours


def settings_of(name: str, processes: int) -> dict[str, Any]:
    recipe, _ = compose(published(*name.split("/")).layers)
    groups = resolved(recipe, processes).to_dict()
    groups["compute"]["precision"] = recipe.compute.precision  # its meaning depends on the device
    return {setting: value for group in groups.values() for setting, value in group.items()}


def differences(facts: dict[str, Any]) -> list[Difference]:
    found = []
    for name, processes, values in expected(facts):
        ours = settings_of(name, processes)
        found += [(name, key, value, ours[key]) for key, value in values.items() if ours[key] != value]
    return found


def unlisted(found: list[Difference], rows: tuple[Deviation, ...]) -> list[Difference]:
    """Differences that no row has, with both values."""

    def is_listed(difference: Difference) -> bool:
        name, *values = difference
        return any(row.applies_to(name) and [row.setting, row.reference, row.ours] == values for row in rows)

    return [difference for difference in found if not is_listed(difference)]


def outdated(
    facts: dict[str, Any], found: list[Difference], rows: tuple[Deviation, ...]
) -> list[tuple[str, str]]:
    """Recipes and settings of rows that are no difference any more, or in which no recipe of NVIDIA's differs."""
    wrong = []
    walked = list(expected(facts))
    for row in rows:
        recipes = [entry for entry in walked if row.applies_to(entry[0])]
        wrong += [
            (pattern, row.setting)
            for pattern in row.where
            if not any(fnmatchcase(name, pattern) for name, *_ in recipes)
        ]
        for name, processes, values in recipes:
            if row.reference is None:
                holds = row.setting not in values and settings_of(name, processes)[row.setting] == row.ours
            else:
                holds = (name, row.setting, row.reference, row.ours) in found
            if not holds:
                wrong.append((name, row.setting))
    return wrong


@pytest.fixture(scope="module")
def found(reference: dict[str, Any]) -> list[Difference]:
    return differences(reference)


def test_the_walk_sees_every_recipe_and_its_values(reference: dict[str, Any]) -> None:
    walked = list(expected(reference))
    assert len(walked) == 6 * 5 * 2 * 5  # models, platforms, precisions of each, modes
    assert min(len(values) for _, _, values in walked) >= 23
    quantized = [values for name, _, values in walked if "quant" in name]
    assert {values["lr"] for values in quantized} == {0.0125, 4.09e-6}
    assert {values["interpolation"] for values in quantized} == {"bilinear"}


def test_recipes_are_the_reference_s_but_for_what_is_listed(found: list[Difference]) -> None:
    assert unlisted(found, deviations()) == []


def test_what_is_listed_differs(reference: dict[str, Any], found: list[Difference]) -> None:
    assert outdated(reference, found, deviations()) == []


def test_the_comparison_can_fail(reference: dict[str, Any], found: list[Difference]) -> None:
    rows = deviations()
    batches = [row for row in rows if row.setting == "batch_size"]
    assert {name for name, *_ in unlisted(found, tuple(set(rows) - {batches[0]}))} == {
        name for name, *_ in expected(reference) if batches[0].applies_to(name)
    }
    row = Deviation("momentum", ("efficientnet-b0/*",), 0.9, 0.8, "", "")
    assert ("efficientnet-b0/T4/AMP/evaluate", "momentum") in outdated(reference, found, (row,))
    row = Deviation("mixup", ("efficientnet-quant-b0/*",), None, 0.2, "", "")
    assert outdated(reference, found, (row,))


@pytest.mark.parametrize(
    ("model", "lr"), [("efficientnet-quant-b0", 0.0125), ("efficientnet-quant-b4", 4.09e-6)]
)
@pytest.mark.parametrize("processes", [1, 8, 64])
def test_qat_has_its_learning_rate_with_any_number_of_processes(
    model: str, lr: float, processes: int
) -> None:
    for platform in ("DGX1V-16G", "DGX1V-32G", "DGXA100"):
        assert settings_of(f"{model}/{platform}/AMP", processes)["lr"] == lr


def test_every_row_says_why() -> None:
    for row in deviations():
        assert row.setting in {name for group in Recipe().to_dict().values() for name in group}
        assert row.reason
        assert row.effect
        assert "|" not in row.reason + row.effect


def test_the_page_shows_the_rows() -> None:
    page = DIFFERENCES.read_text(encoding="utf-8")
    shown = page[page.index(BEGIN) + len(BEGIN) : page.index(END)]
    assert shown == deviations_table(), (
        f"put effnet.recipe.catalog.deviations_table() into docs/differences.md: {DEVIATIONS.name} has changed"
    )
