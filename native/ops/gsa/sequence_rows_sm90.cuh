// Rows of a sequence, read on the device.
#pragma once

#include "../../cuda/kernel.cuh"
#include "params.h"

namespace gsa::sm90 {

// Rows of sequence n. Offsets are clamped: whatever cu_seqlens holds, nothing outside the tensors is touched.
__device__ __forceinline__ slot_attention::RowRange device_rows(const int32_t* cu_seqlens, int64_t T,
                                                                int64_t n) {
  if (!cu_seqlens) return {n * T, (n + 1) * T};
  const int64_t begin = min(max(static_cast<int64_t>(cu_seqlens[n]), int64_t{0}), T);
  return {begin, min(max(static_cast<int64_t>(cu_seqlens[n + 1]), begin), T)};
}

}  // namespace gsa::sm90
