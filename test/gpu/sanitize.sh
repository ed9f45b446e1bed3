#!/usr/bin/env bash
# Runs cases.ts under NVIDIA's compute-sanitizer (part of the CUDA toolkit): memcheck, racecheck and initcheck, all three by
# default. In a checkout after `npm run build && npm run build:test`, or in the unpacked bundle:
#
#   test/gpu/sanitize.sh [memcheck|racecheck|initcheck]... [-- --only rmsNorm]
#
# Exit code 0: no tool found an error. The tools' reports are printed.
set -uo pipefail
cd "$(dirname "$0")/../.."
node=node
[ -x bin/node ] && node=bin/node
sanitizer=${COMPUTE_SANITIZER:-$(command -v compute-sanitizer || echo /usr/local/cuda/bin/compute-sanitizer)}
tools=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  tools+=("$1")
  shift
done
[ $# -gt 0 ] && shift
[ ${#tools[@]} -gt 0 ] || tools=(memcheck racecheck initcheck)
# Each tensor an allocation of the driver's, which the tools know the bounds of.
export FLASH_GSA_HEAP=0
status=0
for tool in "${tools[@]}"; do
  echo "== $tool"
  # initcheck reports rows of a matrix product of the model's bfloat16 step as never written. Their values are right: it does
  # not seem to see every store of cuBLASLt.
  options=()
  [ "$tool" = initcheck ] && options=(--ops-only)
  "$sanitizer" --tool "$tool" --error-exitcode 9 "$node" .build/test/gpu/cases.js "${options[@]}" "$@" || status=1
  # The cases are small; without this they would not reach the sweep kernels of gated slot attention.
  echo "== $tool, sweeps"
  FLASH_GSA_SWEEP=1 "$sanitizer" --tool "$tool" --error-exitcode 9 "$node" .build/test/gpu/cases.js --gsa-only || status=1
  # Nor the kernels of large calls on the tensor-core path.
  echo "== $tool, tensor cores, not exact"
  FLASH_GSA_SWEEP=0 FLASH_GSA_EXACT=0 "$sanitizer" --tool "$tool" --error-exitcode 9 "$node" .build/test/gpu/cases.js --gsa-only || status=1
done
exit $status
