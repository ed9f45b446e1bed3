#!/usr/bin/env bash
# Training throughput on one GPU host, from a checkout or from the bundle: the 1.3B model at growing lengths, and the 2.7B model
# at the batches that fit, ours, flash-linear-attention's and a transformer's on the same card in the same minutes.
#
#   PYTHONPATH=<flash-linear-attention> bench/run-throughput.sh OUT [PART...]
#
# PART (default: all of them): ours, fla, transformer, compiled: the 1.3B model at growing lengths; long: the same with all that is
# in a block made again, to 131,072 tokens; large: the 2.7B model.
#
# OUT receives a .json and a .log for each program and setting, and throughput.{md,svg,png} of all that is there. LIMIT (seconds,
# default 240) is the most that one of them may take; one that fails is said and the next one runs; the exit code is then 1.
set -uo pipefail
cd "$(dirname "$0")/.."
out=$(realpath -m "${1:?usage: bench/run-throughput.sh OUT [PART...]}")
shift
mkdir -p "$out"
parts=${*:-ours fla transformer compiled large long}
failed=0

small=D2048L24H4M64V32000 # 1.3B
large=D2560L32H5M64V32000 # 2.7B
# 16,384 tokens a step where everything is kept, 32,768 where it is not.
kept=${small}B8T2048,${small}B2T8192,${small}B1T16384
twice=${small}B1T32768,${small}B16T2048
longest=${small}B1T131072

if [ -x bin/node ]; then node=bin/node; else node=node; fi
. bench/cublaslt.sh

step() { # NAME COMMAND...: runs it, keeps its output in OUT/NAME.log
  local name=$1 began=$SECONDS
  shift
  if timeout "${LIMIT:-240}" "$@" >"$out/$name.log" 2>&1; then
    echo "--- $name: $((SECONDS - began)) s"
  else
    echo "--- $name FAILED after $((SECONDS - began)) s: $(tail -1 "$out/$name.log")"
    failed=1
  fi
}
ours() { # NAME SHAPES OPTION...
  local name=$1 shapes=$2
  shift 2
  step "ours-$name" "$node" dist/cli/main.js bench train --device "${DEVICE:-cuda:0}" --shapes "$shapes" --json "$out/ours-$name.json" "$@"
}
peer() { # NAME SCRIPT SHAPES OPTION...
  local name=$1 script=$2 shapes=$3
  shift 3
  step "peer-$name" python3 "bench/peers/$script" --steps 6 --warmup 2 --shapes "$shapes" --json "$out/peer-$name.json" "$@" \
    ${PEER_VERSION:+--peer-version "$PEER_VERSION"}
}

for part in $parts; do
  case $part in
  ours)
    ours kept "$kept"
    ours recompute "$twice" --recompute
    ;;
  fla) peer fla-kept fla_train.py "$kept" ;;
  transformer) peer transformer-kept llama_train.py "$kept" ;;
  compiled) peer compiled-kept llama_train.py "$kept" --compile ;;
  long)
    ours blocks "$longest,$twice" --recompute blocks
    peer fla-blocks fla_train.py "$twice,$longest" --recompute
    peer transformer-blocks llama_train.py "$twice" --recompute
    ;;
  large)
    # Each by itself: the first nearly fills the card.
    ours large-8 "${large}B8T2048"
    ours large-4 "${large}B4T2048"
    # Kernels are tuned once for a width, whatever the depth: here with little memory, and not among what is measured.
    step tuning python3 bench/peers/fla_train.py --steps 1 --warmup 1 --shapes "${large/L32/L1}B1T2048"
    peer fla-large fla_train.py "${large}B4T2048,${large}B5T2048,${large}B6T2048"
    ;;
  *) echo "unknown part: $part" >&2 && exit 2 ;;
  esac
done

inputs=()
for file in "$out"/ours-*.json; do [ -f "$file" ] && inputs+=(--ours "$file"); done
for file in "$out"/peer-*.json; do [ -f "$file" ] && inputs+=(--peer "$file"); done
step throughput "$node" .build/bench/compare/curve.js "${inputs[@]}" --out "$out/throughput" --png
cat "$out/throughput.md"
exit $failed
