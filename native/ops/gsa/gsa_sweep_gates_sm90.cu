// g = logsigmoid(f) / normalizer and s = 1 - exp(g) from columns of joined rows, as ../gsa_inputs makes them.
#include "sweep_gates_sm90.cuh"

namespace gsa::sm90 {
namespace {

constexpr int kQuads = kSlots / 4, kRows = 16, kThreads = kQuads * kRows;

struct alignas(8) Four {
  bf16 x[4];
};

// A block has 16 rows of a head, a thread four slots of one: no thread divides.
__global__ void __launch_bounds__(kThreads) gates_kernel(const GatePass a) {
  const int64_t row = int64_t{blockIdx.x / a.H} * kRows + threadIdx.x / kQuads;
  const int quad = static_cast<int>(blockIdx.x % a.H) * kQuads + threadIdx.x % kQuads;
  if (row >= a.rows) return;
  const Four f = *reinterpret_cast<const Four*>(a.f + row * a.stride + quad * 4);
  float g[4], s[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float x = __bfloat162float(f.x[i]);
    g[i] = (fminf(x, 0.0f) - log1pf(expf(-fabsf(x)))) * a.inverse_normalizer;
    s[i] = -expm1f(g[i]);  // where almost nothing is forgotten, 1 - exp(g) keeps only the last bits
  }
  const int64_t at = row * a.H * kQuads + quad;
  reinterpret_cast<float4*>(a.g)[at] = make_float4(g[0], g[1], g[2], g[3]);
  reinterpret_cast<float4*>(a.s)[at] = make_float4(s[0], s[1], s[2], s[3]);
}

}  // namespace

void launch_gates(gsa_device& device, const GatePass& a) {
  if (a.rows > 0)
    cuda::launch_clusters<1>(device, gates_kernel, (a.rows + kRows - 1) / kRows * a.H, kThreads, 0, a);
}

}  // namespace gsa::sm90
