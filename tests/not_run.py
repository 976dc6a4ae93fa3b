"""Commands and examples of README and docs that no test runs as they stand: patterns, each with the reason.

Run are the README's commands (test_readme.py) and examples (test_wheel.py), the tutorial (test_tutorial.py) and
docs/python.md (test_python_page.py). Commands of effnet on other pages are parsed by test_docs.py, with their
settings and recipes checked; what they do has tests of its own, named here.
"""

import re

NOT_RUN = {
    r"^make (test|dist|matrix)\b": "these run the tests, or install gigabytes; .ci/run calls the first two",
    r"^(pip|\.venv/bin/pip|uvx) ": "installs from an index; test_wheel.py does with what is here",
    r"hf-hub:OWNER|--private|timm\.create_model": "OWNER is a reader's account; tests/sharing has a hub",
    r"^effnet push ": "tests/sharing pushes to a hub of its own",
    r"^effnet export tensorrt ": "needs TensorRT and a GPU; tests/export runs it to the ONNX file",
    r"^effnet export ": "tests/export compares each format with PyTorch",
    r"^effnet benchmark ": "measures for minutes; test_readme.py runs its forms with few steps",
    r"^python -m benchmarks ": "measures for minutes to hours; tests/benchmarks_lab runs the same for a few steps",
    r"^python \./multiproc\.py ": "needs ImageNet and 8 GPUs; test_launchers.py starts processes",
    r"^effnet train .*--print-recipe": "tests/recipe compares what is resolved with NVIDIA's",
    r"^(OMP_NUM_THREADS=\d+ taskset -c \d+ )?effnet train ": "tests/training and tests/data train for a few steps",
    r"^effnet find-lr ": "trains a hundred steps; tests/training sweeps fewer",
    r"^effnet quantize ": "calibrates for minutes; tests/quantization and test_readme.py do on small images",
    r"^effnet (evaluate|classify) ": "needs the run that stands above it; tests/inference has runs of its own",
    r"^effnet predict ": "needs many images or machines; tests/inference/test_predict.py has few",
    r"^effnet init ": "test_readme.py and test_tutorial.py run it",
    r"^effnet prepare ": "tests/data prepares and checks folders and archives of its own",
    r"^effnet serve\b": "answers until it is stopped; tests/serve starts it",
    r"^effnet (report|watch) ": "tests/report draws and serves pages of runs of its own",
    r"^effnet compare ": "the models are the reader's; tests/inference has models of its own",
    r"^effnet doctor\b": "ends with 1 where something is missing; tests/doctor runs it in such places",
    r"^python examples/": "a test of the examples runs them",
    r"effnet\.fit\(dataset,": "the data sets are the reader's; tests/fitting/test_datasets.py has some",
    r'effnet\.predict\("photos"': "the photographs are the reader's; test_python_page.py runs the same on others",
}


def reason(shown: str) -> str | None:
    """Return the reason why a command or an example is not run; None if there is none."""
    return next((why for pattern, why in NOT_RUN.items() if re.search(pattern, shown, re.MULTILINE)), None)
