"""The schema of Triton Inference Server's configurations, from NVIDIA's client."""

import ast
import functools
import importlib.util
from pathlib import Path
from typing import Any

import pytest


def parse_config(path: Path) -> Any:
    """Return the `inference.ModelConfig` of a file, every field of which the schema must know."""
    from google.protobuf import text_format

    return text_format.Parse(path.read_text(encoding="utf-8"), _message_class()())


@functools.cache
def _message_class() -> Any:
    """Return the schema's class.

    It is read as data: the module that holds it is for another version of protobuf, and imports grpc.
    """
    pytest.importorskip("tritonclient", reason="extra dev")
    from google.protobuf import descriptor_pool, message_factory

    package = importlib.util.find_spec("tritonclient")
    assert package is not None
    assert package.submodule_search_locations is not None
    module = Path(package.submodule_search_locations[0], "grpc/model_config_pb2.py")
    calls = [node for node in ast.walk(ast.parse(module.read_text())) if isinstance(node, ast.Call)]
    (schema,) = (
        ast.literal_eval(call.args[0])
        for call in calls
        if isinstance(call.func, ast.Attribute) and call.func.attr == "AddSerializedFile"
    )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(schema)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfig"))
