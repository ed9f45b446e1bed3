// Arguments of the causal short convolution, shared by every backend:
//   z_t = sum over j < W of weight[:, j] * x_{t - (W - 1) + j};  y = silu(z) or z
// along T, separately for each channel and sequence. Inputs before a sequence come from its state, zeros
// without one.
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

struct Inputs {
  const float* x;             // [B, T, D]
  const float* weight;        // [D, W], the last tap meets the newest input
  const float* state;         // [N, D, W - 1] the last inputs before each sequence, oldest first; NULL: zeros
  const int32_t* cu_seqlens;  // [N + 1] or NULL
  bool silu;
};

struct ShortConvFwd {
  Dims dims;
  Inputs in;
  float* y;          // [B, T, D]
  float* state_out;  // [N, D, W - 1]; NULL: not wanted; may be the memory of state
};

struct ShortConvBwd {
  Dims dims;
  Inputs in;
  const float* dy;          // [B, T, D]
  const float* dstate_out;  // [N, D, W - 1] or NULL
  float* dx;                // [B, T, D]
  float* dweight;           // [D, W]
  float* dstate;            // [N, D, W - 1]; NULL: not wanted
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

inline float* read_dense(const gsa_tensor* t, std::initializer_list<int64_t> shape, const char* name) {
  if (t) expect_dense(*t, GSA_FLOAT32, shape, name);
  return data_or_null<float>(t);
}

inline Inputs read_inputs(const Dims& d, const gsa_tensor& x, const gsa_tensor& weight,
                          const gsa_tensor* state, const gsa_tensor* cu_seqlens, bool silu) {
  if (cu_seqlens) expect_dense(*cu_seqlens, GSA_INT32, {d.N + 1}, "cu_seqlens");
  return {read_dense(&x, {d.B, d.T, d.D}, "x"), read_dense(&weight, {d.D, d.W}, "weight"),
          read_dense(state, {d.N, d.D, d.W - 1}, "state"), data_or_null<int32_t>(cu_seqlens), silu};
}

// short_conv_fwd: x weight state? cu_seqlens? -> y state_out?, silu
inline ShortConvFwd read_short_conv_fwd(const Args& args) {
  const Dims d = read_dims(args.in(0), args.in(1), args.in_optional(3));
  const bool silu = args.attr(0) != 0;
  return {d, read_inputs(d, args.in(0), args.in(1), args.in_optional(2), args.in_optional(3), silu),
          read_dense(&args.out(0), {d.B, d.T, d.D}, "y"),
          read_dense(args.out_optional(1), {d.N, d.D, d.W - 1}, "state_out")};
}

// short_conv_bwd: dy x weight state? cu_seqlens? dstate_out? -> dx dweight dstate?, silu
inline ShortConvBwd read_short_conv_bwd(const Args& args) {
  const Dims d = read_dims(args.in(1), args.in(2), args.in_optional(4));
  const bool silu = args.attr(0) != 0;
  return {d,
          read_inputs(d, args.in(1), args.in(2), args.in_optional(3), args.in_optional(4), silu),
          read_dense(&args.in(0), {d.B, d.T, d.D}, "dy"),
          read_dense(args.in_optional(5), {d.N, d.D, d.W - 1}, "dstate_out"),
          read_dense(&args.out(0), {d.B, d.T, d.D}, "dx"),
          read_dense(&args.out(1), {d.D, d.W}, "dweight"),
          read_dense(args.out_optional(2), {d.N, d.D, d.W - 1}, "dstate")};
}

}  // namespace gsa::convolution
