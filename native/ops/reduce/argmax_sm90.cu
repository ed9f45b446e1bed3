// The largest element of each row and its place on CUDA, one block a row.
#include "../../cuda/kernel.cuh"
#include "../../cuda/launch.cuh"
#include "params.h"

namespace gsa::cuda {

namespace {

constexpr int kThreads = 1024;

// Value and place as one integer: the larger value is the larger integer, of equal values (-0 is 0) the
// earlier, and NaN is above all.
__device__ __forceinline__ unsigned long long ranked(float x, int64_t place) {
  const uint32_t bits = __float_as_uint(x + 0.0f);
  const uint32_t rank = x != x ? ~0u : bits >> 31 ? ~bits : bits | 0x80000000u;
  return static_cast<unsigned long long>(rank) << 32 | ~static_cast<uint32_t>(place);
}

__device__ __forceinline__ void raise(unsigned long long& best, unsigned long long other) {
  best = other > best ? other : best;
}

// N elements at a time: 1 where rows do not lie on 16 bytes.
template <typename T, int N>
__global__ void __launch_bounds__(kThreads) argmax_kernel(reduction::ArgMax p) {
  __shared__ unsigned long long warps[kThreads / kWarp];
  const T* row = static_cast<const T*>(p.x) + blockIdx.x * p.C;
  unsigned long long best = 0;
#pragma unroll 4
  for (int64_t c = static_cast<int64_t>(threadIdx.x) * N; c < p.C; c += kThreads * N) {
    const Pack<T, N> pack = *reinterpret_cast<const Pack<T, N>*>(row + c);
#pragma unroll
    for (int e = 0; e < N; ++e) raise(best, ranked(to_float(pack.x[e]), c + e));
  }
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) raise(best, __shfl_xor_sync(~0u, best, offset));
  if (threadIdx.x % kWarp == 0) warps[threadIdx.x / kWarp] = best;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int warp = 0; warp < kThreads / kWarp; ++warp) raise(best, warps[warp]);
  const uint32_t place = ~static_cast<uint32_t>(best);
  p.index[blockIdx.x] = static_cast<int32_t>(place);
  p.value[blockIdx.x] = to_float(row[place]);
}

}  // namespace

void argmax(gsa_device& device, const Args& args) {
  const reduction::ArgMax p = reduction::read_argmax(args);
  if (p.R == 0) return;
  with_float_type(p.dtype, "x", [&](auto type) {
    using T = decltype(type);
    constexpr int N = 16 / sizeof(T);
    const bool wide = p.C % N == 0 && reinterpret_cast<uintptr_t>(p.x) % 16 == 0;
    launch_blocks(device, wide ? argmax_kernel<T, N> : argmax_kernel<T, 1>, p.R, kThreads, 0, p);
  });
}

}  // namespace gsa::cuda
