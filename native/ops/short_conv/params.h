// Arguments of the causal short convolution, shared by every backend:
//   z_t = sum over j < W of weight[:, j] * x_{t - (W - 1) + j};  y = silu(z) or z
// along T, separately for each channel and sequence. Inputs before a sequence come from its state, zeros
// without one. All tensors have one dtype, T here: float32, or on CUDA bfloat16 (computed in float32).
#pragma once

#include <cstdint>

#include "../../abi/args.h"

namespace gsa::convolution {

constexpr int64_t kMaxWidth = 32;

struct Dims {
  int64_t B, T, D;  // with cu_seqlens B = 1 and T counts the tokens of all sequences
  int64_t W;        // taps
  int64_t N;        // sequences: B, or cu_seqlens' length - 1
};

template <typename T>
struct Inputs {
  const T* x;                 // [B, T, D]
  const T* weight;            // [D, W], the last tap meets the newest input
  const T* state;             // [N, D, W - 1] the last inputs before each sequence, oldest first; NULL: zeros
  const int32_t* cu_seqlens;  // [N + 1] or NULL
  bool silu;
};

template <typename T>
struct ShortConvFwd {
  Dims dims;
  Inputs<T> in;
  T* y;          // [B, T, D]
  T* state_out;  // [N, D, W - 1]; NULL: not wanted; may be the memory of state
};

template <typename T>
struct ShortConvBwd {
  Dims dims;
  Inputs<T> in;
  const T* dy;          // [B, T, D]
  const T* dstate_out;  // [N, D, W - 1] or NULL
  T* dx;                // [B, T, D]
  T* dweight;           // [D, W]
  T* dstate;            // [N, D, W - 1]; NULL: not wanted
};

inline Dims read_dims(const gsa_tensor& x, const gsa_tensor& weight, const gsa_tensor* cu_seqlens) {
  expect_ndim(x, 3, "x");
  expect_ndim(weight, 2, "weight");
  Dims d{x.shape[0], x.shape[1], x.shape[2], weight.shape[1], x.shape[0]};
  if (d.W < 1 || d.W > kMaxWidth)
    fail(GSA_UNSUPPORTED, "Expected 1 to %lld taps for weight but received %s",
         static_cast<long long>(kMaxWidth), shape_text(weight).c_str());
  if (!cu_seqlens) return d;
  if (d.B != 1)
    fail(GSA_INVALID_ARGUMENT, "Expected batch size 1 for x with cu_seqlens but received %s",
         shape_text(x).c_str());
  expect_ndim(*cu_seqlens, 1, "cu_seqlens");
  if (cu_seqlens->shape[0] < 1)
    fail(GSA_INVALID_ARGUMENT, "Expected at least one boundary for cu_seqlens but received none");
  d.N = cu_seqlens->shape[0] - 1;
  return d;
}

// Tensors of one call, whose elements are T.
template <typename T>
struct Reader {
  int32_t dtype;

  T* dense(const gsa_tensor* t, std::initializer_list<int64_t> shape, const char* name) const {
    if (t) expect_dense(*t, dtype, shape, name);
    return data_or_null<T>(t);
  }
  Inputs<T> inputs(const Dims& d, const gsa_tensor& x, const gsa_tensor& weight, const gsa_tensor* state,
                   const gsa_tensor* cu_seqlens, bool silu) const {
    if (cu_seqlens) expect_dense(*cu_seqlens, GSA_INT32, {d.N + 1}, "cu_seqlens");
    return {dense(&x, {d.B, d.T, d.D}, "x"), dense(&weight, {d.D, d.W}, "weight"),
            dense(state, {d.N, d.D, d.W - 1}, "state"), data_or_null<int32_t>(cu_seqlens), silu};
  }
};

// short_conv_fwd: x weight state? cu_seqlens? -> y state_out?, silu
template <typename T>
ShortConvFwd<T> read_short_conv_fwd(const Args& args, int32_t dtype) {
  const Reader<T> read{dtype};
  const Dims d = read_dims(args.in(0), args.in(1), args.in_optional(3));
  const bool silu = args.attr(0) != 0;
  return {d, read.inputs(d, args.in(0), args.in(1), args.in_optional(2), args.in_optional(3), silu),
          read.dense(&args.out(0), {d.B, d.T, d.D}, "y"),
          read.dense(args.out_optional(1), {d.N, d.D, d.W - 1}, "state_out")};
}

// short_conv_bwd: dy x weight state? cu_seqlens? dstate_out? -> dx dweight dstate?, silu
template <typename T>
ShortConvBwd<T> read_short_conv_bwd(const Args& args, int32_t dtype) {
  const Reader<T> read{dtype};
  const Dims d = read_dims(args.in(1), args.in(2), args.in_optional(4));
  const bool silu = args.attr(0) != 0;
  return {d,
          read.inputs(d, args.in(1), args.in(2), args.in_optional(3), args.in_optional(4), silu),
          read.dense(&args.in(0), {d.B, d.T, d.D}, "dy"),
          read.dense(args.in_optional(5), {d.N, d.D, d.W - 1}, "dstate_out"),
          read.dense(&args.out(0), {d.B, d.T, d.D}, "dx"),
          read.dense(&args.out(1), {d.D, d.W}, "dweight"),
          read.dense(args.out_optional(2), {d.N, d.D, d.W - 1}, "dstate")};
}

}  // namespace gsa::convolution
