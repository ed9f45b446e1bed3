#include "../../cuda/kernel.cuh"
#include "../../cuda/launch.cuh"
#include "params.h"

namespace gsa::cuda {

namespace {

using rotation::Rotary;

constexpr int kThreads = 256;

struct Turn {
  float cosine, sine;
};

__device__ inline Turn turn(const Rotary& p, int64_t t, int64_t i) {
  const double turns = static_cast<double>(p.offset + t) * pow(p.theta, -2.0 * static_cast<double>(i) / p.D);
  double sine, cosine;
  sincos(p.inverse ? -turns : turns, &sine, &cosine);
  return {static_cast<float>(cosine), static_cast<float>(sine)};
}

// Any shape: one block a (batch, position), one thread a pair of channels in all of its heads.
template <typename T>
__global__ void __launch_bounds__(kThreads) rotary_kernel(Rotary p) {
  const int64_t half = p.D / 2, t = blockIdx.x % p.T;
  const T* x = static_cast<const T*>(p.x) + blockIdx.x * p.H * p.D;
  T* y = static_cast<T*>(p.y) + blockIdx.x * p.H * p.D;
  for (int64_t i = threadIdx.x; i < half; i += kThreads) {
    const Turn by = turn(p, t, i);
#pragma unroll 1
    for (int64_t h = 0; h < p.H; ++h) {
      const float a = to_float(x[h * p.D + i]), b = to_float(x[h * p.D + i + half]);
      y[h * p.D + i] = from_float<T>(a * by.cosine - b * by.sine);
      y[h * p.D + i + half] = from_float<T>(b * by.cosine + a * by.sine);
    }
  }
}

constexpr int kMostHalf = 256;  // angles that a block keeps
constexpr int kAhead = 2;       // items that a thread has under way

// Heads whose halves are whole 16 bytes. The heads of one position, of all sequences, are its items, 16 bytes
// of either half each; `parts` blocks share a position. The first loads are under way while the angles, in
// double, are computed.
template <typename T>
__global__ void __launch_bounds__(kThreads) rotary_wide_kernel(Rotary p, int parts) {
  constexpr int N = 16 / sizeof(T);
  using Wide = Pack<T, N>;
  __shared__ float cosine[kMostHalf], sine[kMostHalf];
  const int64_t t = blockIdx.x / parts;
  const int half = static_cast<int>(p.D / 2), groups = half / N, H = static_cast<int>(p.H);
  const int items = static_cast<int>(p.B) * H * groups, step = parts * kThreads * kAhead;
  const T* x = static_cast<const T*>(p.x);
  T* y = static_cast<T*>(p.y);
  const auto place = [&](int item) {
    const int row = item / groups;
    return ((row / H * p.T + t) * H + row % H) * p.D + item % groups * N;
  };
  Wide low[kAhead], high[kAhead];
  const auto load = [&](int first) {
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      const int item = first + k * kThreads;
      if (item >= items) break;
      const T* from = x + place(item);
      low[k] = *reinterpret_cast<const Wide*>(from);
      high[k] = *reinterpret_cast<const Wide*>(from + half);
    }
  };
  int first = static_cast<int>(blockIdx.x % parts) * kThreads * kAhead + static_cast<int>(threadIdx.x);
  load(first);
  for (int i = threadIdx.x; i < half; i += kThreads) {
    const Turn by = turn(p, t, i);
    cosine[i] = by.cosine;
    sine[i] = by.sine;
  }
  __syncthreads();
  for (; first < items; first += step, load(first)) {
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      const int item = first + k * kThreads;
      if (item >= items) break;
      const int i = item % groups * N;
      Wide to_low, to_high;
#pragma unroll
      for (int e = 0; e < N; ++e) {
        const float a = to_float(low[k].x[e]), b = to_float(high[k].x[e]);
        to_low.x[e] = from_float<T>(a * cosine[i + e] - b * sine[i + e]);
        to_high.x[e] = from_float<T>(b * cosine[i + e] + a * sine[i + e]);
      }
      T* to = y + place(item);
      *reinterpret_cast<Wide*>(to) = to_low;
      *reinterpret_cast<Wide*>(to + half) = to_high;
    }
  }
}

// Blocks that fill the device a few times over, where a position alone has so many items.
constexpr int64_t kBlocksPerProcessor = 8;

bool wide(const Rotary& p, int64_t channels) {
  const int64_t half = p.D / 2;
  return half % channels == 0 && half <= kMostHalf && p.B * p.H * half < INT32_MAX / 2 && aligned({p.x, p.y});
}

}  // namespace

void rotary(gsa_device& device, const Args& args) {
  const Rotary p = rotation::read_rotary(args);
  if (p.B * p.T == 0 || p.H * p.D == 0) return;
  with_float_type(p.dtype, "x", [&](auto type) {
    using T = decltype(type);
    constexpr int64_t N = 16 / sizeof(T);
    if (!wide(p, N)) return launch_blocks(device, rotary_kernel<T>, p.B * p.T, kThreads, 0, p);
    const int64_t a_block = kThreads * kAhead, most = (p.B * p.H * p.D / 2 / N + a_block - 1) / a_block;
    const int64_t wanted = (device.multiprocessors * kBlocksPerProcessor + p.T - 1) / p.T;
    const int parts = static_cast<int>(std::clamp<int64_t>(wanted, 1, most));
    launch_blocks(device, rotary_wide_kernel<T>, p.T * parts, kThreads, 0, p, parts);
  });
}

}  // namespace gsa::cuda
