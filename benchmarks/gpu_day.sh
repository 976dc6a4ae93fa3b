#!/usr/bin/env bash
# All that has to be measured on a GPU, in stages; docs/gpu-day.md says how to use it.
#   benchmarks/gpu_day.sh [STAGE...] --out DIR
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
export PYTHONPATH=src:.${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1

# Packages that the machine lacks travel as wheels (`--prepare` put them there).
if compgen -G ".gpu-day/wheels/*.whl" >/dev/null; then
    site=$(mktemp -d)
    "$python" -m pip install -q --no-index --no-deps --no-compile --target "$site" .gpu-day/wheels/*.whl &&
        export PYTHONPATH=$PYTHONPATH:$site
fi
exec "$python" -m benchmarks gpu-day "$@"
