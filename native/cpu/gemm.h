// Single-precision matrix product, row-major: C[m,n] = alpha * op(A)[m,k] * op(B)[k,n] + beta * C, where
// op(X) is X or its transpose. `lda` etc. are the row strides of the stored (untransposed) matrices. With
// beta = 0, C is not read (it may hold NaN). m, n or k may be 0.
#pragma once

#include <cstdint>

namespace gsa::cpu {

struct Gemm {
  bool trans_a = false;
  bool trans_b = false;
  int64_t m = 0, n = 0, k = 0;
  float alpha = 1.0f;
  const float* a = nullptr;
  int64_t lda = 0;
  const float* b = nullptr;
  int64_t ldb = 0;
  float beta = 0.0f;
  float* c = nullptr;
  int64_t ldc = 0;
};

// On the calling thread with our own kernel: for use inside parallel_for (small tiles; packs into
// thread-local scratch).
void sgemm_serial(const Gemm& g);

// Over all threads: the BLAS found at run time, else our own kernel. The result does not depend on the thread
// count (it does on which of the two ran).
void sgemm(const Gemm& g);

}  // namespace gsa::cpu
