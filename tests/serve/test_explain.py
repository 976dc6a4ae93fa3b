"""Heat maps of a server, compared with those of `Classifier.explain`."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import effnet
from tests.runs import CLASSES
from tests.serve.serving import Reply, Running, form, photographs

PHOTOGRAPHS = photographs(4)
LAYER = "layer5"
"""the last one that has several places at 32 pixels"""


def explained(server: Running, files: list[bytes], query: str = "") -> Reply:
    return server.send(f"/explain{query}", files)


@pytest.mark.parametrize("label", [None, CLASSES[2]])
def test_a_heat_map_is_the_classifier_s(server: Running, models: dict[str, Path], label: str | None) -> None:
    classifier = effnet.load(models["one"], device="cpu")
    maps = []
    for data in PHOTOGRAPHS:
        reply = explained(server, [data], "" if label is None else f"?label={label}")
        assert (reply.status, reply.headers["content-type"]) == (200, "image/jpeg")
        expected = classifier.explain(Image.open(io.BytesIO(data)), label=label, layer=LAYER)
        assert reply.headers["x-class-index"] == str(expected.prediction.index)
        maps.append(np.asarray(Image.open(io.BytesIO(reply.body)), np.int16))
        difference = np.abs(maps[-1] - np.asarray(expected.picture().convert("RGB"), np.int16))
        assert difference.mean() < 6  # of 255, by JPEG
    assert np.abs(maps[0] - maps[-1]).mean() > 10


@pytest.mark.parametrize(
    ("query", "files", "status", "reason"),
    [
        ("?label=zebra", PHOTOGRAPHS[:1], 422, "one has no class 'zebra'"),
        ("?model=zebra", PHOTOGRAPHS[:1], 404, "no model 'zebra'"),
        ("", PHOTOGRAPHS[:2], 422, "2 images; send one at a time"),
        ("", [b"no image"], 422, "can't be decoded"),
        ("", [], 422, "no file in the field"),
    ],
)
def test_refusals(server: Running, query: str, files: list[bytes], status: int, reason: str) -> None:
    reply = explained(server, files, query)
    assert reply.status == status
    assert reason in reply.json["error"]


def test_a_heat_map_needs_the_token(server: Running) -> None:
    body, kind = form([("0.jpg", PHOTOGRAPHS[0])])
    reply = server.ask("POST", "/explain", body, {"content-type": kind}, token=None)
    assert reply.status == 401


def test_models_say_whether_they_have_heat_maps(server: Running) -> None:
    assert [model["explains"] for model in server.ask("GET", "/models").json["models"]] == [True, True]
