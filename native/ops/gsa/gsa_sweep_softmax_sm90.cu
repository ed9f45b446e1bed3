// The first pass of the backward sweeps: what the softmax of every row of slot logits is divided by. The
// sweep that follows needs it before it has summed over its warps; here a sum costs the time to read ok once.
#include "sweep_slots_sm90.cuh"
#include "sweep_softmax_sm90.cuh"

namespace gsa::sm90 {
namespace {

constexpr int kThreads = 256, kLoads = 4;

// kLanes lanes share a row; each loads kLoads rows before it needs the first.
template <int kLanes>
__global__ void __launch_bounds__(kThreads) softmax_kernel(const SoftmaxPass a) {
  constexpr int kRowsAtOnce = kThreads / kLanes;
  const int lane = threadIdx.x % kLanes;
  const int64_t first = int64_t{blockIdx.x} * kRowsAtOnce * kLoads + threadIdx.x / kLanes;
  float4 x[kLoads];
#pragma unroll
  for (int i = 0; i < kLoads; ++i) {
    // Past the end the last row is read again: all lanes of a warp take part in its sums.
    const int64_t row = min(first + i * kRowsAtOnce, a.rows - 1);
    x[i] = reinterpret_cast<const float4*>(a.ok)[row * kLanes + lane];
  }
#pragma unroll
  for (int i = 0; i < kLoads; ++i) {
    float most = fmaxf(fmaxf(x[i].x, x[i].y), fmaxf(x[i].z, x[i].w));
#pragma unroll
    for (int o = 1; o < kLanes; o *= 2) most = fmaxf(most, __shfl_xor_sync(~0u, most, o));
    const auto part = [&](float v) { return exp2_approx(kLog2E * (v - most)); };
    float sum = part(x[i].x) + part(x[i].y) + part(x[i].z) + part(x[i].w);
#pragma unroll
    for (int o = 1; o < kLanes; o *= 2) sum += __shfl_xor_sync(~0u, sum, o);
    const int64_t row = first + i * kRowsAtOnce;
    if (lane == 0 && row < a.rows) a.norm[row] = kLog2E * most + __log2f(sum);
  }
}

template <int kLanes>
void launch(gsa_device& device, const SoftmaxPass& a) {
  constexpr int64_t kRowsOfBlock = kThreads / kLanes * kLoads;
  cuda::launch_clusters<1>(device, softmax_kernel<kLanes>, (a.rows + kRowsOfBlock - 1) / kRowsOfBlock,
                           kThreads, 0, a);
}

}  // namespace

void launch_softmax(gsa_device& device, const SoftmaxPass& a) {
  if (a.rows == 0) return;
  a.halves == 2 ? launch<kSlots / 2>(device, a) : launch<kSlots / 4>(device, a);
}

}  // namespace gsa::sm90
