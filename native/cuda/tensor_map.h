// Tensors as the copy engine of the multiprocessors sees them (TMA).
#pragma once

#include <cuda.h>

#include <cstdint>

namespace gsa::cuda {

// [rows, columns] of bfloat16 at `base` (16-byte aligned, rows contiguous, columns a multiple of 8), read in
// boxes of box_rows x 64 that land as swizzled tiles (sm90/mma.cuh). What lies outside reads as zero.
// `stride`: elements from row to row, a multiple of 8; 0: as many as columns. Throws UNSUPPORTED where the
// driver knows no tensor maps, INTERNAL where it refuses this one.
CUtensorMap tensor_map(const void* base, int64_t rows, int64_t columns, int box_rows, int64_t stride = 0);

}  // namespace gsa::cuda
