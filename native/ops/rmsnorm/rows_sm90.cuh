// RMSNorm of rows that are whole 16-byte vectors, at the speed of memory: every value is read once and
// written once. Forward, a row is one block's, and its values stay in registers. Backward, a block walks over
// rows, which come to it through shared memory (row_ring_sm90.cuh), and keeps the sums for dweight of its
// columns in registers, so that dy and h are not read again for them.
#pragma once

#include "../../cuda/kernel.cuh"
#include "../../cuda/launch.cuh"
#include "params.h"
#include "row_ring_sm90.cuh"

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
  __shared__ float sums[kThreads / kWarp];
  constexpr int N = kLanes<T>;
  const int64_t per_row = p.D / N, row = static_cast<int64_t>(blockIdx.x) * per_row;
  const auto* x = static_cast<const Vector<T>*>(p.x) + row;
  const auto* residual = static_cast<const Vector<T>*>(p.residual) + row;
  Vector<T> kept[kVectors], added[kVectors];
  for_vectors<kVectors, kThreads>(per_row, [&](int i, int64_t at) {
    kept[i] = x[at];
    if (p.residual) added[i] = residual[at];
  });
  float squares = 0, a[kVectors][N];
  for_vectors<kVectors, kThreads>(per_row, [&](int i, int64_t at) {
    // The residual stream is stored rounded, and what is normalised is what is stored.
    if (p.residual)
#pragma unroll
      for (int e = 0; e < N; ++e)
        kept[i].x[e] = from_float<T>(to_float(kept[i].x[e]) + to_float(added[i].x[e]));
    if (p.h) (static_cast<Vector<T>*>(p.h) + row)[at] = kept[i];
#pragma unroll
    for (int e = 0; e < N; ++e) {
      const float h = to_float(kept[i].x[e]);
      a[i][e] = kSilu ? h * sigmoid_for<T>(h) : h;
      squares += a[i][e] * a[i][e];
    }
  });
  const float rstd = rsqrtf(block_sum_once<kThreads>(squares, sums) / static_cast<float>(p.D) + p.eps);
  if (threadIdx.x == 0) p.rstd[blockIdx.x] = rstd;
  float largest = 0;
  for_vectors<kVectors, kThreads>(per_row, [&](int i, int64_t at) {
    Vector<T> y;
    float w[N];
    read_weights<T>(p.weight, at, w);
#pragma unroll
    for (int e = 0; e < N; ++e) {
      y.x[e] = from_float<T>(a[i][e] * rstd * w[e]);
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
  __shared__ float sums[2][kThreads / kWarp];
  __shared__ uint64_t full[kAhead];
  constexpr int N = kLanes<T>;
  const int64_t per_row = p.D / N;
  RowRing<T, 3> ring{{p.dy, p.h, p.dh}, p.R, static_cast<int>(p.D * sizeof(T)), full, sm90::block_memory()};
  ring.start();
  float w[kVectors][N], dweight[kVectors][N] = {}, largest = 0;
  for_vectors<kVectors, kThreads>(per_row, [&](int i, int64_t at) { read_weights<T>(p.weight, at, w[i]); });
  float rstd = ring.row < p.R ? p.rstd[ring.row] : 0;
  for (int turn = 0; ring.row < p.R; turn ^= 1) {
    const int64_t r = ring.row;
    Vector<T> dy[kVectors], h[kVectors], dh[kVectors];
    float dot = 0, sg[kVectors][N];
    ring.arrived();
    for_vectors<kVectors, kThreads>(per_row, [&](int i, int64_t at) {
      dy[i] = ring.read(0, at);
      h[i] = ring.read(1, at);
      if (p.dh) dh[i] = ring.read(2, at);
#pragma unroll
      for (int e = 0; e < N; ++e) {
        const float v = to_float(h[i].x[e]);
        sg[i][e] = kSilu ? sigmoid_for<T>(v) : 1.0f;
        const float g = to_float(dy[i].x[e]) * (v * sg[i][e] * rstd);
        dweight[i][e] += g;
        dot += g * w[i][e];
      }
    });
    const float mean = block_sum_once<kThreads>(dot, sums[turn]) / static_cast<float>(p.D);
    ring.next();
    const float rstd_next = ring.row < p.R ? p.rstd[ring.row] : 0;
    for_vectors<kVectors, kThreads>(per_row, [&](int i, int64_t at) {
      Vector<T> dx;
#pragma unroll
      for (int e = 0; e < N; ++e) {
        const float v = to_float(h[i].x[e]), u = to_float(dy[i].x[e]) * w[i][e];
        const float da = rstd * (u - v * sg[i][e] * rstd * mean);
        dx.x[e] = from_float<T>((kSilu ? da * silu_slope_of(v, sg[i][e]) : da) +
                                (p.dh ? to_float(dh[i].x[e]) : 0.0f));
        largest = fmaxf(largest, fabsf(to_float(dx.x[e])));
      }
      static_cast<Vector<T>*>(p.dx)[r * per_row + at] = dx;
    });
    rstd = rstd_next;
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
  const int column = threadIdx.x % kColumns, group = threadIdx.x / kColumns;
  const int64_t d = blockIdx.x * static_cast<int64_t>(kColumns) + column;
  float sum = 0;
  if (d < D)
    for (int64_t part = group; part < parts; part += kGroups) sum += partial[part * D + d];
  sums[group][column] = sum;
  __syncthreads();
  if (group != 0 || d >= D) return;
  for (int other = 1; other < kGroups; ++other) sum += sums[other][column];
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
  with_threads<T>(p.D, [&](auto vectors, auto threads) {
    constexpr int kVectors = decltype(vectors)::value, kThreads = decltype(threads)::value;
    const auto kernel =
        p.silu ? forward_kernel<T, kVectors, kThreads, true> : forward_kernel<T, kVectors, kThreads, false>;
    launch_blocks(device, kernel, p.R, kThreads, 0, p);
  });
  return true;
}

template <typename T>
bool backward(gsa_device& device, const norm::RmsNormBwd& p) {
  if (!takes<T>(p.D, {p.dy, p.dh, p.h, p.weight, p.dx})) return false;
  with_threads<T>(p.D, [&](auto vectors, auto threads) {
    constexpr int kVectors = decltype(vectors)::value, kThreads = decltype(threads)::value;
    const int64_t parts =
        std::min<int64_t>(p.R, device.multiprocessors * kBackwardBlocks<kVectors, kThreads>);
    const Scratch partial(device, p.dweight ? static_cast<uint64_t>(parts * p.D) * sizeof(float) : 0);
    const auto kernel =
        p.silu ? backward_kernel<T, kVectors, kThreads, true> : backward_kernel<T, kVectors, kThreads, false>;
    launch_blocks(device, kernel, parts, kThreads, RowRing<T, 3>::shared_bytes(p.D), p, partial.as<float>());
    if (!p.dweight) return;
    launch_blocks(device, add_parts_kernel, (p.D + kColumns - 1) / kColumns, kColumns * kGroups, 0,
                  partial.as<float>(), p.dweight, p.D, parts);
  });
  return true;
}

}  // namespace norm_rows

}  // namespace gsa::cuda
