#!/usr/bin/env bash
# A fresh environment with the wheel in dist/, one Python and the oldest or newest required packages; runs quick tests.
#   tools/matrix.sh PYTHON lowest-direct|highest
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1 versions=$2
place=build/matrix/$python-$versions
wheels=(dist/effnet-*.whl)

# pyenv's shims in PATH are no interpreters, so its folder is looked into.
interpreter=$(uv python find --quiet --no-python-downloads "$python" 2>/dev/null || true)
for candidate in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$python".*/bin/python; do
    if [[ -z $interpreter && -x $candidate ]]; then interpreter=$candidate; fi
done
if [[ -z $interpreter ]]; then
    echo "matrix: no Python $python here, left out"
    exit 0
fi
mkdir -p build/matrix
echo "matrix: Python $python, $versions"
uv pip compile --quiet --python-version "$python" --resolution "$versions" --only-binary :all: --no-header \
    --no-annotate --no-emit-index-url --output-file "$place.txt" pyproject.toml >/dev/null
uv venv --quiet --clear --python "$interpreter" "$place"
uv pip install --quiet --python "$place/bin/python" --requirements "$place.txt"
uv pip install --quiet --python "$place/bin/python" --no-deps "${wheels[0]}"
uv pip install --quiet --python "$place/bin/python" --constraints "$place.txt" pytest pytest-timeout hypothesis
# Tests of what needs no extra. They import the wheel: `src` is not on the path.
OMP_NUM_THREADS=1 "$place/bin/python" -m pytest -q -x -p no:cacheprovider \
    tests/recipe tests/runtime/test_text.py tests/models/test_efficientnet.py tests/inference/test_classifier.py \
    tests/data/test_folder.py tests/data/test_transforms.py tests/training/test_run.py tests/fitting
