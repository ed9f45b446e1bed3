// g = logsigmoid(f) / normalizer and s = 1 - exp(g) from columns of joined rows, as ../gsa_inputs makes them.
#include "sweep_gates_sm90.cuh"

namespace gsa::sm90 {
namespace {

constexpr int kThreads = 256;

struct alignas(8) Four {
  bf16 x[4];
};

// A thread makes four.
__global__ void __launch_bounds__(kThreads) gates_kernel(const GatePass a) {
  const int64_t item = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int parts = a.width / 4;
  const int64_t row = item / parts;
  if (row >= a.rows) return;
  const Four f = *reinterpret_cast<const Four*>(a.f + row * a.stride + item % parts * 4);
  float g[4], s[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float x = __bfloat162float(f.x[i]);
    g[i] = (fminf(x, 0.0f) - log1pf(expf(-fabsf(x)))) * a.inverse_normalizer;
    s[i] = -expm1f(g[i]);  // where almost nothing is forgotten, 1 - exp(g) keeps only the last bits
  }
  reinterpret_cast<float4*>(a.g)[item] = make_float4(g[0], g[1], g[2], g[3]);
  reinterpret_cast<float4*>(a.s)[item] = make_float4(s[0], s[1], s[2], s[3]);
}

}  // namespace

void launch_gates(gsa_device& device, const GatePass& a) {
  const int64_t items = a.rows * (a.width / 4);
  if (items > 0)
    cuda::launch_clusters<1>(device, gates_kernel, (items + kThreads - 1) / kThreads, kThreads, 0, a);
}

}  // namespace gsa::sm90
