"""Commands and examples of README and docs that no test runs as they stand: patterns, each with the reason.

Run are the README's commands (test_readme.py) and examples (test_wheel.py), the tutorial (test_tutorial.py),
docs/python.md (test_python_page.py), and all others that match none of these patterns (test_shown.py).
"""

import re

NOT_RUN = {
    r"^make (test|dist|matrix|converters)\b": "these run the tests, or install gigabytes; .ci/run calls all but matrix",
    r"^(pip|\.venv/bin/pip|uvx) ": "installs from an index; test_wheel.py does with what is here",
    r"hf-hub:OWNER|--private": "OWNER is a reader's account on a hub; tests/sharing pushes to one of its own and loads",
    r"^python -m benchmarks unbalanced ": "trains for an hour; benchmarks/results has what it has measured",
    r"^python -m benchmarks (?!scaling --simulate)": "trains or measures for minutes to hours; "
    "tests/benchmarks_lab runs the same for a few steps",
    r"^effnet export (litert|executorch|coreml|ncnn) |--target litert|lite0\.tflite": "installs a converter; "
    "tests/export and tests/inference/test_litert.py do",
    r"^import coremltools": "computes on a Mac; tests/export/test_coreml.py runs it on PyTorch's answers",
    r"^benchmarks/gpu_day\.sh ": "needs a GPU; tests/benchmarks_lab/test_gpu_day.py runs its smallest form",
    r"^python \./multiproc\.py ": "needs ImageNet and 8 GPUs; test_launchers.py starts processes",
    r"--track tensorboard mlflow wandb": "starts processes of MLflow and W&B; tests/training/test_trackers.py reads "
    "back what each has written",
    r"^effnet benchmark inference --forget": "removes what is kept here; tests/inference/test_auto.py does so in a "
    "cache of its own",
    r"^effnet predict --merge ": "needs the parts of several machines; tests/inference/test_predict.py merges some",
    r"^effnet predict .*--ray": "starts Ray, or needs a cluster; tests/inference/test_predict.py starts it here",
    r"^effnet export web ": "npm downloads onnxruntime-web; tests/export/test_web.py opens such folders",
    r"^effnet export triton .*--(backend|instances) ": "tests/export/test_triton.py writes such repositories",
    r"^import tritonclient": "asks a running server; tests/export/test_triton.py follows what it would do",
    r"^effnet export all ": "writes all that is installed; tests/export/test_all.py does, smaller",
    r"^effnet serve\b": "answers until it is stopped; tests/serve starts servers",
    r"^effnet report --live ": "answers until it is stopped; tests/report starts the server",
    r"^effnet doctor\b": "ends with 1 where something is missing; tests/doctor runs it in such places",
    r"^python examples/": "test_examples.py runs each",
    r"effnet\.fit\(dataset,": "the data sets are the reader's; tests/fitting/test_datasets.py has some",
}


def reason(shown: str) -> str | None:
    """Return the reason why a command or an example is not run; None if there is none."""
    return next((why for pattern, why in NOT_RUN.items() if re.search(pattern, shown, re.MULTILINE)), None)
