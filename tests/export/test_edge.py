"""LiteRT's and ExecuTorch's files: PyTorch's answers in the formats' own runtimes, and environments made once."""

import json
import subprocess
from pathlib import Path

import pytest
import torch

from effnet.data import Batch
from effnet.data.preprocessing import Preprocessing
from effnet.export.edge.appended import read_facts
from effnet.export.edge.environment import Converter
from effnet.export.edge.executorch import EXECUTORCH
from effnet.export.edge.formats import EdgeFormat, export_edge, run_edge
from effnet.export.edge.litert import LITERT
from effnet.export.edge.program import export_program
from effnet.export.facts import read_metadata
from effnet.export.form import inference_form
from effnet.export.onnx import export_onnx
from effnet.export.reference import example_images
from effnet.quantization.calibrate import calibrate
from effnet.quantization.layers import quantizers_of
from effnet.quantization.placement import place_quantizers
from effnet.recipe import QuantizationSettings
from effnet.runtime.errors import UserError
from effnet.runtime.precision import Precision
from effnet.runtime.processes import Processes
from effnet.training.step import Normalise
from tests.phones import CLASSES, SIZE, in_integers, metadata, phone_file, shared_folder, tiny

CPU = torch.device("cpu")
QUANTIZE = torch.ops.quantized_decomposed.quantize_per_tensor.default
DEQUANTIZE = torch.ops.quantized_decomposed.dequantize_per_tensor.default


@pytest.fixture
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared_folder(tmp_path_factory)


@pytest.mark.slow
def test_litert_computes_in_integers_alone(shared: Path) -> None:
    file = phone_file(LITERT, shared, target="litert")
    assert (file.written.precision, file.written.images) == ("int8", 8)
    types = """
import json, sys
from ai_edge_litert.interpreter import Interpreter, OpResolverType
plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
interpreter = Interpreter(sys.argv[1], experimental_op_resolver_type=plain)
print(json.dumps(sorted({tensor["dtype"].__name__ for tensor in interpreter.get_tensor_details()})))
"""
    python = LITERT.converter.folder / "bin" / "python"
    done = subprocess.run([python, "-I", "-c", types, file.path], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == ["int32", "int8"]  # the former are sums and shapes


@pytest.mark.slow
def test_litert_takes_bytes_and_batches(shared: Path) -> None:
    file = phone_file(LITERT, shared, target=None, batch_size=3, takes_bytes=True)
    written = file.written
    assert (written.precision, written.images, written.difference < 1e-4) == ("fp32", 9, True)
    facts = read_facts(file.path)
    assert read_metadata(facts, file.path).to_dict() == file.metadata.to_dict()
    assert facts["classes"].splitlines() == list(CLASSES)


@pytest.mark.slow
def test_executorch_computes_in_integers(shared: Path) -> None:
    file = phone_file(EXECUTORCH, shared, target="executorch")
    assert file.written.precision == "int8"
    weights = sum(weight.numel() for weight in file.model.parameters())
    assert weights < file.written.size < 3 * weights  # bytes, not floats
    images = example_images(Preprocessing(SIZE, SIZE), 4, takes_bytes=False)
    logits, seconds = run_edge(EXECUTORCH, file.path, images.numpy())
    with torch.inference_mode():
        expected = file.model(images)
    assert len(seconds) == 4
    assert float((torch.from_numpy(logits) - expected).abs().max()) <= 0.2 * float(expected.abs().max())
    assert read_facts(file.path)["precision"] == "int8"


@pytest.mark.parametrize("integer_weights", [True, False])
def test_the_program_is_the_quantized_model(integer_weights: bool) -> None:
    model = in_integers("litert")
    images = example_images(Preprocessing(SIZE, SIZE), 2, takes_bytes=False)
    program = export_program(model, Preprocessing(SIZE, SIZE), batch_size=2, integer_weights=integer_weights)
    with torch.inference_mode():
        logits = program.module()(images)
        torch.testing.assert_close(logits, inference_form(model, unsigned=False)(images))
    # Each tensor is quantized once, and each operator that reads it dequantizes it for itself.
    quantized = [node for node in program.graph.nodes if node.target is QUANTIZE]
    assert len({node.args[0] for node in quantized}) == len(quantized) > 10
    assert all(len(node.users) == 1 for node in program.graph.nodes if node.target is DEQUANTIZE)


def test_logits_are_quantized_without_clipping() -> None:
    """A percentile leaves out the largest values, which of the logits are the answers."""
    torch.manual_seed(0)
    model = tiny("efficientnet-quant-lite0")
    place_quantizers(model, "litert")
    pixels = torch.randint(0, 256, (20, 3, SIZE, SIZE), dtype=torch.uint8)
    calibrate(
        model,
        iter([Batch(pixels, torch.zeros(20), torch.arange(20))]),
        Preprocessing(SIZE, SIZE),
        Precision(None, CPU),
        Processes.alone(CPU),
        QuantizationSettings(target="litert", calib_percentile=60.0),
    )
    quantizers = quantizers_of(model)
    scale = quantizers["classifier.logits_quantizer"].grid.scale
    for quantizer in quantizers.values():
        quantizer.rounds = False
    with torch.inference_mode():
        low, high = model(Normalise(Preprocessing(SIZE, SIZE))(pixels)).aminmax()
    assert 255 * scale == pytest.approx(float(high.clamp(min=0) - low.clamp(max=0)), rel=1e-3)


@pytest.mark.parametrize("form", [LITERT, EXECUTORCH])
def test_nothing_is_installed_where_that_is_forbidden(
    form: EdgeFormat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EFFNET_HOME", str(tmp_path / "home"))
    path = tmp_path / f"model{form.suffix}"
    with pytest.raises(UserError, match=f"--no-install: {form.converter.packages[0]} is not there"):
        export_edge(form, tiny("efficientnet-lite0"), metadata("efficientnet-lite0"), path, install=False)
    assert not path.exists()
    with pytest.raises(UserError, match=f"end in {form.suffix}"):
        export_edge(form, tiny("efficientnet-lite0"), metadata("efficientnet-lite0"), tmp_path / "m.bin")


def test_an_installation_that_fails_says_why_and_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stands in for uv: the first installation fails as without a network, the second finds what it left."""
    monkeypatch.setenv("EFFNET_HOME", str(tmp_path / "home"))
    converter = Converter("litert", ("trial==1.0",), 1, "to_litert")
    uv = tmp_path / "bin" / "uv"
    uv.parent.mkdir()
    uv.write_text(
        '#!/bin/sh\nif [ "$1" = venv ]; then for d; do :; done; mkdir -p "$d/lib/python3/site-packages"; fi\n'
        f'if [ "$1" = pip ] && [ ! -e {tmp_path}/network ]; then echo "error: no such host" >&2; exit 1; fi\n'
    )
    uv.chmod(0o755)
    monkeypatch.setenv("PATH", str(uv.parent), prepend=":")
    with pytest.raises(UserError, match=r"trial==1.0 can't be installed: error: no such host"):
        converter.install()
    assert not converter.is_installed
    (tmp_path / "network").touch()
    left = converter.folder / "lib" / "left"
    left.touch()
    converter.install()
    assert converter.is_installed
    assert not left.exists()
    (shared,) = converter.folder.glob("lib/*/site-packages/effnet.pth")
    assert str(Path(torch.__file__).parents[1]) in shared.read_text().splitlines()


def test_no_onnx_file_is_written_for_them(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="litert does not read ONNX: effnet export litert"):
        export_onnx(
            tiny("efficientnet-lite0"),
            metadata("efficientnet-lite0"),
            tmp_path / "model.onnx",
            target="litert",
        )
