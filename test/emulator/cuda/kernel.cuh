// In place of native/cuda/kernel.cuh: what the emulated kernels use of it.
#pragma once

#include <algorithm>
#include <cmath>

#include "../../emulator.h"
#include "device.h"

namespace gsa::cuda {

constexpr int kWarp = 32;

inline float to_float(float x) { return x; }
inline float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
template <typename T>
T from_float(float x) {
  if constexpr (sizeof(T) == 2)
    return __float2bfloat16_rn(x);
  else
    return x;
}
template <typename T, int N>
struct alignas(sizeof(T) * N) Pack {
  T x[N];
};
inline float sigmoid(float x) { return 1.0f / (1.0f + std::exp(-x)); }
template <typename T>
float sigmoid_for(float x) {
  return sigmoid(x);
}
template <typename T>
T warp_sum(T value) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(~0u, value, offset);
  return value;
}
template <int kThreads, typename T>
T block_sum_once(T value, T* shared) {
  value = warp_sum(value);
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = value;
  __syncthreads();
  T total = 0;
  for (int warp = 0; warp < kThreads / kWarp; ++warp) total += shared[warp];
  return total;
}
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline void raise_absmax(float* y, float mine) { *y = std::fmax(*y, mine); }
inline float silu_slope_of(float x, float sg) { return sg * (1.0f + x * (1.0f - sg)); }

template <typename Body>
void with_float_type(int32_t dtype, const char*, Body&& body) {
  if (dtype == GSA_FLOAT32) return body(float{});
  body(__nv_bfloat16{});
}

class Scratch {
 public:
  Scratch(gsa_device&, uint64_t bytes) : memory_(bytes, '\x7f') {}
  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(const_cast<char*>(memory_.data()));
  }

 private:
  std::vector<char> memory_;
};

inline bool aligned(std::initializer_list<const void*> addresses) {
  for (const void* address : addresses)
    if (reinterpret_cast<uintptr_t>(address) % 16 != 0) return false;
  return true;
}

}  // namespace gsa::cuda
