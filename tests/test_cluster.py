"""Files that start runs on clusters are valid, as far as that can be told without one."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from effnet.cli.commands import command_parser
from effnet.recipe.catalog import find_recipe

REPOSITORY = Path(__file__).resolve().parent.parent
SLURM = REPOSITORY / "cluster/train.slurm"
PREDICT = REPOSITORY / "cluster/predict.slurm"
SCRIPTS = [SLURM, PREDICT, REPOSITORY / "efficientnet/run.sh"]
DOCKERFILES = ["Dockerfile", "Dockerfile.cpu", "Dockerfile.serve"]


def checker(name: str) -> str:
    """A program that checks files, installed as a Python package or by the system."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    return found or pytest.skip(f"{name} is not installed")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_pass_shellcheck(script: Path) -> None:
    done = subprocess.run([checker("shellcheck"), str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_dockerfiles_pass_hadolint(dockerfile: str) -> None:
    command = [checker("hadolint"), "--no-color", str(REPOSITORY / dockerfile)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_images_install_what_the_document_s_commands_need() -> None:
    import tomllib

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    of_extras = [name for extra in ("onnx", "dali") for name in project["optional-dependencies"][extra]]
    needed = {re.split("[>=]", name)[0] for name in [*project["dependencies"], *of_extras]}
    locked = (REPOSITORY / "requirements.txt").read_text()
    tested = dict(re.findall(r"^([\w-]+)==([\w.]+)", locked, re.MULTILINE))
    assert needed <= tested.keys()
    assert "pip install --no-cache-dir -r requirements.txt" in (REPOSITORY / "Dockerfile.cpu").read_text()
    # The GPU image has PyTorch from its container, and the numpy that it is built for.
    pinned = dict(
        re.findall(r"^ +([\w-]+)==([\w.]+) ", (REPOSITORY / "Dockerfile").read_text(), re.MULTILINE)
    )
    assert pinned == {name: tested[name] for name in needed - {"torch", "torchvision", "numpy"}}


def submitted(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The batch script as Slurm would run it on the first of two machines, with stubs that show their arguments."""
    for name, script in {"srun": 'printf "%s\\n" "$@"', "scontrol": "printf 'node-7\\nnode-8\\n'"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {
        "SLURM_SUBMIT_DIR": str(REPOSITORY),
        "SLURM_JOB_ID": "123456",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_NODELIST": "node-[7-8]",
    }
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", str(SLURM), *arguments],
        env={"PATH": path, **slurm, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_slurm_starts_torchrun_on_every_machine(tmp_path: Path) -> None:
    from torch.distributed.run import get_args_parser

    done = submitted(tmp_path, "efficientnet-b0/DGXA100/AMP", "/data", "/shared/run", "--seed", "3")
    assert done.returncode == 0, done.stderr
    words = done.stdout.splitlines()
    assert words[:3] == ["--kill-on-bad-exit=1", "python", str(REPOSITORY / "multiproc.py")]
    launcher = get_args_parser().parse_args(words[3:])
    assert (launcher.nnodes, launcher.nproc_per_node, launcher.max_restarts) == ("2", "gpu", 3)
    assert launcher.rdzv_endpoint.startswith("node-7:")
    assert launcher.training_script == str(REPOSITORY / "main.py")
    assert launcher.training_script_args[-2:] == ["--seed", "3"]
    assert launcher.training_script_args[launcher.training_script_args.index("--resume") + 1] == "auto"
    # Queued again, its machines must not meet those of the first time.
    again = submitted(
        tmp_path, "efficientnet-b0/DGXA100/AMP", "/data", "/shared/run", SLURM_RESTART_COUNT="1"
    )
    assert get_args_parser().parse_args(again.stdout.splitlines()[3:]).rdzv_endpoint != launcher.rdzv_endpoint


def test_slurm_says_how_to_call_it(tmp_path: Path) -> None:
    done = submitted(tmp_path)
    assert done.returncode == 2
    assert "RECIPE DATA WORKSPACE" in done.stderr


def test_slurm_s_directives_ask_for_a_requeue() -> None:
    directives = [line.split()[1] for line in SLURM.read_text().splitlines() if line.startswith("#SBATCH")]
    assert {"--requeue", "--open-mode=append", "--ntasks-per-node=1"} <= set(directives)


def manifests() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((REPOSITORY / "cluster/trainjob.yaml").read_text()))


def test_manifest_fits_the_operator_s_types() -> None:
    models = pytest.importorskip("kubeflow_trainer_api.models")
    for manifest in manifests():
        known = getattr(models, f"TrainerV1alpha1{manifest['kind']}")
        # What the types don't know is lost on the way.
        assert known.from_dict(manifest).to_dict() == manifest


def test_manifest_starts_a_published_recipe() -> None:
    runtime, job = manifests()
    assert job["spec"]["runtimeRef"]["name"] == runtime["metadata"]["name"]
    assert job["spec"]["runtimeRef"]["kind"] == runtime["kind"]
    arguments = job["spec"]["trainer"]["args"]
    given = dict(word.split("=") for word in arguments if "=" in word)
    assert find_recipe(given["--recipe"]).command == "train"
    (container,) = runtime["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"][
        "spec"
    ]["containers"]
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {"/imagenet", "/runs", "/dev/shm"} == mounted
    assert Path(given["--workspace"]).parent == Path("/runs")
    assert Path(arguments[0]).name == "main.py"


def test_slurm_s_array_gives_each_task_its_shard(tmp_path: Path) -> None:
    (tmp_path / "python").write_text('#!/bin/sh\nprintf "%s\\n" "$@"')
    (tmp_path / "python").chmod(0o755)
    array = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_COUNT": "4"}
    done = subprocess.run(
        ["bash", str(PREDICT), "/photos", "/runs/model", "/shared/t.parquet", "--features"],
        env={"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", **array},
        capture_output=True,
        text=True,
        check=True,
    )
    module, name, *arguments = done.stdout.splitlines()
    assert (module, name) == ("-m", "effnet")
    given = command_parser().parse_args(arguments)
    assert (given.images, given.model, given.out) == ("/photos", "/runs/model", "/shared/t.parquet")
    assert (given.shard, given.features) == ("2/4", True)


def test_the_indexed_job_gives_each_pod_its_shard() -> None:
    (job,) = yaml.safe_load_all((REPOSITORY / "cluster/predict-job.yaml").read_text())
    assert (job["apiVersion"], job["kind"], job["spec"]["completionMode"]) == ("batch/v1", "Job", "Indexed")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    (index,) = container["env"]
    # Indexed jobs alone have this annotation, and per-index limits only with `restartPolicy: Never`.
    assert index["valueFrom"]["fieldRef"]["fieldPath"].endswith("job-completion-index']")
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"
    arguments = [word.replace(f"$({index['name']})", "3") for word in container["args"]]
    assert container["command"] == ["python", "-m", "effnet", "predict"]
    given = command_parser().parse_args(["predict", *arguments])
    assert given.shard == f"3/{job['spec']['completions']}"
    assert job["spec"]["parallelism"] <= job["spec"]["completions"]
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounted == {"/photos", "/runs", "/dev/shm"}
    assert {str(Path(given.model).parent), str(Path(given.out).parent)} == {"/runs"}


def test_the_server_s_manifest_is_that_of_its_command() -> None:
    deployment, service = yaml.safe_load_all((REPOSITORY / "cluster/serve.yaml").read_text())
    pod = deployment["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    image = (REPOSITORY / "Dockerfile.serve").read_text()
    (entry,) = re.findall(r"^ENTRYPOINT (\[.*\])$", image, re.MULTILINE)
    program, *command = json.loads(entry)
    given = command_parser().parse_args([*command, *container["args"]])
    assert (program, given.host, given.watch) == ("effnet", "0.0.0.0", 30)
    (port,) = container["ports"]
    assert port["containerPort"] == given.port
    assert f"EXPOSE {given.port}\n" in image
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounted == {str(Path(given.models[0]).parent), str(Path(given.token_file).parent), "/tmp"}
    assert {mount["name"] for mount in container["volumeMounts"]} == {
        each["name"] for each in pod["spec"]["volumes"]
    }
    assert container["readinessProbe"]["httpGet"] == {"path": "/healthz", "port": port["name"]}
    pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["spec"]["terminationGracePeriodSeconds"] > pause + 2 * given.timeout + 1
    assert (
        service["spec"]["selector"]
        == deployment["spec"]["selector"]["matchLabels"]
        == pod["metadata"]["labels"]
    )
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]
