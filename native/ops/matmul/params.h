// Arguments of matmul, shared by every backend: c = alpha op(a) op(b) + beta c (+ bias on every row), where
// op(x) is x or the transpose of its last two dimensions. An addend takes the place of beta c.
#pragma once

#include <cstdint>

#include "../../abi/args.h"

namespace gsa::product {

struct Matmul {
  int64_t batch;  // 1 for matrices
  int64_t m, n, k;
  int32_t dtype;          // of a, b and bias: float32 or bfloat16
  int32_t c_dtype;        // dtype, or float32
  const void* a;          // [batch, m, k], transposed [batch, k, m]; last dimension contiguous
  const void* b;          // [batch, k, n], transposed [batch, n, k]; or one matrix for the whole batch
  const void* bias;       // [n] or NULL
  const void* addend;     // as c, of its dtype and row strides, or NULL
  void* c;                // [batch, m, n]; read only when beta is not 0 and there is no addend
  int64_t lda, ldb, ldc;  // row strides of the stored matrices
  int64_t stride_a, stride_b, stride_c;  // from one matrix of the batch to the next; 0: one for all
  bool trans_a, trans_b;
  float alpha, beta;  // beta: of c, or 1 for an addend
};

struct Matrix {
  int64_t batch, rows, cols, ld, stride;
};

inline Matrix read_matrix(const gsa_tensor& t, const char* name) {
  if (t.ndim != 2 && t.ndim != 3)
    fail(GSA_INVALID_ARGUMENT, "Expected 2 or 3 dimensions for %s but received %s", name,
         shape_text(t).c_str());
  const int32_t d = t.ndim - 2;
  const int64_t rows = t.shape[d], cols = t.shape[d + 1];
  // Rows may be apart (a column slice of a wider matrix), elements of a row may not.
  if (cols > 1 && t.strides[d + 1] != 1)
    fail(GSA_INVALID_ARGUMENT, "Expected contiguous rows for %s but received a stride of %lld; copy it first",
         name, static_cast<long long>(t.strides[d + 1]));
  const int64_t ld = rows > 1 ? t.strides[d] : cols;
  if (ld < cols)
    fail(GSA_INVALID_ARGUMENT, "Expected rows that do not overlap for %s but received a row stride of %lld",
         name, static_cast<long long>(ld));
  return {t.ndim == 3 ? t.shape[0] : 1, rows, cols, ld > 0 ? ld : 1, t.ndim == 3 ? t.strides[0] : 0};
}

inline Matmul read_matmul(const Args& args) {
  const gsa_tensor &a = args.in(0), &b = args.in(1), &c = args.out(0);
  const gsa_tensor *bias = args.in_optional(2), *addend = args.in_optional(3);
  expect_floating(a, "a");
  expect_dtype(b, a.dtype, "b");
  if (c.dtype != GSA_FLOAT32) expect_dtype(c, a.dtype, "c");
  const Matrix ma = read_matrix(a, "a"), mb = read_matrix(b, "b");
  const bool trans_a = args.attr(0) != 0, trans_b = args.attr(1) != 0;
  const int64_t m = trans_a ? ma.cols : ma.rows, k = trans_a ? ma.rows : ma.cols;
  const int64_t kb = trans_b ? mb.cols : mb.rows, n = trans_b ? mb.rows : mb.cols;
  if (k != kb)
    fail(GSA_INVALID_ARGUMENT, "Expected equal inner extents but received %lld of a %s%s and %lld of b %s%s",
         static_cast<long long>(k), shape_text(a).c_str(), trans_a ? " transposed" : "",
         static_cast<long long>(kb), shape_text(b).c_str(), trans_b ? " transposed" : "");
  if (b.ndim == 3 && (a.ndim != 3 || mb.batch != ma.batch))
    fail(GSA_INVALID_ARGUMENT, "Expected one matrix or a batch of %lld for b but received %s",
         static_cast<long long>(ma.batch), shape_text(b).c_str());
  if (a.ndim == 3)
    expect_shape(c, {ma.batch, m, n}, "c");
  else
    expect_shape(c, {m, n}, "c");
  const Matrix mc = read_matrix(c, "c");
  if (bias) expect_dense(*bias, a.dtype, {n}, "bias");
  if (addend) expect_addend(*addend, c, args.attr(3));
  Matmul p{ma.batch,
           m,
           n,
           k,
           a.dtype,
           c.dtype,
           a.data,
           b.data,
           bias ? bias->data : nullptr,
           addend ? addend->data : nullptr,
           c.data,
           ma.ld,
           mb.ld,
           mc.ld,
           ma.stride,
           mb.stride,
           mc.stride,
           trans_a,
           trans_b,
           static_cast<float>(args.attr(2)),
           addend ? 1.0f : static_cast<float>(args.attr(3))};
  // Matrices that follow each other without a gap, times one matrix, are one tall matrix times it.
  if (!trans_a && p.batch > 1 && b.ndim == 2 && ma.stride == ma.rows * ma.ld &&
      mc.stride == mc.rows * mc.ld) {
    p.m *= p.batch;
    p.batch = 1;
    p.stride_a = p.stride_b = p.stride_c = 0;
  }
  return p;
}

}  // namespace gsa::product
