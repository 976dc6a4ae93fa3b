"""The server's description for programs, OpenAPI 3.1."""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from effnet.serve.settings import ServeSettings
from effnet.serve.upload import FIELD

_TEXT, _NUMBER, _COUNT, _TRUTH = ({"type": kind} for kind in ("string", "number", "integer", "boolean"))
_FILE = {"type": "string", "format": "binary"}
CLASS_HEADER = "x-class-index"
"""header of a heat map's response"""
_REFUSALS = {
    "400": "malformed",
    "401": "the token is missing or wrong",
    "404": "no such model",
    "408": "the request did not arrive in time",
    "413": "too many bytes or images",
    "415": "neither a form nor JSON",
    "429": "too much is waiting; send it again later",
    "500": "the engine fails, or a bug",
    "503": "no answer in time",
}


def document(settings: ServeSettings) -> dict[str, Any]:
    """Return the description, for JSON."""
    try:
        number = version("effnet")
    except PackageNotFoundError:  # a checkout
        number = "0"
    return {
        "openapi": "3.1.0",
        "info": {"title": "effnet serve", "version": number, "summary": "Classification of photographs"},
        "paths": {
            "/classify": {"post": _classify(settings)},
            "/explain": {"post": _explain(settings)},
            "/models": {"get": _get("Models that are served", "Models", settings)},
            "/metrics": {"get": _get("Metrics for Prometheus", None, settings)},
            "/healthz": {
                "get": {
                    **_get("Whether requests are answered", "Health"),
                    "responses": {
                        "200": _response("they are", "Health"),
                        "503": _response("the server ends", "Health"),
                    },
                }
            },
        },
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _classify(settings: ServeSettings) -> dict[str, Any]:
    both = {"oneOf": [_reference("Answer"), _reference("Error")]}
    unusable = "an image can't be decoded (the others are answered), or a value can't be used"
    return {
        "summary": "Classify photographs",
        "parameters": [
            _model(settings),
            _query("topk", {"type": "integer", "minimum": 1}, "predictions for each image"),
        ],
        "requestBody": _body({"minItems": 1}),
        "responses": {
            "200": _response("all images are classified", "Answer"),
            "422": {"description": unusable, "content": {"application/json": {"schema": both}}},
            **{status: _response(reason, "Error") for status, reason in _REFUSALS.items()},
        },
        **_security(settings),
    }


def _explain(settings: ServeSettings) -> dict[str, Any]:
    header = {"description": "position of the explained class", "schema": _COUNT}
    picture = {
        "description": "the photograph under the heat map",
        "headers": {CLASS_HEADER: header},
        "content": {"image/jpeg": {"schema": _FILE}},
    }
    unusable = "the image can't be decoded, the model has no heat maps, or a value can't be used"
    label = "name, folder or index of the class; the most probable one if it is left out"
    return {
        "summary": "Show the parts of a photograph that speak for a class",
        "parameters": [_model(settings), _query("label", _TEXT, label)],
        "requestBody": _body({"minItems": 1, "maxItems": 1}),
        "responses": {
            "200": picture,
            "422": _response(unusable, "Error"),
            **{status: _response(reason, "Error") for status, reason in _REFUSALS.items()},
        },
        **_security(settings),
    }


def _body(counts: dict[str, int]) -> dict[str, Any]:
    """Return the description of photographs in a request.

    Args:
        counts: JSON schema's limits of their number.
    """
    form = {
        "type": "object",
        "required": [FIELD],
        "properties": {FIELD: {"type": "array", **counts, "items": _FILE}},
    }
    base64 = {"type": "string", "contentEncoding": "base64"}
    images = {
        "type": "object",
        "required": ["images"],
        "additionalProperties": False,
        "properties": {"images": {"type": "array", **counts, "items": base64}},
    }
    content = {"multipart/form-data": {"schema": form}, "application/json": {"schema": images}}
    return {"required": True, "content": content}


def _model(settings: ServeSettings) -> dict[str, Any]:
    names = [source.name for source in settings.models]
    return _query(
        "model", {"type": "string", "enum": names}, f"name of a model; {names[0]} if it is left out"
    )


def _query(name: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema, "description": description}


def _get(summary: str, schema: str | None, settings: ServeSettings | None = None) -> dict[str, Any]:
    text = {"description": "text", "content": {"text/plain": {"schema": _TEXT}}}
    responses = {"200": _response(summary, schema) if schema else text}
    if settings is not None:
        responses["401"] = _response(_REFUSALS["401"], "Error")
    return {"summary": summary, "responses": responses, **(_security(settings) if settings else {})}


def _security(settings: ServeSettings) -> dict[str, Any]:
    return {"security": [{"token": []}]} if settings.token is not None else {}


def _response(description: str, schema: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": _reference(schema)}}}


def _reference(schema: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{schema}"}


def _object(optional: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "required": required, "properties": properties}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _schemas() -> dict[str, Any]:
    probability = {"type": "number", "minimum": 0, "maximum": 1}
    model: dict[str, Any] = {
        "name": _TEXT,
        "model": _TEXT,
        "engine": _TEXT,
        "precision": _TEXT,
        "image_size": _COUNT,
        "classes": _COUNT,
        "several_labels": _TRUTH,
        "explains": _TRUTH,
        "opened": _NUMBER,
    }
    return {
        "Prediction": _object(index=_COUNT, folder=_TEXT, name=_TEXT, probability=probability),
        "Image": _object(
            ("unknown", "predictions", "error"),
            image=_TEXT,
            unknown=_TRUTH,
            predictions=_list(_reference("Prediction")),
            error=_TEXT,
        ),
        "Answer": _object(
            model=_TEXT,
            name=_TEXT,
            engine=_TEXT,
            id=_TEXT,
            latency_ms=_NUMBER,
            images=_list(_reference("Image")),
        ),
        "Models": _object(models=_list(_object((), **model))),
        "Health": _object(status=_TEXT),
        "Error": _object(error=_TEXT, id=_TEXT),
    }
