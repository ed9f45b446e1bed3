#include "rows_cpu.h"

#include <cstring>
#include <limits>

#define GSA_SIMD_FILE "../../ops/gsa/rows.inl"
#include "../../cpu/simd/foreach_isa.h"

namespace gsa::cpu {

const RowKernels& row_kernels() {
  static const RowKernels kernels = {
      GSA_SIMD_SELECT(block_tables),  GSA_SIMD_SELECT(chunk_tables),  GSA_SIMD_SELECT(scale_columns),
      GSA_SIMD_SELECT(decay_columns), GSA_SIMD_SELECT(decay_rows),    GSA_SIMD_SELECT(dot_columns),
      GSA_SIMD_SELECT(dot_rows),      GSA_SIMD_SELECT(softmax_rows),  GSA_SIMD_SELECT(forward_block),
      GSA_SIMD_SELECT(gather_block),  GSA_SIMD_SELECT(scatter_block), GSA_SIMD_SELECT(finish_gates),
  };
  return kernels;
}

}  // namespace gsa::cpu
