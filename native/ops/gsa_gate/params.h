// Arguments of the gate ops, shared by every backend. All tensors are float32 of one shape, any number of
// dimensions.
#pragma once

#include <cmath>
#include <cstdint>

#include "../../abi/args.h"

namespace gsa::gate {

struct GateFwd {
  int64_t n;       // elements
  const float* f;  // gate projection
  float* g;        // logsigmoid(f) / normalizer: the log forget gate
  float* s;        // 1 - exp(g): the write strength
  float normalizer;
};

struct GateBwd {
  int64_t n;
  const float *dg, *ds, *f;
  float* df;  // may be the memory of dg, ds or f
  float normalizer;
};

inline float* read_like(const gsa_tensor& t, const gsa_tensor& f, const char* name) {
  expect_dtype(t, GSA_FLOAT32, name);
  bool same = t.ndim == f.ndim;
  for (int32_t i = 0; same && i < t.ndim; ++i) same = t.shape[i] == f.shape[i];
  if (!same)
    fail(GSA_INVALID_ARGUMENT, "Expected shape %s for %s but received %s", shape_text(f).c_str(), name,
         shape_text(t).c_str());
  expect_contiguous(t, name);
  return static_cast<float*>(t.data);
}

inline float read_normalizer(const Args& args) {
  const double normalizer = args.attr(0);
  if (!(std::isfinite(normalizer) && normalizer > 0.0))
    fail(GSA_INVALID_ARGUMENT, "Expected a positive finite number for normalizer but received %g",
         normalizer);
  return static_cast<float>(normalizer);
}

// gsa_gate_fwd: f -> g s, normalizer
inline GateFwd read_gate_fwd(const Args& args) {
  const gsa_tensor& f = args.in(0);
  return {element_count(f), read_like(f, f, "f"), read_like(args.out(0), f, "g"),
          read_like(args.out(1), f, "s"), read_normalizer(args)};
}

// gsa_gate_bwd: dg ds f -> df, normalizer
inline GateBwd read_gate_bwd(const Args& args) {
  const gsa_tensor& f = args.in(2);
  return {element_count(f),     read_like(args.in(0), f, "dg"),  read_like(args.in(1), f, "ds"),
          read_like(f, f, "f"), read_like(args.out(0), f, "df"), read_normalizer(args)};
}

}  // namespace gsa::gate
