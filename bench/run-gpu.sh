#!/usr/bin/env bash
# Every measurement of the benches on one GPU host, from a checkout or from the bundle: for each kind of work ours, then a
# peer's on the same card in the same minutes, then both as a table and a plot.
#
#   bench/run-gpu.sh OUT [KIND...]        KIND: gsa gemm modules train decode (default: all)
#
# OUT receives KIND.json, KIND.log, peer-KIND.json, peer-KIND.log and comparison.{md,svg,png}. Peers are measured where
# PYTHONPATH holds flash-linear-attention (gemm: where python3 has torch); PEERS=0 leaves them out. PEER_VERSION goes into
# their stamp. SHAPES (comma-separated, for one KIND) replaces the kind's list. A second run into the same OUT replaces what it
# measures again and compares all that is there. A kind that fails is said and the next one runs; the exit code is then 1.
set -uo pipefail
cd "$(dirname "$0")/.."
out=$(realpath -m "${1:?usage: bench/run-gpu.sh OUT [KIND...]}")
shift
mkdir -p "$out"
kinds=${*:-gsa gemm modules train decode}
device=${DEVICE:-cuda:0}
failed=0

if [ -x bin/node ]; then node=bin/node; else node=node; fi
bench() { "$node" dist/cli/main.js bench "$@"; }

. bench/cublaslt.sh

peer() {
  case $1 in
  gemm) echo bench/peers/torch_gemm.py ;;
  *) echo "bench/peers/fla_$1.py" ;;
  esac
}

# step NAME COMMAND...: runs it, shows its output and keeps it in OUT/NAME.log.
step() {
  local name=$1 began=$SECONDS
  shift
  echo "=== $name"
  if "$@" 2>&1 | tee "$out/$name.log"; then
    echo "--- $name: $((SECONDS - began)) s"
  else
    echo "--- $name FAILED after $((SECONDS - began)) s"
    failed=1
  fi
}

for kind in $kinds; do
  shapes=${SHAPES:-$(bench "$kind" --device "$device" --list | paste -sd,)}
  step "$kind" bench "$kind" --device "$device" --shapes "$shapes" --json "$out/$kind.json" \
    ${SECONDS_PER_CASE:+--seconds "$SECONDS_PER_CASE"}
  if [ "${PEERS:-1}" = 1 ]; then
    step "peer-$kind" python3 "$(peer "$kind")" --shapes "$shapes" --json "$out/peer-$kind.json" \
      ${PEER_VERSION:+--peer-version "$PEER_VERSION"}
  fi
done

inputs=()
for kind in gsa gemm modules train decode; do
  [ -f "$out/$kind.json" ] && inputs+=(--ours "$out/$kind.json")
  [ -f "$out/peer-$kind.json" ] && inputs+=(--peer "$out/peer-$kind.json")
done
step comparison "$node" .build/bench/compare/index.js "${inputs[@]}" --out "$out/comparison" --png
cat "$out/comparison.md"
exit $failed
