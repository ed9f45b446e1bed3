// RMSNorm of rows that are whole 16-byte vectors, at the speed of memory: every value is read once and
// written once. A row is one block's, its values stay in registers. Backward, a block walks over rows and
// keeps the sums for dweight of its columns in registers, so that dy and h are not read again for them.
#pragma once

#include "../../cuda/kernel.cuh"
#include "params.h"

namespace gsa::cuda {

__device__ __forceinline__ float activated(float h, bool silu) { return silu ? h * sigmoid(h) : h; }

__device__ __forceinline__ float slope(float h, bool silu) {
  return silu ? silu_slope_of(h, sigmoid(h)) : 1.0f;
}

namespace norm_rows {

constexpr int kMostThreads = 512;  // with two vectors each: rows up to 8192 (bfloat16) or 4096 (float32) wide
constexpr int kMostVectors = 2;    // of a thread; one where kMostThreads suffice
constexpr int kColumns = 32;       // of one block that adds partial sums
constexpr int kGroups = 32;        // parts that are added side by side there

// Blocks of the backward on a multiprocessor: 1,024 threads of 64 registers, or 512 of 128.
template <int kVectors, int kThreads>
constexpr int kBackwardBlocks = 1024 / kVectors / kThreads;

template <typename T>
constexpr int kLanes = 16 / sizeof(T);
template <typename T>
using Vector = Pack<T, kLanes<T>>;

// Vector i of a thread is column vector threadIdx.x + i * kThreads of the row; past the row there is none.
template <int kVectors, int kThreads, typename Body>
__device__ __forceinline__ void for_vectors(int64_t per_row, Body&& body) {
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    const int64_t at = threadIdx.x + static_cast<int64_t>(i) * kThreads;
    if (at < per_row) body(i, at);
  }
}

// The weights of column vector `at` of a row of T; ones without a weight.
template <typename T>
__device__ __forceinline__ void read_weights(const float* weight, int64_t at, float (&w)[kLanes<T>]) {
  constexpr int kParts = kLanes<T> / 4;
#pragma unroll
  for (int part = 0; part < kParts; ++part) {
    Pack<float, 4> four = {1, 1, 1, 1};
    if (weight) four = reinterpret_cast<const Pack<float, 4>*>(weight)[at * kParts + part];
#pragma unroll
    for (int e = 0; e < 4; ++e) w[part * 4 + e] = four.x[e];
  }
}

template <typename T, int kVectors, int kThreads, bool kSilu>
__global__ void __launch_bounds__(kThreads) forward_kernel(norm::RmsNormFwd p) {
  __shared__ float shared[kThreads / kWarp];
  constexpr int N = kLanes<T>;
  const int64_t per_row = p.D / N, row = static_cast<int64_t>(blockIdx.x) * per_row;
  const auto* x = static_cast<const Vector<T>*>(p.x) + row;
  const auto* residual = static_cast<const Vector<T>*>(p.residual) + row;
  Vector<T> kept[kVectors], added[kVectors];
  for_vectors<kVectors, kThreads>(per_row, [&](int i, int64_t at) {
    kept[i] = x[at];
    if (p.residual) added[i] = residual[at];
  });
  float squares = 0;
  for_vectors<kVectors, kThreads>(per_row, [&](int i, int64_t at) {
    // The residual stream is stored rounded, and what is normalised is what is stored.
    if (p.residual)
#pragma unroll
      for (int e = 0; e < N; ++e)
        kept[i].x[e] = from_float<T>(to_float(kept[i].x[e]) + to_float(added[i].x[e]));
    if (p.h) (static_cast<Vector<T>*>(p.h) + row)[at] = kept[i];
#pragma unroll
    for (int e = 0; e < N; ++e) {
      const float h = to_float(kept[i].x[e]), a = kSilu ? h * sigmoid_for<T>(h) : h;
      squares += a * a;
    }
  });
  const float rstd = rsqrtf(block_sum<kThreads>(squares, shared) / static_cast<float>(p.D) + p.eps);
  if (threadIdx.x == 0) p.rstd[blockIdx.x] = rstd;
  float largest = 0;
  for_vectors<kVectors, kThreads>(per_row, [&](int i, int64_t at) {
    Vector<T> y;
    float w[N];
    read_weights<T>(p.weight, at, w);
#pragma unroll
    for (int e = 0; e < N; ++e) {
      const float h = to_float(kept[i].x[e]), a = kSilu ? h * sigmoid_for<T>(h) : h;
      y.x[e] = from_float<T>(a * rstd * w[e]);
      largest = fmaxf(largest, fabsf(to_float(y.x[e])));
    }
    (static_cast<Vector<T>*>(p.y) + row)[at] = y;
  });
  if (p.absmax) raise_absmax(p.absmax, largest);
}

// With n = a * rstd and u = dy * weight: da = rstd * (u - n * mean(u * n)), dx = da * act'(h) + dh.
template <typename T, int kVectors, int kThreads, bool kSilu>
__global__ void __launch_bounds__(kThreads, kBackwardBlocks<kVectors, kThreads>)
    backward_kernel(norm::RmsNormBwd p, float* partial) {
  __shared__ float shared[kThreads / kWarp];
  constexpr int N = kLanes<T>;
  const int64_t per_row = p.D / N;
  float w[kVectors][N], dweight[kVectors][N] = {}, largest = 0;
  for_vectors<kVectors, kThreads>(per_row, [&](int i, int64_t at) { read_weights<T>(p.weight, at, w[i]); });
  for (int64_t r = blockIdx.x; r < p.R; r += gridDim.x) {
    Vector<T> dy[kVectors], h[kVectors], dh[kVectors];
    for_vectors<kVectors, kThreads>(per_row, [&](int i, int64_t at) {
      dy[i] = static_cast<const Vector<T>*>(p.dy)[r * per_row + at];
      h[i] = static_cast<const Vector<T>*>(p.h)[r * per_row + at];
      if (p.dh) dh[i] = static_cast<const Vector<T>*>(p.dh)[r * per_row + at];
    });
    const float rstd = p.rstd[r];
    float dot = 0;
    for_vectors<kVectors, kThreads>(per_row, [&](int i, int64_t) {
#pragma unroll
      for (int e = 0; e < N; ++e) {
        const float v = to_float(h[i].x[e]), n = (kSilu ? v * sigmoid_for<T>(v) : v) * rstd;
        const float g = to_float(dy[i].x[e]) * n;
        dweight[i][e] += g;
        dot += g * w[i][e];
      }
    });
    const float mean = block_sum<kThreads>(dot, shared) / static_cast<float>(p.D);
    for_vectors<kVectors, kThreads>(per_row, [&](int i, int64_t at) {
      Vector<T> dx;
#pragma unroll
      for (int e = 0; e < N; ++e) {
        const float v = to_float(h[i].x[e]), sg = kSilu ? sigmoid_for<T>(v) : 1.0f;
        const float u = to_float(dy[i].x[e]) * w[i][e];
        const float da = rstd * (u - v * sg * rstd * mean);
        dx.x[e] =
            from_float<T>((kSilu ? da * silu_slope_of(v, sg) : da) + (p.dh ? to_float(dh[i].x[e]) : 0.0f));
        largest = fmaxf(largest, fabsf(to_float(dx.x[e])));
      }
      static_cast<Vector<T>*>(p.dx)[r * per_row + at] = dx;
    });
  }
  if (p.absmax) raise_absmax(p.absmax, largest);
  if (!partial) return;
  for_vectors<kVectors, kThreads>(per_row, [&](int i, int64_t at) {
    float* to = partial + blockIdx.x * p.D + at * N;
#pragma unroll
    for (int e = 0; e < N; ++e) to[e] = dweight[i][e];
  });
}

// y[d] = sum of partial[part, d], added in a fixed order: by groups of parts side by side, then the groups.
static __global__ void __launch_bounds__(kColumns* kGroups)
    add_parts_kernel(const float* __restrict__ partial, float* __restrict__ y, int64_t D, int64_t parts) {
  __shared__ float sums[kGroups][kColumns];
  const int64_t d = blockIdx.x * static_cast<int64_t>(kColumns) + threadIdx.x;
  float sum = 0;
  if (d < D)
    for (int64_t part = threadIdx.y; part < parts; part += kGroups) sum += partial[part * D + d];
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || d >= D) return;
  for (int group = 1; group < kGroups; ++group) sum += sums[group][threadIdx.x];
  y[d] = sum;
}

