// dk and dv of grouped queries: the sweeps leave what every query head gives, in bfloat16; here it is summed
// in float32, in the order of the heads, and rounded once more.
#include "sweep_groups_sm90.cuh"

namespace gsa::sm90 {
namespace {

constexpr int kThreads = 256;

// A thread sums 8 channels.
__global__ void __launch_bounds__(kThreads) group_sum_kernel(const GroupSum a) {
  const int64_t item = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (item >= a.items) return;
  const int parts = a.width / 8;
  const int64_t row = item / parts;
  const auto* from = reinterpret_cast<const uint4*>(a.from) + row * a.group * parts + item % parts;
  float sum[8] = {};
#pragma unroll 4
  for (int head = 0; head < a.group; ++head) {
    const uint4 x = from[int64_t{head} * parts];
    const auto* pairs = reinterpret_cast<const __nv_bfloat162*>(&x);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 pair = __bfloat1622float2(pairs[i]);
      sum[2 * i] += pair.x;
      sum[2 * i + 1] += pair.y;
    }
  }
  reinterpret_cast<uint4*>(a.to)[item] = {pack_bf16(sum[0], sum[1]), pack_bf16(sum[2], sum[3]),
                                          pack_bf16(sum[4], sum[5]), pack_bf16(sum[6], sum[7])};
}

}  // namespace

void launch_group_sum(gsa_device& device, const GroupSum& a) {
  if (a.items == 0) return;
  cuda::launch_clusters<1>(device, group_sum_kernel, (a.items + kThreads - 1) / kThreads, kThreads, 0, a);
}

}  // namespace gsa::sm90
