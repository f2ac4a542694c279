#!/usr/bin/env bash
# What docs/benchmarks.md shows of a CPU, part by part, in some 26 minutes on 2 idle cores. A part that fails stops no
# other. Results go to $OUT, else to benchmarks/results/<machine>/; `python -m benchmarks report` makes the pages.
#
#     bash benchmarks/cpu.sh                   # every part
#     bash benchmarks/cpu.sh peers bfloat16    # these
#     TINY=1 bash benchmarks/cpu.sh            # a dry run at tiny sizes: set OUT, its figures mean nothing
#
# PYTHON names another python. JAXRNN_DATA is the folder of tinyshakespeare/input.txt, ../shared/data by default.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
python=${PYTHON:-python}
export PYTHONPATH=$PWD KERAS_BACKEND=jax
if [ -n "${TINY:-}" ] && [ -z "${OUT:-}" ]; then
  echo "benchmarks/cpu.sh: TINY=1 needs OUT, a folder for figures that mean nothing" >&2
  exit 1
fi
if [ $# = 0 ]; then set -- peers bfloat16 precision oversubscription memory vmap matrix train-dtypes limit; fi

failed=()
for part; do
  start=$SECONDS
  case $part in  # in minutes: 7, 5, 1, 1.5, 1, 1, 6, 2.5, 1.5
    peers) command=(peers --budget 1.5 --names "jaxrnn select" "jaxrnn Native" "jaxrnn BPTT keep_gates" torch onnxruntime) ;;
    bfloat16) command=(peers --suite bfloat16 --budget 1.5) ;;
    precision) command=(precision --budget 1) ;;
    oversubscription) command=(oversubscription --budget 4) ;;
    memory) command=(memory --names "Native()" torch --dtypes float32 bfloat16) ;;
    vmap) command=(vmap --budget 2 --names "select" "Native()" "BPTT()" "BPTT(keep_gates=True)" "Scan()" "Associative()") ;;
    matrix) command=(matrix --budget 12) ;;
    train-dtypes) command=(train-dtypes --epochs 12 --steps 250) ;;
    limit) command=(limit --suite standard --names "jaxrnn select" --budget 1) ;;
    *) echo "benchmarks/cpu.sh: a part is one of those in the script; got $part" >&2; exit 1 ;;
  esac
  if [ -n "${TINY:-}" ]; then
    case $part in
      peers | bfloat16 | limit) command+=(--suite tiny --budget 0.01) ;;
      precision) command+=(--time 8 --batch 2 --inputs 4 --hidden 8 --budget 0.01) ;;
      oversubscription) command+=(--shapes 4 2 3 8 --budget 0.01) ;;
      vmap) command+=(--time 4 --rows 2 --inputs 2 --hidden 4 --budget 0.01) ;;
      matrix) command+=(--shapes 8 1 1 2 2 --accuracy 16 --long 32 --budget 0.01) ;;
      memory) command+=(--cells lstm --time 8 --batch 2 --inputs 4 --hidden 8 --budget 0.01) ;;
      train-dtypes) command+=(--epochs 1 --steps 24 --hidden 64) ;;
    esac
  fi
  echo "== $part: python -m benchmarks ${command[*]}"
  "$python" -m benchmarks "${command[@]}" || failed+=("$part")
  echo "== $part: $((SECONDS - start)) s"
done
if [ ${#failed[@]} -gt 0 ]; then
  echo "failed: ${failed[*]}" >&2
  exit 1
fi
