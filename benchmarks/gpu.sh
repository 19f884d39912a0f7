#!/usr/bin/env bash
# Builds, checks and times all that runs on an NVIDIA GPU, in less than 8 minutes: the kernels, a whole model's decoding
# step from a CUDA graph beside passes made anew, and the search.
#
#     bash benchmarks/gpu.sh [gpu.json]
#
# The file gets every figure, section by section, and the errors of those that failed; then the status is 1. PYTHON names
# the interpreter; by default the first of .venv/bin/python, python3 and python that has torch. Without a GPU it says so.
set -uo pipefail
json=$(realpath -m "${1:-gpu.json}")
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

python=${PYTHON:-}
for candidate in .venv/bin/python python3 python; do
    [ -n "$python" ] && break
    "$candidate" -c 'import torch' 2>/dev/null && python=$candidate
done
if [ -z "$python" ]; then
    if nvidia-smi -L >/dev/null 2>&1; then
        echo "There is an NVIDIA GPU, but no Python with torch. Name one: PYTHON=/path/to/python bash benchmarks/gpu.sh" >&2
        exit 1
    fi
    echo "No NVIDIA GPU here, nor a Python with torch: nothing to measure."
    exit 0
fi
export PYTHONPATH="$PWD:$PWD/kernels:$PWD/connectors:$PWD/agents${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
exec "$python" benchmarks/attention/gpu.py "$json"
