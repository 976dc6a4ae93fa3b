"""Configurations of models for Triton Inference Server: what a file `config.pbtxt` says.

The text is written without the server's protobuf schema, which no light package has; tests parse it with that schema.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

InstanceKind = Literal["cpu", "gpu"]

LABELS_FILE = "labels.txt"
_TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32"}


@dataclass(frozen=True)
class Tensor:
    """An input or output of a model.

    Attributes:
        name: its name.
        dtype: type of its elements, a key of `_TYPES`.
        dims: its sizes without the batch's; -1 for one that is open.
        labelled: an output with a value for each line of `LABELS_FILE`.
    """

    name: str
    dtype: str
    dims: tuple[int, ...]
    labelled: bool = False


@dataclass(frozen=True)
class DynamicBatching:
    """The server's own batching of requests.

    Attributes:
        preferred: batches that are run as soon as they are full; increasing.
        max_delay_us: microseconds that a request waits for others.
    """

    preferred: tuple[int, ...]
    max_delay_us: int


@dataclass(frozen=True)
class Step:
    """A model's part in an ensemble.

    Attributes:
        model: its name.
        inputs: tensor of the ensemble for each of its inputs.
        outputs: the same for its outputs.
    """

    model: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


@dataclass(frozen=True)
class ModelConfig:
    """The configuration of a model.

    Attributes:
        name: the model's, and its folder's.
        max_batch_size: largest batch; 1 or more, so that the first axis of every tensor is the batch.
        inputs: all inputs.
        outputs: all outputs.
        backend: program that runs the file; empty for an ensemble.
        instances: copies of the model that run at the same time; 0 for an ensemble.
        kind: where these run.
        batching: None to run each request by itself.
        steps: of an ensemble, in the order in which they can run.
    """

    name: str
    max_batch_size: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    backend: str = ""
    instances: int = 0
    kind: InstanceKind = "cpu"
    batching: DynamicBatching | None = None
    steps: tuple[Step, ...] = ()

    def text(self) -> str:
        """Return the content of `config.pbtxt`."""
        return "\n".join(_lines(list(self._fields()))) + "\n"

    def _fields(self) -> Iterator["_Field"]:
        yield "name", self.name
        yield ("platform", "ensemble") if self.steps else ("backend", self.backend)
        yield "max_batch_size", self.max_batch_size
        yield from (("input", _tensor(each)) for each in self.inputs)
        yield from (("output", _tensor(each)) for each in self.outputs)
        yield "version_policy", [("latest", [("num_versions", 1)])]
        if self.instances:
            kind = _Word(f"KIND_{self.kind.upper()}")
            yield "instance_group", [("count", self.instances), ("kind", kind)]
        if self.batching is not None:
            delay = ("max_queue_delay_microseconds", self.batching.max_delay_us)
            yield "dynamic_batching", [("preferred_batch_size", self.batching.preferred), delay]
        if self.steps:
            yield "ensemble_scheduling", [("step", _step(each)) for each in self.steps]


class _Word(str):
    """A name of the schema, which stands without quotes."""


# A field of protobuf's text format; a list is a message.
_Value = str | int | tuple[int, ...] | list["_Field"]
_Field = tuple[str, _Value]


def _tensor(tensor: Tensor) -> list[_Field]:
    labels: list[_Field] = [("label_filename", LABELS_FILE)] if tensor.labelled else []
    return [
        ("name", tensor.name),
        ("data_type", _Word(_TYPES[tensor.dtype])),
        ("dims", tensor.dims),
        *labels,
    ]


def _step(step: Step) -> list[_Field]:
    # The newest version that the server has loaded.
    return [
        ("model_name", step.model),
        ("model_version", -1),
        *_pairs("input_map", step.inputs),
        *_pairs("output_map", step.outputs),
    ]


def _pairs(field: str, values: Mapping[str, str]) -> list[_Field]:
    return [(field, [("key", key), ("value", value)]) for key, value in values.items()]


def _lines(fields: Sequence[_Field], indent: str = "") -> Iterator[str]:
    for name, value in fields:
        if isinstance(value, list):
            yield f"{indent}{name} {{"
            yield from _lines(value, indent + "  ")
            yield f"{indent}}}"
        elif isinstance(value, tuple):
            yield f"{indent}{name}: [{', '.join(map(str, value))}]"
        else:
            quoted = isinstance(value, str) and not isinstance(value, _Word)
            yield f"{indent}{name}: {json.dumps(value) if quoted else value}"
