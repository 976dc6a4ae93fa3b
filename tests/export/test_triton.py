"""Repositories for Triton Inference Server, without the server.

Their configurations are parsed with the server's own schema and compared with the files beside them; the ensemble is
followed, as its configuration says, on photographs.
"""

import io
import shlex
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from effnet.cli import main
from effnet.export.openvino import compile_openvino
from effnet.export.tensorrt import is_installed
from effnet.export.triton import TritonSettings, export_triton
from effnet.export.triton.chain import Chain
from effnet.export.triton.config import ModelConfig, Step, Tensor
from effnet.export.whole import picture
from effnet.inference.classifier import load
from effnet.runtime.errors import UserError
from effnet.weights import save_weights
from effnet.weights.confidence import Confidence
from tests.export.test_whole import CLASSES, OtherCrop, metadata, trained
from tests.triton_schema import parse_config

onnxruntime = pytest.importorskip("onnxruntime", reason="extra onnx")

Arrays = dict[str, npt.NDArray[Any]]
NETWORK, PREPROCESS, WHOLE = MODELS = ("net", "net-preprocess", "net-whole")
TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32"}
"""of the server's schema"""
FLAGS = {
    "onnxruntime": "--instances 2 --max-batch-size 4 --max-wait-ms 2.5",
    "openvino": "--uint8-input",
    "tensorrt": "--max-batch-size 24 --preferred-batch-size 16 8 --server-image mine:1",
}
BUILDS = torch.cuda.is_available() and is_installed()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "three.pth"
    save_weights(path, trained().state_dict(), metadata(confidence=Confidence(1.7)))
    return path


@dataclass
class Repository:
    backend: str
    folder: Path
    printed: list[str]
    opened: dict[str, Any] = field(default_factory=dict)

    def config(self, model: str) -> Any:
        return parse_config(self.folder / model / "config.pbtxt")

    def onnx(self, model: str) -> Any:
        """Return the session of a model's ONNX file, which for TensorRT is the one that an engine is built from."""
        if model not in self.opened:
            (path,) = (self.folder / model / "1").glob("*.onnx")
            self.opened[model] = onnxruntime.InferenceSession(str(path))
        return self.opened[model]

    def ports(self, model: str) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
        """Return name, type and sizes of a file's inputs and outputs; -1 for an open size."""
        if model == NETWORK and self.backend == "openvino":
            import openvino

            read = openvino.Core().read_model(self.folder / model / "1" / "model.xml")
            return tuple(  # type: ignore[return-value]
                [
                    (
                        port.any_name,
                        port.element_type.to_dtype().name,
                        [size.get_length() if size.is_static else -1 for size in port.partial_shape],
                    )
                    for port in ports
                ]
                for ports in (read.inputs, read.outputs)
            )
        session, names = self.onnx(model), {"tensor(float)": "float32", "tensor(uint8)": "uint8"}
        return tuple(  # type: ignore[return-value]
            [
                (port.name, names[port.type], [size if isinstance(size, int) else -1 for size in port.shape])
                for port in ports
            ]
            for ports in (session.get_inputs(), session.get_outputs())
        )

    def run(self, model: str, given: Arrays) -> Arrays:
        """Return a model's outputs, computed as its configuration says."""
        config = self.config(model)
        assert {each.name for each in config.input} == set(given)
        for each in config.input:
            array = given[each.name]
            assert array.shape[0] <= config.max_batch_size
            assert all(dim in (-1, size) for dim, size in zip(each.dims, array.shape[1:], strict=True))
        if config.platform == "ensemble":
            return self._run_steps(config, given)
        if config.backend == "openvino":
            import openvino

            if model not in self.opened:
                read = openvino.Core().read_model(self.folder / model / "1" / "model.xml")
                self.opened[model] = compile_openvino(read, threads=1)
            return {port.any_name: value for port, value in self.opened[model](given).items()}
        names = [each.name for each in config.output]
        return dict(zip(names, self.onnx(model).run(names, given), strict=True))

    def _run_steps(self, config: Any, given: Arrays) -> Arrays:
        tensors = dict(given)
        for step in config.ensemble_scheduling.step:
            outputs = self.run(step.model_name, {name: tensors[of] for name, of in step.input_map.items()})
            tensors.update({to: outputs[name] for name, to in step.output_map.items()})
        return {each.name: tensors[each.name] for each in config.output}


