// Arguments of the RMSNorm ops, shared by every backend: h = x + residual, a = silu(h) or h, rstd = 1 /
// sqrt(mean(a^2) + eps), y = a * rstd * weight, by rows: the last dimension of tensors of any number of them.
#pragma once

#include <cmath>
#include <cstdint>

#include "../../abi/args.h"

namespace gsa::norm {

struct RmsNormFwd {
  int64_t R, D;          // rows, width
  int32_t dtype;         // of the rows: float32 or bfloat16
  const void* x;         // [..., D]: R rows
  const void* residual;  // [R, D] or NULL
  const float* weight;   // [D] or NULL: ones
  void* y;               // [R, D]
  void* h;               // [R, D]; NULL: not wanted
  float* rstd;           // [R]
  float* absmax;         // of y; NULL: not wanted
  float eps;
  bool silu;
};

struct RmsNormBwd {
  int64_t R, D;
  int32_t dtype;
  const void* dy;       // [R, D]
  const void* dh;       // [R, D] gradient that reaches h from elsewhere, or NULL
  const void* h;        // [R, D] as the forward wrote it (x without a residual)
  const float* weight;  // [D] or NULL
  const float* rstd;    // [R]
  void* dx;             // [R, D] gradient of x and of residual
  float* dweight;       // [D]; NULL: not wanted
  float* absmax;        // of dx; NULL: not wanted
  bool silu;
};

inline int32_t read_dtype(const gsa_tensor& t, const char* name) {
  expect_floating(t, name);
  return t.dtype;
}

struct Rows {
  int64_t R, D;
};

inline Rows read_rows(const gsa_tensor& t, const char* name) {
  if (t.ndim < 1) fail(GSA_INVALID_ARGUMENT, "Expected at least 1 dimension for %s but received []", name);
  Rows rows{1, t.shape[t.ndim - 1]};
  for (int32_t i = 0; i + 1 < t.ndim; ++i) rows.R *= t.shape[i];
  return rows;
}

// A contiguous tensor of the shape and dtype of `like`, or NULL.
inline void* read_like(const gsa_tensor* t, const gsa_tensor& like, const char* name) {
  if (!t) return nullptr;
  expect_dtype(*t, like.dtype, name);
  expect_same_shape(*t, like, name);
  expect_contiguous(*t, name);
  return t->data;
}

// The weight or its gradient, or NULL. Float32 whatever the rows are: a weight is near 1, where bfloat16 has
// steps of 0.4% to 0.8%, larger than those of a training.
inline float* read_weight(const gsa_tensor* t, int64_t D, const char* name) {
  if (t) expect_dense(*t, GSA_FLOAT32, {D}, name);
  return data_or_null<float>(t);
}

// rmsnorm_fwd: x residual? weight? -> y h? rstd absmax?, eps silu
inline RmsNormFwd read_rmsnorm_fwd(const Args& args) {
  const gsa_tensor& x = args.in(0);
  RmsNormFwd p{};
  p.dtype = read_dtype(x, "x");
  p.R = read_rows(x, "x").R;
  p.D = read_rows(x, "x").D;
  const auto rows = [&](const gsa_tensor* t, const char* name) { return read_like(t, x, name); };
  p.x = rows(&x, "x");
  p.residual = rows(args.in_optional(1), "residual");
  p.weight = read_weight(args.in_optional(2), p.D, "weight");
  p.y = rows(&args.out(0), "y");
  p.h = rows(args.out_optional(1), "h");
  expect_dense(args.out(2), GSA_FLOAT32, {p.R}, "rstd");
  p.rstd = static_cast<float*>(args.out(2).data);
  p.absmax = read_absmax(args.out_optional(3));
  p.eps = static_cast<float>(args.attr(0));
  if (!(std::isfinite(p.eps) && p.eps >= 0))
    fail(GSA_INVALID_ARGUMENT, "Expected a finite number of at least 0 for eps but received %g",
         args.attr(0));
  p.silu = args.attr(1) != 0;
  return p;
}

// rmsnorm_bwd: dy dh? h weight? rstd -> dx dweight? absmax?, silu
inline RmsNormBwd read_rmsnorm_bwd(const Args& args) {
  const gsa_tensor& dy = args.in(0);
  RmsNormBwd p{};
  p.dtype = read_dtype(dy, "dy");
  p.R = read_rows(dy, "dy").R;
  p.D = read_rows(dy, "dy").D;
  const auto rows = [&](const gsa_tensor* t, const char* name) { return read_like(t, dy, name); };
  p.dy = rows(&dy, "dy");
  p.dh = rows(args.in_optional(1), "dh");
  p.h = rows(&args.in(2), "h");
  p.weight = read_weight(args.in_optional(3), p.D, "weight");
  expect_dense(args.in(4), GSA_FLOAT32, {p.R}, "rstd");
  p.rstd = static_cast<const float*>(args.in(4).data);
  p.dx = rows(&args.out(0), "dx");
  p.dweight = read_weight(args.out_optional(1), p.D, "dweight");
  p.absmax = read_absmax(args.out_optional(2));
  p.silu = args.attr(0) != 0;
  return p;
}

}  // namespace gsa::norm
