#!/usr/bin/env bash
# The tests that say something on an accelerator, then the benchmarks at its sizes: in under 9 minutes, with nothing
# installed. Results go to $OUT, else to benchmarks/results/<hardware>/.
#
#     bash benchmarks/device.sh
#     bash benchmarks/device.sh fused   # the kernel of the time loop alone, in under 9 minutes more
#     bash benchmarks/device.sh long    # long sequences alone, likewise
#
# PYTHON names another python3. JAXRNN_DEVICE_CPU=1 makes it a dry run at tiny sizes on the CPU.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
python=${PYTHON:-python3}
export PYTHONPATH=$PWD PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1        # whatever else is installed there
export XLA_PYTHON_CLIENT_PREALLOCATE=false     # torch computes on the same device
tests=(tests/core/test_cells.py tests/core/test_drivers.py tests/core/test_sequences.py tests/core/test_compose.py)
if [ "${JAXRNN_DEVICE_CPU:-}" = 1 ]; then
  echo "JAXRNN_DEVICE_CPU=1: a dry run on the CPU, whose figures mean nothing"
  export JAX_PLATFORMS=cpu
  tests=(tests/core/test_errors.py)
else
  export JAX_PLATFORMS=${JAX_PLATFORMS:-cuda,cpu}
fi
if ! devices=$(timeout 60 "$python" -c 'import jax; print(jax.devices()[0].platform, *jax.devices())' 2>&1); then
  echo "${devices##*$'\n'}" >&2
  devices=none
fi
case "$devices" in
  none | cpu*)
    if [ "${JAXRNN_DEVICE_CPU:-}" != 1 ] || [ "$devices" = none ]; then
      echo "benchmarks/device.sh: JAX finds no accelerator with JAX_PLATFORMS=$JAX_PLATFORMS; nothing was run." \
        "JAXRNN_DEVICE_CPU=1 makes it a dry run on the CPU." >&2
      exit 1
    fi ;;
esac
echo "$devices"

failed=()
part() { # part NAME SECONDS COMMAND...: a part that fails or runs out of time stops no other
  local name=$1 seconds=$2 start=$SECONDS code=0
  shift 2
  echo "== $name, at most $seconds s"
  if [ -n "${OUT:-}" ]; then
    timeout -k 5 "$seconds" "$@" 2>&1 | tee -a "$OUT/device.log" || code=$?
  else
    timeout -k 5 "$seconds" "$@" || code=$?
  fi
  case $code in
    0) echo "== $name: done in $((SECONDS - start)) s" ;;
    124 | 137) failed+=("$name ran out of its $seconds s") ;;
    *) failed+=("$name failed with status $code") ;;
  esac
}

[ -n "${OUT:-}" ] && mkdir -p "$OUT"
workers=()
if [ "$JAX_PLATFORMS" != cpu ] && "$python" -c 'import xdist' 2>/dev/null; then workers=(-p xdist -n 8); fi
if [ "${1:-}" = fused ]; then
  # float32 as it is multiplied there by default, in TF32
  part tests 120 "$python" -m pytest -p no:cacheprovider "${workers[@]}" tests/core/test_fused.py -q -m gpu
  # XLA takes seconds for a program, and there are some 100: processes side by side fill its cache, then one measures
  JAX_COMPILATION_CACHE_DIR=$(mktemp -d)
  export JAX_COMPILATION_CACHE_DIR JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0
  # CUDA graphs over whole loops, which XLA does not make by itself
  graphs="${XLA_FLAGS:-} --xla_gpu_enable_command_buffer=FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL,WHILE,CONDITIONAL"
  [ "$JAX_PLATFORMS" = cpu ] && graphs=${XLA_FLAGS:-}
  compile() {
    for share in 0 1 2 3 4 5; do "$python" -m benchmarks.device fused $share/6 & done
    for share in 0 1 2 3; do "$python" -m benchmarks.device shapes $share/4 & done
    for share in 0 1; do XLA_FLAGS=$graphs "$python" -m benchmarks.device graphs $share/2 & done
    wait
  }
  export -f compile
  export python graphs
  part compile 120 bash -c compile
  part fused 120 "$python" -m benchmarks.device fused
  part shapes 85 "$python" -m benchmarks.device shapes
  part bound 35 "$python" -m benchmarks.device bound
  part graphs 45 env XLA_FLAGS="$graphs" "$python" -m benchmarks.device graphs
elif [ "${1:-}" = long ]; then
  part tests 120 env JAX_DEFAULT_MATMUL_PRECISION=highest "$python" -m pytest -p no:cacheprovider "${workers[@]}" \
    tests/core/test_associative.py tests/core/test_newton.py -q -k "not devices"
  part long 400 "$python" -m benchmarks.device long
else
# float32 tests are of float32 products, where an accelerator would take TF32. A Python loop compiles every operation.
part tests 120 env JAX_DEFAULT_MATMUL_PRECISION=highest "$python" -m pytest -p no:cacheprovider "${workers[@]}" \
  "${tests[@]}" -q -m "not optimised" -k "not python_loop"
part peers 230 "$python" -m benchmarks.device peers
part scaling 75 "$python" -m benchmarks.device scaling
part memory 50 "$python" -m benchmarks.device memory
part limit 45 "$python" -m benchmarks.device limit
fi

[ ${#failed[@]} -eq 0 ] && echo "all parts done in $SECONDS s" && exit 0
printf 'benchmarks/device.sh: %s\n' "${failed[@]}" >&2
exit 1
