"""Commands and examples of README and docs that no test runs as they stand: patterns, each with the reason.

Everything else in their blocks is run: the README's by test_readme.py and test_wheel.py, the tutorial's by
test_tutorial.py, docs/python.md's by test_python_page.py, the rest by test_shown.py. Commands of effnet that stand here
are parsed by test_docs.py, with their settings and recipes checked.
"""

import re

NOT_RUN = {
    r"^make (test|dist|matrix|install)\b": "these run the tests, or install gigabytes; .ci/run calls the first two",
    r"^\. \.venv/bin/activate$": "activates what make install has made",
    r"^(pip|\.venv/bin/pip|uvx) ": "installs from an index; test_wheel.py does with what is here",
    r"hf-hub:OWNER|--private|timm\.create_model": "OWNER is a reader's account; tests/sharing has a hub",
    r"^effnet export tensorrt ": "needs TensorRT and a GPU; tests/export runs it to the ONNX file",
    r"^effnet benchmark ": "measures for minutes; test_readme.py runs its forms with few steps",
    r"^python -m benchmarks ": "the laboratory measures for minutes to hours; tests/benchmarks_lab runs it small",
    r"^python \./multiproc\.py .*/imagenet": "needs ImageNet and 8 GPUs; test_launchers.py starts processes",
    r"^effnet predict .*(--ray|--shard|--merge)": "several machines; test_predict.py plays them on one",
    r"^effnet serve\b": "answers until it is stopped; tests/serve starts it and test_tutorial.py asks it",
    r"^effnet (report|watch) ": "tests/report draws and serves pages of runs of its own",
    r"^effnet compare |--explain-class": "the classes are the reader's; tests/inference has models of its own",
    r"^effnet doctor\b": "ends with 1 where something is missing; tests/doctor runs it in such places",
    r"--track ": "trackers take ten seconds to be imported; their tests read back what each has written",
    r"^python examples/": "tests/test_examples.py runs them",
    r"effnet\.fit\(dataset,": "the data sets are the reader's; tests/fitting/test_datasets.py has some",
}


def reason(shown: str) -> str | None:
    """Return the reason why a command or an example is not run; None if it is."""
    return next((why for pattern, why in NOT_RUN.items() if re.search(pattern, shown, re.MULTILINE)), None)
