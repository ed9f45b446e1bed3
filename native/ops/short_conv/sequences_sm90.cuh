// What the kernels of the short convolution read their inputs by: where the sequence of a row lies, and what
// is before it.
#pragma once

#include "../../cuda/kernel.cuh"
#include "../../sm90/math.cuh"
#include "params.h"

namespace gsa::sm90 {

using convolution::Dims;
using convolution::Inputs;
using convolution::ShortConvBwd;
using convolution::ShortConvFwd;
using cuda::from_float;
using cuda::to_float;

struct Sequence {
  int64_t n, begin, end;  // its number, and its rows
};

__device__ inline Sequence sequence(const Dims& d, const int32_t* cu_seqlens, int64_t n) {
  if (cu_seqlens) return {n, cu_seqlens[n], cu_seqlens[n + 1]};
  return {n, n * d.T, (n + 1) * d.T};
}

// The sequence of a row.
__device__ inline Sequence sequence_of(const Dims& d, const int32_t* cu_seqlens, int64_t row) {
  if (!cu_seqlens) return sequence(d, cu_seqlens, row / d.T);
  int64_t low = 0, high = d.N;  // the last that starts at or before row
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    if (cu_seqlens[middle] <= row)
      low = middle;
    else
      high = middle;
  }
  return sequence(d, cu_seqlens, low);
}

// Input of channel c at `offset` from the start of the sequence; negative: from its state.
template <typename T>
__device__ __forceinline__ float input(const Dims& d, const Inputs<T>& in, const Sequence& at, int64_t offset,
                                       int64_t c) {
  if (offset >= 0) return to_float(in.x[(at.begin + offset) * d.D + c]);
  return in.state ? to_float(in.state[(at.n * d.D + c) * (d.W - 1) + d.W - 1 + offset]) : 0.0f;
}

// z of channel c at `offset`, before the activation.
template <typename T>
__device__ inline float sum_of_taps(const Dims& d, const Inputs<T>& in, const Sequence& at, int64_t offset,
                                    int64_t c) {
  float z = 0;
  for (int64_t j = 0; j < d.W; ++j)
    z += to_float(in.weight[c * d.W + j]) * input(d, in, at, offset - (d.W - 1) + j, c);
  return z;
}

// For bfloat16 of 4 instructions: the kernels have few more to spend on an element than memory takes.
template <typename T>
__device__ __forceinline__ float sigmoid(float z) {
  if constexpr (sizeof(T) == 2) return reciprocal_approx(1.0f + exp2_approx(z * -1.4426950408889634f));
  return cuda::sigmoid_for<T>(z);
}
template <typename T>
__device__ __forceinline__ float activated(float z, bool silu) {
  return silu ? z * sigmoid<T>(z) : z;
}
// dz from dy
template <typename T>
__device__ __forceinline__ float through_activation(float dy, float z, bool silu) {
  return silu ? dy * cuda::silu_slope_of(z, sigmoid<T>(z)) : dy;
}

}  // namespace gsa::sm90
