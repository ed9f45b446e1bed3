// Arguments of the gate ops, shared by every backend. All tensors have one shape, of any number of
// dimensions. g, s and their gradients are float32; f and its gradient are of one dtype, float32 or bfloat16.
#pragma once

#include <cstdint>

#include "../../abi/args.h"

namespace gsa::gate {

struct GateFwd {
  int64_t n;      // elements
  int32_t dtype;  // of f
  const void* f;  // gate projection
  float* g;       // logsigmoid(f) / normalizer: the log forget gate
  float* s;       // 1 - exp(g): the write strength
  float normalizer;
};

struct GateBwd {
  int64_t n;
  int32_t dtype;  // of f and df
  const float *dg, *ds;
  const void* f;
  void* df;  // may be the memory of f, or of dg or ds where the dtypes agree
  float normalizer;
};

inline int32_t read_dtype(const gsa_tensor& f) {
  expect_floating(f, "f");
  return f.dtype;
}

inline void* read_like(const gsa_tensor& t, const gsa_tensor& f, int32_t dtype, const char* name) {
  expect_dtype(t, dtype, name);
  expect_same_shape(t, f, name);
  expect_contiguous(t, name);
  return t.data;
}

inline float* read_wide(const gsa_tensor& t, const gsa_tensor& f, const char* name) {
  return static_cast<float*>(read_like(t, f, GSA_FLOAT32, name));
}

// gsa_gate_fwd: f -> g s, normalizer
inline GateFwd read_gate_fwd(const Args& args) {
  const gsa_tensor& f = args.in(0);
  const int32_t dtype = read_dtype(f);
  return {element_count(f),
          dtype,
          read_like(f, f, dtype, "f"),
          read_wide(args.out(0), f, "g"),
          read_wide(args.out(1), f, "s"),
          read_normalizer(args, 0)};
}

// gsa_gate_bwd: dg ds f -> df, normalizer
inline GateBwd read_gate_bwd(const Args& args) {
  const gsa_tensor& f = args.in(2);
  const int32_t dtype = read_dtype(f);
  return {element_count(f),
          dtype,
          read_wide(args.in(0), f, "dg"),
          read_wide(args.in(1), f, "ds"),
          read_like(f, f, dtype, "f"),
          read_like(args.out(0), f, dtype, "df"),
          read_normalizer(args, 0)};
}

}  // namespace gsa::gate
