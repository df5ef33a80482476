#!/usr/bin/env bash
# Everything a CUDA machine can show, in one go and within ten minutes: builds the kernels against the PyTorch that is
# there, runs the CUDA tests, every benchmark and the memory checker.
#
#   bash benchmarks/gpu.sh [FOLDER]      (default: $OUT, or benchmarks/results/gpu)
#
# FOLDER gets log.txt (all output), figures.json (of all benchmarks) and gpu.txt (nvidia-smi).
# Needs no network: Python with PyTorch (CUDA build), setuptools, ninja, pybind11, numpy, pytest, hypothesis, and nvcc.
# A package that is missing may lie as wheels in a folder named by LT_NAS_EXT_WHEELS.
# LT_NAS_EXT_DRY_RUN=1 goes through the same steps without a GPU: the CUDA tests skip, the rest runs on the CPU.
set -uo pipefail
device=cuda folder=gpu patience=1
if [ "${LT_NAS_EXT_DRY_RUN:-0}" = 1 ]; then
  device=cpu folder=dry_run patience=10
  export OMP_NUM_THREADS=1 # its figures are nobody's, and threads only wait for each other where the machine is shared
fi
out=$(realpath -m "${1:-${OUT:-$(dirname "$0")/results/$folder}}")
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
limit=$((570 * patience)) # seconds for everything
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PYTHONPATH="$work/site${PYTHONPATH:+:$PYTHONPATH}" PATH="$PATH:/usr/local/cuda/bin"
export LT_NAS_EXT_REQUIRE_KERNELS=1 PYTHONUNBUFFERED=1 PYTHONUTF8=1
failed=()
: >"$out/log.txt"

step() { # step NAME SECONDS COMMAND...: runs it, keeps its output, remembers a failure
  local name=$1 seconds=$(($2 * patience)) began=$SECONDS status
  shift 2
  [ $((limit - began)) -lt "$seconds" ] && seconds=$((limit - began))
  echo "== $name" | tee -a "$out/log.txt"
  if [ "$seconds" -le 0 ]; then
    echo "   LEFT OUT: the $limit s are over"
    failed+=("$name")
    return 1
  fi
  timeout --kill-after=5 "$seconds" "$@" >"$work/$name.log" 2>&1
  status=$?
  cat "$work/$name.log" >>"$out/log.txt"
  if [ $status = 0 ]; then
    echo "   ok, $((SECONDS - began)) s; $(tail -n 1 "$work/$name.log")"
  else
    echo "   FAILED ($status), $((SECONDS - began)) s; the end of its output in $out/log.txt:"
    tail -n 25 "$work/$name.log" | sed 's/^/   | /'
    failed+=("$name")
  fi
  return $status
}

merge='
import json, pathlib, sys
records = [json.loads(path.read_text()) for path in sorted(pathlib.Path(sys.argv[1]).glob("bench_*.json"))]
merged = {"machine": records[0]["machine"], "comparisons": [c for record in records for c in record["comparisons"]]}
pathlib.Path(sys.argv[2]).write_text(json.dumps(merged, indent=1, ensure_ascii=False) + "\n")
'

nvidia-smi >"$out/gpu.txt" 2>&1
if [ -n "${LT_NAS_EXT_WHEELS:-}" ]; then
  step wheels 60 "$python" -m pip install --no-index --no-deps --target "$work/site" "$LT_NAS_EXT_WHEELS"/*.whl
fi
# In place, so that every way to start Python from this folder finds the same kernels.
step build 300 "$python" -m pip install -v --no-deps --no-build-isolation --editable . || exit 1
step doctor 60 "$python" -c "from lt_nas_ext.doctor import doctor; print(doctor())"
# Only the files that have such tests: the others' imports are none of this machine's business (tyro, for one).
mapfile -t cuda_tests < <(grep -l 'mark\.cuda' python_tests/test_*.py)
step tests 240 "$python" -m pytest -q -p no:cacheprovider -m cuda "${cuda_tests[@]}"
for bench in benchmarks/bench_*.py; do
  name=$(basename "$bench" .py)
  step "$name" 120 "$python" "$bench" --device "$device" --quick --json "$work/$name.json"
  [ -f "$work/$name.json" ] && "$python" -c "$merge" "$work" "$out/figures.json"
done
# One small case of every operator, forward and backward, under the memory checker and the race checker; without them
# where they are missing, or refuse the device (as in some sandboxes). The checker sees a tensor's end only where each is
# allocated by itself.
export PYTORCH_NO_CUDA_MEMORY_CACHING=1
touch_device="import torch; print(torch.ones(1, device='$device').sum().item())"
if timeout 60 compute-sanitizer "$python" -c "$touch_device" >>"$out/log.txt" 2>&1; then
  for tool in memcheck racecheck; do
    step "$tool" 120 compute-sanitizer --tool "$tool" --error-exitcode 9 "$python" benchmarks/sanitize.py "$device"
  done
else
  echo "== compute-sanitizer does not run here: the next step checks nothing, it runs"
  step unchecked 60 "$python" benchmarks/sanitize.py "$device"
fi
# What is left of the time belongs to the table that matters most: whole steps at batch 64, 256 and 1024.
if [ "$device" = cuda ] && [ $((limit - SECONDS)) -gt 60 ]; then
  unset PYTORCH_NO_CUDA_MEMORY_CACHING
  export LT_NAS_EXT_COMPILE_LIMIT=0
  step search_steps $((limit - SECONDS)) "$python" benchmarks/bench_search_step.py --device cuda --json "$out/search_steps.json"
fi
echo
cat "$work"/bench_*.log "$work"/search_steps.log 2>/dev/null
if [ ${#failed[@]} -gt 0 ]; then
  echo "failed: ${failed[*]}"
  exit 1
fi
echo "all steps passed in $SECONDS s; figures in $out"
