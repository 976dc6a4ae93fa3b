"""Answers, descriptions and metrics of a server, compared with `effnet classify` and with their readers."""

import base64
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from prometheus_client.parser import text_string_to_metric_families

from effnet.cli import main
from tests.runs import CLASSES
from tests.serve.serving import Running, form, photographs

PHOTOGRAPHS = photographs(6)


def classified(
    capsys: pytest.CaptureFixture[str], weights: Path, files: list[bytes], folder: Path, *flags: str
) -> list[dict[str, Any]]:
    """Answers of `effnet classify`, each image in a batch of its own."""
    paths = [folder / f"{index}.jpg" for index in range(len(files))]
    for path, data in zip(paths, files, strict=True):
        path.write_bytes(data)
    arguments = ["--pretrained-from-file", str(weights), "--cpu", "--unknown", "-b", "1", *flags]
    main(["classify", "--json", *arguments, *map(str, paths)])
    images = json.loads(capsys.readouterr().out)["images"]
    return [{**image, "image": Path(image["image"]).name} for image in images]


def samples(server: Running) -> dict[str, float]:
    """The metrics by name and labels, as Prometheus' own parser reads them."""
    text = server.ask("GET", "/metrics").body.decode()
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.parametrize(("name", "query"), [("one", ""), ("one", "?model=one"), ("several", "?model=many")])
def test_an_answer_is_that_of_classify_bit_for_bit(
    server: Running,
    models: dict[str, Path],
    name: str,
    query: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    expected = classified(capsys, models[name], PHOTOGRAPHS, tmp_path)
    for photo, image in zip(PHOTOGRAPHS, expected, strict=True):
        reply = server.classify([photo], query)
        assert reply.status == 200
        (found,) = reply.json["images"]
        assert found == {**image, "image": "0.jpg"}
    assert len({image["unknown"] for image in expected}) == 2
    if name == "several":  # thresholds leave out labels
        assert len({len(image["predictions"]) for image in expected}) > 1


def test_several_images_are_one_batch_with_the_answers_of_single_ones(server: Running) -> None:
    before = samples(server)
    single = [server.classify([photo]).json["images"][0] for photo in PHOTOGRAPHS]
    between = samples(server)
    together = server.classify(PHOTOGRAPHS)
    after = samples(server)
    size = "effnet_batch_size_{}[('model', 'one')]".format
    assert between[size("sum")] - before[size("sum")] == between[size("count")] - before[size("count")] == 6
    assert (after[size("sum")] - between[size("sum")], after[size("count")] - between[size("count")]) == (
        6,
        1,
    )
    for index, (found, alone) in enumerate(zip(together.json["images"], single, strict=True)):
        assert found["image"] == f"{index}.jpg"
        assert [each["name"] for each in found["predictions"]] == [
            each["name"] for each in alone["predictions"]
        ]
        for one, other in zip(found["predictions"], alone["predictions"], strict=True):
            assert one["probability"] == pytest.approx(other["probability"], abs=1e-5)


def test_json_is_answered_like_a_form(server: Running) -> None:
    images = [base64.b64encode(photo).decode() for photo in PHOTOGRAPHS[:1]]
    body = json.dumps({"images": images}).encode()
    reply = server.ask("POST", "/classify?topk=2", body, {"content-type": "application/json; charset=utf-8"})
    assert reply.status == 200
    (image,) = reply.json["images"]
    assert image["image"] == "images[0]"
    assert image["predictions"] == server.classify(PHOTOGRAPHS[:1]).json["images"][0]["predictions"][:2]


def test_a_broken_image_does_not_lose_the_others(server: Running) -> None:
    reply = server.classify([b"\xff\xd8 nothing more", PHOTOGRAPHS[0]])
    assert reply.status == 422
    broken, good = reply.json["images"]
    assert broken["error"].startswith("0.jpg: can't be decoded")
    assert {each["name"] for each in good["predictions"]} == set(CLASSES)


def as_json(value: object) -> tuple[bytes, dict[str, str]]:
    return json.dumps(value).encode(), {"content-type": "application/json"}


def as_form(*files: tuple[str, bytes], field: str = "file") -> tuple[bytes, dict[str, str]]:
    body, kind = form(files, field)
    return body, {"content-type": kind}


GOOD = as_form(("a.jpg", PHOTOGRAPHS[0]))
BOUNDARY = {"content-type": "multipart/form-data; boundary=x"}


@pytest.mark.parametrize(
    ("path", "request_", "status", "words"),
    [
        ("", as_json({"images": ["https://example.org/a.jpg"]}), 422, "URLs are refused"),
        ("", as_json({"images": ["file:///etc/passwd"]}), 422, "URLs are refused"),
        ("", as_json({"images": ["data:image/jpeg;base64,AAAA"]}), 422, "URLs are refused"),
        ("", as_json({"images": ["!"]}), 422, "images[0]: not base64"),
        ("", as_json({"images": ["é"]}), 422, "images[0]: not base64"),
        ("", as_json({"images": []}), 422, '{"images"'),
        ("", as_json({"images": [1]}), 422, '{"images"'),
        ("", as_json([]), 422, '{"images"'),
        ("", as_json({"url": "https://example.org/a.jpg"}), 422, '{"images"'),
        ("", as_json({"images": ["AAAA"] * 65}), 413, "65 images"),
        ("", (b"{", {"content-type": "application/json"}), 400, "not JSON"),
        ("", (b"\xff\xfe\xfd", {"content-type": "application/json"}), 400, "not JSON"),
        ("", (b"[" * 100_000, {"content-type": "application/json"}), 400, "nested"),
        ("", (PHOTOGRAPHS[0], {"content-type": "image/jpeg"}), 415, "image/jpeg"),
        ("", (PHOTOGRAPHS[0], {}), 415, "missing"),
        ("", (b"", {"content-type": "multipart/form-data"}), 400, "malformed form"),
        ("", (b"nonsense", BOUNDARY), 400, "malformed form"),
        ("", (GOOD[0][:-10], GOOD[1]), 400, "it ends early"),
        ("", (b"--x\r\n\r\nabc\r\n--x--\r\n", BOUNDARY), 400, "malformed form"),
        ("", as_form(("a.jpg", PHOTOGRAPHS[0]), field="photo"), 422, "no file in the field 'file'"),
        ("", as_form(*[("a.jpg", b"")] * 65), 413, "Too many files"),
        ("", as_form(("a.jpg", bytes(3 << 20))), 413, "2,097,152 bytes"),
        ("?model=other", GOOD, 404, "no model 'other'; there is one, many"),
        ("?topk=0", GOOD, 422, "topk must be from 1 to 3"),
        ("?topk=4", GOOD, 422, "topk must be from 1 to 3"),
        ("?topk=many", GOOD, 422, "topk must be a whole number"),
    ],
)
def test_a_refusal_says_why(
    server: Running, path: str, request_: tuple[bytes, dict[str, str]], status: int, words: str
) -> None:
    body, headers = request_
    reply = server.ask("POST", f"/classify{path}", body, headers)
    assert (reply.status, words in reply.json["error"]) == (status, True), reply.json
    assert reply.json["id"] == reply.headers["x-request-id"]


def test_other_paths_and_methods(server: Running) -> None:
    assert server.ask("GET", "/classify").status == 405
    assert server.ask("GET", "/no/such").status == 404
    assert server.ask("GET", "/healthz", token=None).json == {"status": "ok"}


@pytest.mark.parametrize("token", [None, "wrong", ""])
def test_a_token_is_asked_for(server: Running, token: str | None) -> None:
    for method, path in (("POST", "/classify"), ("GET", "/models"), ("GET", "/metrics")):
        reply = server.ask(method, path, GOOD[0] if method == "POST" else None, GOOD[1], token=token)
        assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")


def test_pages_of_one_origin_may_ask(server: Running) -> None:
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    for origin, status in (("https://example.org", 200), ("https://example.com", 400)):
        reply = server.ask("OPTIONS", "/classify", headers={"origin": origin, **asked}, token=None)
        assert reply.status == status
    reply = server.ask("GET", "/models", headers={"origin": "https://example.org"})
    assert reply.headers["access-control-allow-origin"] == "https://example.org"


def test_models(server: Running) -> None:
    one, many = server.ask("GET", "/models").json["models"]
    assert (one["name"], one["engine"], one["image_size"], one["classes"]) == ("one", "torch", 32, 3)
    assert (many["name"], many["several_labels"]) == ("many", True)


def test_the_description_fits_the_answers(server: Running) -> None:
    """The schemas of OpenAPI, by jsonschema, on answers and refusals."""
    document = server.ask("GET", "/openapi.json", token=None).json
    assert document["openapi"].startswith("3.1")

    def check(path: str, method: str, reply: Any) -> None:
        response = document["paths"][path][method]["responses"][str(reply.status)]
        schema = response["content"]["application/json"]["schema"]
        jsonschema.Draft202012Validator({**schema, "components": document["components"]}).validate(reply.json)

    check("/classify", "post", server.classify(PHOTOGRAPHS))
    check("/classify", "post", server.classify(PHOTOGRAPHS, "?model=many"))
    check("/classify", "post", server.classify([b"no image"]))
    check("/classify", "post", server.classify([b"no image"], "?model=none"))
    check("/classify", "post", server.ask("POST", "/classify", b"", token=None))
    check("/models", "get", server.ask("GET", "/models"))
    check("/healthz", "get", server.ask("GET", "/healthz"))


def test_metrics_count(server: Running) -> None:
    before = samples(server)
    server.classify([PHOTOGRAPHS[0], b"broken"])
    server.ask("GET", "/etc/passwd")
    after = samples(server)

    def rise(name: str) -> float:
        return after[name] - before.get(name, 0)

    assert rise("effnet_requests_total[('path', '/classify'), ('status', '422')]") == 1
    assert rise("effnet_requests_total[('path', 'other'), ('status', '404')]") == 1
    assert rise("effnet_images_total[('model', 'one'), ('result', 'classified')]") == 1
    assert rise("effnet_images_total[('model', 'one'), ('result', 'refused')]") == 1
    assert rise("effnet_request_seconds_count[('path', '/classify')]") == 1
    assert after["effnet_images_waiting[]"] == 0
    assert after["process_resident_memory_bytes[]"] > 1e8


def test_a_request_is_found_in_the_log(server: Running) -> None:
    body, kind = form([("0.jpg", PHOTOGRAPHS[0])])
    reply = server.ask("POST", "/classify", body, {"content-type": kind, "x-request-id": "my.request-1"})
    assert reply.headers["x-request-id"] == reply.json["id"] == "my.request-1"
    (line,) = server.logged("my.request-1")
    assert (line["status"], line["path"], line["model"], line["images"]) == (200, "/classify", "one", 1)
    assert line["ms"] >= reply.json["latency_ms"]
    reply = server.ask("GET", "/healthz", headers={"x-request-id": 'forged", "level": "error'})
    assert len(reply.headers["x-request-id"]) == 32


@pytest.mark.slow
def test_memory_stays_flat(server: Running) -> None:
    """Photographs of 500 kB each: if requests were kept, 100 of them would be 50 MB."""
    from tests.hostile_images import encoded, noise

    photo = encoded(noise(400, 420), "BMP")
    for _ in range(20):
        assert server.classify([photo]).status == 200
    before = server.resident()
    for _ in range(100):
        assert server.classify([photo]).status == 200
    assert server.resident() - before < 24 << 20
