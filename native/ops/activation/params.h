// Arguments of the activation ops, shared by every backend. All tensors of an op have one shape and one
// dtype, float32 or bfloat16; outputs may be the memory of inputs.
#pragma once

#include <cstdint>

#include "../../abi/args.h"

namespace gsa::activation {

struct Activation {
  int64_t n;
  int32_t dtype;
  const void* in[3];  // in ops.def order
  void* out[2];
};

// silu_fwd: x -> y; silu_bwd: dy x -> dx; swiglu_fwd: gate up -> y; swiglu_bwd: dy gate up -> dgate dup
inline Activation read_activation(const Args& args, const char* const* names) {
  const gsa_tensor& like = args.in(0);
  expect_floating(like, names[0]);
  Activation p{element_count(like), like.dtype, {}, {}};
  const auto read = [&](const gsa_tensor& t, const char* name) {
    expect_dtype(t, like.dtype, name);
    expect_same_shape(t, like, name);
    expect_contiguous(t, name);
    return t.data;
  };
  for (int i = 0; i < args.n_in(); ++i) p.in[i] = read(args.in(i), names[i]);
  for (int i = 0; i < args.n_out(); ++i) p.out[i] = read(args.out(i), names[args.n_in() + i]);
  return p;
}

constexpr const char* kSiluFwd[] = {"x", "y"};
constexpr const char* kSiluBwd[] = {"dy", "x", "dx"};
constexpr const char* kSwigluFwd[] = {"gate", "up", "y"};
constexpr const char* kSwigluBwd[] = {"dy", "gate", "up", "dgate", "dup"};

}  // namespace gsa::activation
