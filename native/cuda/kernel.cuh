// What the plain (memory-bound) kernels share: element access in float, vectors of 16 bytes, block sums in a
// fixed order.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "../abi/args.h"
#include "device.h"

namespace gsa::cuda {

constexpr int kWarp = 32;

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

template <typename T>
__device__ __forceinline__ T from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}

// N consecutive elements, moved as one access of up to 16 bytes.
template <typename T, int N>
struct alignas(sizeof(T) * N) Pack {
  T x[N];
};

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// For results that are rounded to T: in bfloat16 the hardware's own exponential and division (a relative
// error near 1e-6) do, and a kernel that is to keep up with memory has no time for more.
template <typename T>
__device__ __forceinline__ float exp_for(float x) {
  if constexpr (sizeof(T) == 2) return __expf(x);
  return expf(x);
}
template <typename T>
__device__ __forceinline__ float sigmoid_for(float x) {
  // exp(-x) past the largest float is infinite, and __fdividef then gives 0, as it should be.
  if constexpr (sizeof(T) == 2) return __fdividef(1.0f, 1.0f + __expf(-x));
  return sigmoid(x);
}
// d/dx x sigmoid(x) from sg = sigmoid(x)
__device__ __forceinline__ float silu_slope_of(float x, float sg) { return sg * (1.0f + x * (1.0f - sg)); }

template <typename T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(~0u, value, offset);
  return value;
}

// Sum over the block, the same on every thread. kThreads is the block's size, a multiple of 32; `shared`
// holds one value a warp, and nobody may still read it. Warps are added in order, so the sum repeats bit for
// bit.
template <int kThreads, typename T>
__device__ __forceinline__ T block_sum_once(T value, T* shared) {
  value = warp_sum(value);
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = value;
  __syncthreads();
  T total = 0;
#pragma unroll
  for (int warp = 0; warp < kThreads / kWarp; ++warp) total += shared[warp];
  return total;
}

// The same where `shared` may still be read from the sum before.
template <int kThreads, typename T>
__device__ __forceinline__ T block_sum(T value, T* shared) {
  if constexpr (kThreads == kWarp) return warp_sum(value);
  __syncthreads();
  return block_sum_once<kThreads>(value, shared);
}

template <int kThreads>
__device__ __forceinline__ float block_max(float value, float* shared) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2)
    value = fmaxf(value, __shfl_xor_sync(~0u, value, offset));
  if constexpr (kThreads == kWarp) return value;
  __syncthreads();
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = value;
  __syncthreads();
  float largest = shared[0];
#pragma unroll
  for (int warp = 1; warp < kThreads / kWarp; ++warp) largest = fmaxf(largest, shared[warp]);
  return largest;
}

// Raises the largest magnitude noted in *y by those of a warp, which calls this with all its lanes.
// Magnitudes are at least 0, where floats are in the order of their bits, and the result does not depend on
// the order of the calls.
__device__ __forceinline__ void raise_absmax(float* y, float mine) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2)
    mine = fmaxf(mine, __shfl_xor_sync(~0u, mine, offset));
  // Nearly all warps come when there is a larger one already.
  if (threadIdx.x % kWarp == 0 && mine > *static_cast<volatile float*>(y))
    atomicMax(reinterpret_cast<int*>(y), __float_as_int(mine));
}

// Before the kernel that raises it. NULL: not wanted.
inline void clear_absmax(const gsa_device& device, float* y) {
  if (y) cudaMemsetAsync(y, 0, sizeof(float), device.stream);
}

// Blocks for a grid-stride loop over n items: enough to fill the device several times, never more than there
// is work.
inline unsigned grid_for(const gsa_device& device, int64_t n, int threads) {
  const int64_t wanted = (n + threads - 1) / threads;
  return static_cast<unsigned>(
      std::clamp<int64_t>(wanted, 1, static_cast<int64_t>(device.multiprocessors) * 16));
}

// Whether accesses of 16 bytes are allowed there.
inline bool aligned(std::initializer_list<const void*> addresses) {
  for (const void* address : addresses)
    if (reinterpret_cast<uintptr_t>(address) % 16 != 0) return false;
  return true;
}

// Device memory for the time of one op; freed in stream order.
class Scratch {
 public:
  Scratch(gsa_device& device, uint64_t bytes)
      : device_(device), bytes_(bytes), data_(bytes ? allocate(device, bytes) : nullptr) {}
  ~Scratch() { release(device_, data_, bytes_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  gsa_device& device_;
  uint64_t bytes_;
  void* data_;
};

// Calls body(T{}) with the C++ type of a floating dtype.
template <typename Body>
void with_float_type(int32_t dtype, const char* name, Body&& body) {
  if (dtype == GSA_FLOAT32) return body(float{});
  if (dtype == GSA_BFLOAT16) return body(__nv_bfloat16{});
  fail(GSA_INVALID_ARGUMENT, "Expected float32 or bfloat16 for %s but received %s", name, dtype_name(dtype));
}

}  // namespace gsa::cuda