template <typename T>
bool takes(int64_t D, std::initializer_list<const void*> addresses) {
  if (D % kLanes<T> != 0 || D > kMostThreads * kMostVectors * kLanes<T>) return false;
  return aligned(addresses);
}

// body(vectors of a thread, threads), std::integral_constants, for a row.
template <typename T, typename Body>
void with_threads(int64_t D, Body&& body) {
  using One = std::integral_constant<int, 1>;
  const int64_t vectors = D / kLanes<T>;
  if (vectors <= 128) return body(One{}, std::integral_constant<int, 128>{});
  if (vectors <= 256) return body(One{}, std::integral_constant<int, 256>{});
  if (vectors <= kMostThreads) return body(One{}, std::integral_constant<int, kMostThreads>{});
  body(std::integral_constant<int, kMostVectors>{}, std::integral_constant<int, kMostThreads>{});
}

// False: not for these kernels, nothing was done.
template <typename T>
bool forward(gsa_device& device, const norm::RmsNormFwd& p) {
  if (!takes<T>(p.D, {p.x, p.residual, p.weight, p.y, p.h})) return false;
  const unsigned rows = static_cast<unsigned>(p.R);
  with_threads<T>(p.D, [&](auto vectors, auto threads) {
    constexpr int kVectors = decltype(vectors)::value, kThreads = decltype(threads)::value;
    const auto kernel =
        p.silu ? forward_kernel<T, kVectors, kThreads, true> : forward_kernel<T, kVectors, kThreads, false>;
    kernel<<<rows, kThreads, 0, device.stream>>>(p);
  });
  return true;
}

template <typename T>
bool backward(gsa_device& device, const norm::RmsNormBwd& p) {
  if (!takes<T>(p.D, {p.dy, p.dh, p.h, p.weight, p.dx})) return false;
  with_threads<T>(p.D, [&](auto vectors, auto threads) {
    constexpr int kVectors = decltype(vectors)::value, kThreads = decltype(threads)::value;
    const int64_t blocks = kBackwardBlocks<kVectors, kThreads>;
    const int64_t parts = std::min<int64_t>(p.R, device.multiprocessors * blocks);
    const Scratch partial(device, p.dweight ? static_cast<uint64_t>(parts * p.D) * sizeof(float) : 0);
    const auto kernel =
        p.silu ? backward_kernel<T, kVectors, kThreads, true> : backward_kernel<T, kVectors, kThreads, false>;
    kernel<<<static_cast<unsigned>(parts), kThreads, 0, device.stream>>>(p, partial.as<float>());
    if (!p.dweight) return;
    add_parts_kernel<<<static_cast<unsigned>((p.D + kColumns - 1) / kColumns), dim3(kColumns, kGroups), 0,
                       device.stream>>>(partial.as<float>(), p.dweight, p.D, parts);
  });
  return true;
}

}  // namespace norm_rows

}  // namespace gsa::cuda
