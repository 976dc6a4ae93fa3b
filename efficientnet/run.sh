#!/usr/bin/env bash
# Runs the published recipe that the name of a link to it says:
#   {training,inference}/PRECISION/PLATFORM_MODEL_PRECISION[_EPOCHSE].sh [WORKSPACE] [FLAGS of main.py]
#   quantization/PRECISION/PLATFORM_MODEL_PRECISION.sh WEIGHTS [WORKSPACE] [FLAGS of quant_main.py]
# WEIGHTS are those of the model before quantization. WORKSPACE takes checkpoints and the log, raport.json [default: .];
# inference scripts write a summary for each batch size into the same log. From the environment:
#   DATA     folder with train/<class>/ and val/<class>/ [default: /imagenet]
#   NPROC    processes, one a GPU [default: all GPUs; 1 on a CPU and for inference]
#   BATCHES  inference: batch sizes [default: those of the document's tables]
#   PYTHON   [default: python]
set -euo pipefail

fail() {
    echo "$0: $1" >&2
    exit 2
}

root=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
name=$(basename "${BASH_SOURCE[0]}" .sh)
kind=$(basename "$(realpath -s "$(dirname "${BASH_SOURCE[0]}")/..")")
IFS=_ read -r platform model precision epochs <<<"$name"
[ -n "${precision:-}" ] || fail "call it by the name of a recipe, such as training/AMP/DGXA100_efficientnet-b0_AMP.sh"

data=${DATA:-/imagenet}
python=${PYTHON:-python}
weights=()
if [ "$kind" = quantization ]; then
    if [ $# -eq 0 ] || [[ $1 == -* ]]; then
        fail "the first argument names the weights to quantize"
    fi
    weights=(--pretrained-from-file "$1")
    shift
fi
workspace=.
if [ $# -gt 0 ] && [[ $1 != -* ]]; then
    workspace=$1
    shift
fi
case $platform in
CPU) everywhere=1 ;;
*) everywhere=gpu ;;
esac

# Flags that are given come last and win.
start() { # PROCESSES MODE FLAGS...
    "$python" "$root/multiproc.py" --nproc_per_node "$1" "$root/launch.py" --model "$model" --precision "$precision" \
        --platform "$platform" --mode "$2" "$data" --workspace "$workspace" --report-file raport.json "${@:3}"
}

case $kind in
training | quantization)
    start "${NPROC:-$everywhere}" convergence ${epochs:+--epochs "${epochs%E}"} ${weights[@]+"${weights[@]}"} "$@"
    ;;
inference)
    for batch in ${BATCHES:-1 2 4 8 16 32 64 128 256}; do
        start "${NPROC:-1}" benchmark_inference --batch-size "$batch" "$@"
    done
    ;;
*) fail "lies in neither training, inference nor quantization" ;;
esac
