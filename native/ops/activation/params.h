// Arguments of the activation ops, shared by every backend. All tensors of an op have one shape and one
// dtype, float32 or bfloat16; outputs may be the memory of inputs. The rows of a matrix may be apart, as
// those of the halves of a joined projection are.
#pragma once

#include <cstdint>

#include "../../abi/args.h"

namespace gsa::activation {

struct Activation {
  int64_t rows, columns;  // one row of everything where all tensors are contiguous
  int32_t dtype;
  const void* in[3];  // in ops.def order
  void* out[2];
  int64_t in_stride[3];  // from row to row, in elements
  int64_t out_stride[2];
  float* absmax;  // of the outputs; NULL: not wanted
};

// From row to row of a tensor that is contiguous, or a matrix whose rows are.
inline int64_t read_row_stride(const gsa_tensor& t, const char* name) {
  const bool matrix = t.ndim == 2 && (t.shape[1] == 1 || t.strides[1] == 1) && t.strides[0] >= t.shape[1];
  if (!matrix) expect_contiguous(t, name);
  return matrix ? t.strides[0] : 0;
}

// silu_fwd: x -> y; silu_bwd: dy x -> dx; swiglu_fwd: gate up -> y absmax?; swiglu_bwd: dy gate up -> dgate
// dup absmax?
inline Activation read_activation(const Args& args, const char* const* names, int outputs) {
  const gsa_tensor& like = args.in(0);
  expect_floating(like, names[0]);
  Activation p{1, element_count(like), like.dtype, {}, {}, {}, {}, nullptr};
  if (outputs < args.n_out()) p.absmax = read_absmax(args.out_optional(outputs));
  bool dense = true;
  const auto read = [&](const gsa_tensor& t, const char* name, int64_t& stride) {
    expect_dtype(t, like.dtype, name);
    expect_same_shape(t, like, name);
    stride = read_row_stride(t, name);
    dense = dense && is_contiguous(t);
    return t.data;
  };
  for (int i = 0; i < args.n_in(); ++i) p.in[i] = read(args.in(i), names[i], p.in_stride[i]);
  for (int i = 0; i < outputs; ++i) p.out[i] = read(args.out(i), names[args.n_in() + i], p.out_stride[i]);
  if (dense) return p;
  p.rows = like.shape[0];
  p.columns = like.shape[1];
  return p;
}

constexpr const char* kSiluFwd[] = {"x", "y"};
constexpr const char* kSiluBwd[] = {"dy", "x", "dx"};
constexpr const char* kSwigluFwd[] = {"gate", "up", "y"};
constexpr const char* kSwigluBwd[] = {"dy", "gate", "up", "dgate", "dup"};

}  // namespace gsa::activation
