// In place of native/cuda/tensor_map.h.
#pragma once

#include "../../emulator.h"

struct CUtensorMap {
  const __nv_bfloat16* base;
  int64_t rows, columns, stride;
  int box_rows;
};

namespace gsa::cuda {
inline CUtensorMap tensor_map(const void* base, int64_t rows, int64_t columns, int box_rows,
                              int64_t stride = 0) {
  return {static_cast<const __nv_bfloat16*>(base), rows, columns, stride ? stride : columns, box_rows};
}
}  // namespace gsa::cuda
