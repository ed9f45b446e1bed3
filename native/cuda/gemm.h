// Matrix products on the device through cuBLASLt: row-major, float32 or bfloat16 in and out, or 8-bit floats
// in, float32 accumulation (no tf32: float32 stays float32).
#pragma once

#include <cstdint>

#include "device.h"

namespace gsa::cuda {

// C[m,n] = alpha * op(A) op(B) + beta * C (+ bias per column), for each of `batch` matrices. ld: row stride
// of the stored matrix; stride: elements from one matrix of the batch to the next (0: the same for all).
struct Gemm {
  int32_t dtype = GSA_FLOAT32;  // of A, B and bias
  int32_t c_dtype = GSA_FLOAT32;
  bool trans_a = false, trans_b = false;
  int64_t m = 0, n = 0, k = 0, batch = 1;
  float alpha = 1.0f, beta = 0.0f;
  const void* a = nullptr;
  int64_t lda = 0, stride_a = 0;
  const void* b = nullptr;
  int64_t ldb = 0, stride_b = 0;
  void* c = nullptr;
  int64_t ldc = 0, stride_c = 0;
  const void* addend = nullptr;  // laid out as C, times beta instead of what C holds
  const void* bias = nullptr;    // [n]
  // 8-bit floats: the formats of A and B may differ, each has a factor in device memory, and B has to be
  // transposed and A not, all extents multiples of 16. fast_sums: the tensor cores' own sums, of fewer bits
  // than float32, are not moved into float32 every so often.
  int32_t b_dtype = -1;  // -1: as A
  const float* a_scale = nullptr;
  const float* b_scale = nullptr;
  bool fast_sums = false;
};

// In a process the same call always takes the same algorithm (chosen once per shape), so results repeat bit
// for bit there.
void gemm(gsa_device& device, const Gemm& call);

}  // namespace gsa::cuda