@pytest.fixture(scope="module", params=FLAGS)
def repository(
    request: pytest.FixtureRequest, weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> Repository:
    pytest.importorskip("openvino", reason="extra openvino")
    folder = tmp_path_factory.mktemp("triton") / "my models"
    words = ["export", "triton", str(folder), "--pretrained-from-file", str(weights), "--device", "cpu"]
    words += ["--name", NETWORK, "--backend", request.param, *FLAGS[request.param].split()]
    with redirect_stdout(io.StringIO()) as printed:
        code = main(words)
    assert code == (3 if request.param == "tensorrt" and not BUILDS else 0)
    return Repository(request.param, folder, printed.getvalue().splitlines())


def test_configurations_are_those_of_the_files(repository: Repository) -> None:
    assert sorted(path.name for path in repository.folder.iterdir()) == sorted(MODELS)
    for model in (NETWORK, PREPROCESS):
        config = repository.config(model)
        assert config.name == model
        assert config.max_batch_size > 0  # so that the batch is left out of all dims
        for tensors, ports in zip((config.input, config.output), repository.ports(model), strict=True):
            assert all(sizes[0] == -1 for _, _, sizes in ports)
            assert [(each.name, list(each.dims)) for each in tensors] == [
                (name, sizes[1:]) for name, _, sizes in ports
            ]
            types = [
                each.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number[each.data_type].name
                for each in tensors
            ]
            assert types == [TYPES[dtype] for _, dtype, _ in ports]


def test_the_server_gets_what_the_flags_say(repository: Repository) -> None:
    config = repository.config(NETWORK)
    assert config.backend == repository.backend
    (group,) = config.instance_group
    batching = config.dynamic_batching
    wanted = {
        "onnxruntime": (4, [2, 4], 2500, 2, group.KIND_CPU),
        "openvino": (32, [8, 16, 32], 5000, 1, group.KIND_CPU),
        "tensorrt": (24, [8, 16], 5000, 1, group.KIND_GPU),
    }
    assert wanted[repository.backend] == (
        config.max_batch_size,
        list(batching.preferred_batch_size),
        batching.max_queue_delay_microseconds,
        group.count,
        group.kind,
    )
    for model in MODELS:
        other = repository.config(model)
        assert other.max_batch_size == config.max_batch_size
        assert other.version_policy.latest.num_versions == 1
        assert (repository.folder / model / "1").is_dir()
    preprocessing = repository.config(PREPROCESS)
    assert preprocessing.backend == "onnxruntime"
    assert not preprocessing.HasField("dynamic_batching")  # requests' images differ in size
    files = {"onnxruntime": "model.onnx", "openvino": "model.bin", "tensorrt": "model.plan.onnx"}
    assert (repository.folder / NETWORK / "1" / files[repository.backend]).is_file()


def test_an_ensemble_s_tensors_fit_its_models(repository: Repository) -> None:
    whole = repository.config(WHOLE)
    assert (whole.platform, whole.backend) == ("ensemble", "")
    tensors = {each.name: (each.data_type, list(each.dims)) for each in whole.input}
    for step in whole.ensemble_scheduling.step:
        model = repository.config(step.model_name)
        assert set(step.input_map) == {each.name for each in model.input}
        for each in model.input:
            assert tensors[step.input_map[each.name]] == (each.data_type, list(each.dims))
        outputs = {each.name: (each.data_type, list(each.dims)) for each in model.output}
        tensors |= {to: outputs[name] for name, to in step.output_map.items()}
    for each in whole.output:
        assert tensors[each.name] == (each.data_type, list(each.dims))


def test_an_ensemble_answers_as_the_weights_do(repository: Repository, weights: Path) -> None:
    sizes = [(40, 48), (301, 200), (20, 31)]
    classifier = load(weights)
    for number, size in enumerate(sizes):
        images = np.stack([picture(*size, seed=10 * number + place) for place in range(3)])
        found = repository.run(WHOLE, {"images": images})["probabilities"]
        wanted = classifier.probabilities(list(images))
        assert wanted.std(0).max() > 0.005  # the answers differ from image to image
        assert np.abs(found - wanted).max() < (0.01 if repository.backend == "tensorrt" else 0.001)


def test_an_ensemble_answers_for_photographs(repository: Repository, weights: Path, shared_dir: Path) -> None:
    files = sorted((shared_dir / "data/imagenet-sample/val").glob("*/*"))[::43]
    assert len(files) > 8
    photographs = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    wanted = load(weights).probabilities(photographs)
    answers = [repository.run(WHOLE, {"images": each[None]})["probabilities"] for each in photographs]
    difference = np.abs(np.concatenate(answers) - wanted)
    assert difference.max() < (0.01 if repository.backend == "tensorrt" else 0.002)


def test_the_labels_are_the_classes(repository: Repository) -> None:
    for model in (NETWORK, WHOLE):
        for output in repository.config(model).output:
            labels = (repository.folder / model / output.label_filename).read_text().splitlines()
            assert tuple(labels) == CLASSES
            assert list(output.dims) == [len(labels)]


def test_commands_are_printed(repository: Repository) -> None:
    programs = ("docker", "perf_analyzer", "trtexec")
    commands = {
        line.split()[0]: shlex.split(line) for line in repository.printed if line.startswith(programs)
    }
    assert any("no server has been run here" in line for line in repository.printed)
    docker = commands["docker"]
    assert docker[docker.index("-v") + 1] == f"{repository.folder}:/models:ro"
    image = "mine:1" if repository.backend == "tensorrt" else "nvcr.io/nvidia/tritonserver:$RELEASE-py3"
    assert docker[docker.index("tritonserver") - 1] == image
    assert ("--gpus" in docker) == (repository.backend == "tensorrt")
    assert commands["perf_analyzer"][2] in (NETWORK, WHOLE)
    if repository.backend == "tensorrt" and not BUILDS:
        version = repository.folder / NETWORK / "1"
        assert f"--onnx={version}/model.plan.onnx" in commands["trtexec"]
        assert f"--saveEngine={version}/model.plan" in commands["trtexec"]
        assert "--maxShapes=images:24x3x32x32" in commands["trtexec"]
        assert (version / "model.plan.onnx").is_file()


def test_other_answers_are_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("effnet.export.triton.preprocess.ResizeAndCrop", OtherCrop)
    folder = tmp_path / "models"
    with pytest.raises(UserError, match=f"^{folder}: not written, its logits differ from PyTorch's"):
        export_triton(trained(), metadata(), folder)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_tensors_that_a_configuration_contradicts_are_refused() -> None:
    def config(name: str, **changes: Any) -> ModelConfig:
        inputs, outputs = (Tensor("images", "uint8", (-1, -1, 3)),), (Tensor("logits", "float32", (3,)),)
        return replace(ModelConfig(name, 2, inputs, outputs), **changes)

    def run(given: Any) -> Arrays:
        return {"logits": np.zeros((len(given["images"]), 3), np.float32)}

    ensemble = config("whole", steps=(Step("net", {"images": "images"}, {"logits": "logits"}),))
    image = np.zeros((1, 4, 5, 3), np.uint8)
    (answer,) = Chain(ensemble, [(config("net"), run)])(image)
    assert answer.shape == (1, 3)
    wrong = [
        {"inputs": (Tensor("images", "float32", (-1, -1, 3)),)},
        {"inputs": (Tensor("images", "uint8", (-1, 6, 3)),)},
        {"inputs": (Tensor("images", "uint8", (-1, -1, -1, 3)),)},
        {"outputs": (Tensor("logits", "float32", (4,)),)},
        {"outputs": (Tensor("scores", "float32", (3,)),)},
    ]
    for changes in wrong:
        with pytest.raises(UserError, match="^net: not written"):
            Chain(ensemble, [(config("net", **changes), run)])(image)
    with pytest.raises(UserError, match="^whole: not written, its images is uint8"):
        Chain(ensemble, [(config("net"), run)])(np.concatenate([image] * 3))


def test_what_contradicts_itself_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in {
        "--name a/b": "--name 'a/b'",
        "--max-batch-size 4 --preferred-batch-size 2 8": "--preferred-batch-size 8 is above",
        "--backend openvino --instance-kind gpu": "--instance-kind gpu",
        "--backend tensorrt --instance-kind cpu": "--instance-kind cpu",
    }.items():
        assert main(["export", "triton", str(tmp_path / "models"), *words.split()]) == 2
        assert message in capsys.readouterr().err
    (tmp_path / "models").mkdir()
    (tmp_path / "models/other").touch()
    assert main(["export", "triton", str(tmp_path / "models")]) == 2
    assert "exists and is not an empty folder" in capsys.readouterr().err
    assert TritonSettings(max_batch_size=1).batching is None
