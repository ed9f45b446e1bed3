#include "../../cuda/kernel.cuh"
#include "params.h"

namespace gsa::cuda {
namespace {

constexpr int kThreads = 256;

__device__ __forceinline__ float log_sigmoid(float x) { return fminf(x, 0.0f) - log1pf(expf(-fabsf(x))); }

template <typename T>
__global__ void __launch_bounds__(kThreads) gate_fwd_kernel(gate::GateFwd a, float inverse_normalizer) {
  const T* f = static_cast<const T*>(a.f);
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x; i < a.n; i += stride) {
    const float g = log_sigmoid(to_float(f[i])) * inverse_normalizer;
    a.g[i] = g;
    a.s[i] = -expm1f(g);  // where almost nothing is forgotten, 1 - exp(g) would keep only the last bits
  }
}

// dg / df = sigmoid(-f) / normalizer and ds / dg = -exp(g).
template <typename T>
__global__ void __launch_bounds__(kThreads) gate_bwd_kernel(gate::GateBwd a, float inverse_normalizer) {
  const T* projection = static_cast<const T*>(a.f);
  T* df = static_cast<T*>(a.df);
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x; i < a.n; i += stride) {
    const float f = to_float(projection[i]), kept = expf(log_sigmoid(f) * inverse_normalizer);
    df[i] = from_float<T>((a.dg[i] - a.ds[i] * kept) * sigmoid(-f) * inverse_normalizer);
  }
}

}  // namespace

void gsa_gate_fwd(gsa_device& device, const Args& args) {
  const gate::GateFwd p = gate::read_gate_fwd(args);
  if (p.n == 0) return;
  with_float_type(p.dtype, "f", [&](auto type) {
    gate_fwd_kernel<decltype(type)>
        <<<grid_for(device, p.n, kThreads), kThreads, 0, device.stream>>>(p, 1.0f / p.normalizer);
  });
}

void gsa_gate_bwd(gsa_device& device, const Args& args) {
  const gate::GateBwd p = gate::read_gate_bwd(args);
  if (p.n == 0) return;
  with_float_type(p.dtype, "f", [&](auto type) {
    gate_bwd_kernel<decltype(type)>
        <<<grid_for(device, p.n, kThreads), kThreads, 0, device.stream>>>(p, 1.0f / p.normalizer);
  });
}

}  // namespace gsa::cuda
