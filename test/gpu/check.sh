#!/usr/bin/env bash
# What can be checked on one GPU host, in a checkout after `npm run build && npm run build:test`, or in the unpacked bundle: the
# suite, the stored results in both dtypes, the sanitizer, and, where PYTHONPATH holds flash-linear-attention, checkpoints in both
# directions. About three minutes on an H100 with 16 CPU cores.
#
#   test/gpu/check.sh OUT [suite verify sanitizer interop]...     (default: all of them)
#
# OUT receives a log of each; a line a check is printed, with the failures that its log names. The exit code is 1 if any failed.
set -uo pipefail
cd "$(dirname "$0")/../.."
out=$(realpath -m "${1:?usage: test/gpu/check.sh OUT [CHECK...]}")
shift
mkdir -p "$out"
checks=${*:-suite verify sanitizer interop}
device=${DEVICE:-cuda:0}
node=node
[ -x bin/node ] && node=bin/node
. bench/cublaslt.sh
failed=0

# check NAME PATTERN COMMAND...: runs it into OUT/NAME.log; of a failed one the lines with PATTERN are shown.
check() {
  local name=$1 pattern=$2 began=$SECONDS
  shift 2
  if "$@" >"$out/$name.log" 2>&1; then
    echo "ok      $name ($((SECONDS - began)) s): $(tail -1 "$out/$name.log")"
  else
    echo "FAILED  $name ($((SECONDS - began)) s)"
    grep -E "$pattern" "$out/$name.log" | head -30
    return 1
  fi
}

suite() { # The whole one alone: some of its tests fill the card.
  check suite '^ +✘|^ +[0-9]+ tests? ' "$node" node_modules/ava/entrypoints/cli.mjs --concurrency "${CONCURRENCY:-$(nproc)}"
}
verify() {
  local status=0
  for dtype in fp32 bf16; do
    check "verify-$dtype" FAIL "$node" dist/cli/main.js verify "${GOLDEN:-test/fixtures}" --device "$device" --dtype $dtype || status=1
  done
  return $status
}
sanitizer() { # One GPU is enough for the tools side by side.
  local running=() status=0 tool
  for tool in memcheck racecheck initcheck; do
    check "sanitizer-$tool" 'ERROR SUMMARY|RACECHECK SUMMARY|Error:|hazard|Invalid' test/gpu/sanitize.sh $tool &
    running+=($!)
  done
  for tool in "${running[@]}"; do wait "$tool" || status=1; done
  return $status
}
interop() {
  if ! python3 -c 'import fla' 2>/dev/null; then
    echo 'SKIPPED interop: PYTHONPATH holds no flash-linear-attention'
    return 0
  fi
  check interop 'false|Error' python3 test/interop/fla_checkpoint.py --device "$device"
}

for name in $checks; do
  case $name in
  suite | verify | sanitizer | interop) $name || failed=1 ;;
  *) echo "unknown check: $name" >&2 && exit 2 ;;
  esac
done
exit $failed
