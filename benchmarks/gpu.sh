#!/usr/bin/env bash
# Everything a CUDA machine can show, in one go and within ten minutes: builds the kernels against the PyTorch that is
# there, runs the CUDA tests, the memory checker and every benchmark, and leaves all figures in one folder.
#
#   bash benchmarks/gpu.sh [FOLDER]      (default: benchmarks/results/gpu)
#
# Needs no network: Python with PyTorch (CUDA build), setuptools, ninja, pybind11, numpy, pytest, hypothesis, and nvcc.
# A package that is missing may lie as wheels in a folder named by LT_NAS_EXT_WHEELS.
# LT_NAS_EXT_DRY_RUN=1 goes through the same steps without a GPU: the CUDA ones then skip or run on the CPU.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-${OUT:-benchmarks/results/gpu}}
python=${PYTHON:-python3}
mkdir -p "$out"
site=$(mktemp -d)
export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}" LT_NAS_EXT_REQUIRE_KERNELS=1 PYTHONUNBUFFERED=1
device=cuda
[ "${LT_NAS_EXT_DRY_RUN:-0}" = 1 ] && device=cpu
failed=()

step() { # step NAME SECONDS COMMAND...: runs it, keeps its output, remembers a failure, never stops the others
  local name=$1 seconds=$2 began=$SECONDS
  shift 2
  echo "== $name"
  if timeout "$seconds" "$@" >"$out/$name.log" 2>&1; then
    echo "   ok, $((SECONDS - began)) s"
  else
    echo "   FAILED ($?), $((SECONDS - began)) s; the end of $out/$name.log:"
    tail -n 25 "$out/$name.log" | sed 's/^/   | /'
    failed+=("$name")
  fi
}

nvidia-smi >"$out/nvidia-smi.txt" 2>&1 || true
if [ -n "${LT_NAS_EXT_WHEELS:-}" ]; then
  step wheels 60 "$python" -m pip install -q --no-index --no-deps --target "$site" "$LT_NAS_EXT_WHEELS"/*.whl
fi
# In place, so that every way to start Python from this folder finds the same kernels.
step build 300 "$python" -m pip install -v --no-deps --no-build-isolation --editable .
step doctor 60 "$python" -c "from lt_nas_ext.doctor import doctor; print(doctor())"
step tests 240 "$python" -m pytest -q --import-mode=importlib -p no:cacheprovider -m "cuda" python_tests
if command -v compute-sanitizer >/dev/null && [ "$device" = cuda ]; then
  # One small case of every operator, forward and backward, under the memory checker and the race checker.
  for tool in memcheck racecheck; do
    step "sanitizer-$tool" 90 compute-sanitizer --tool "$tool" --error-exitcode 9 "$python" benchmarks/sanitize.py
  done
fi
for bench in benchmarks/bench_*.py; do
  name=$(basename "$bench" .py)
  step "$name" 120 "$python" "$bench" --device "$device" --quick --json "$out/$name.json"
done
echo
for log in "$out"/bench_*.log; do tail -n 30 "$log"; done
if [ ${#failed[@]} -gt 0 ]; then
  echo "failed: ${failed[*]}"
  exit 1
fi
echo "all steps passed; figures in $out"
