#!/bin/bash
# Everything that waits for a GPU, in one command on a machine that has one:
#
#     pip install -e ".[test]" && benchmarks/on_a_gpu.sh [folder of the tables]
#
# 1. the tests that need a GPU; 2. an iteration of training at 128 px and batch 16, every variant (bar: 50 ms, stretch: 33 ms);
# 3. 15 minutes of the fast preset on the realistic tissue, and an edit of 100,000 cells. What each prints is kept in the folder; the tables belong in
# RESULTS_training.md. A step that fails does not keep the others from running; the exit status says whether one did.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-gpu_results}
mkdir -p "$out"
python - <<'PYTHON' || exit 1
import torch
if not torch.cuda.is_available():
    raise SystemExit("no CUDA device here: this command is for a machine with a GPU.")
p = torch.cuda.get_device_properties(0)
print(f"{p.name}, {p.total_memory / 2**30:.0f} GiB, compute capability {p.major}.{p.minor}, PyTorch {torch.__version__}")
PYTHON

failed=()
step() { # name, command...
  local name=$1
  shift
  echo "== $name: $*"
  "$@" 2>&1 | tee "$out/$name.log" || failed+=("$name")
}

step tests pytest -n 0 -m gpu
step iteration python benchmarks/bench_training.py --device cuda --size full --batch 16 --repeats 20 --variants \
  "plain tf32" "plain bf16" "ours fp32" "ours tf32" "ours bf16" "ours bf16 compiled" "ours bf16 graphed" "ours bf16 compiled graphed"
step training_and_edit python benchmarks/bench_on_a_gpu.py --minutes 15 --cells 100000

if ((${#failed[@]})); then
  echo "failed: ${failed[*]} (logs in $out)"
  exit 1
fi
echo "tables: $out/iteration.log, $out/training_and_edit.log"
