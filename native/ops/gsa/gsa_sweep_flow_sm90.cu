// dg from what the sweeps left: a running sum against time of what rows read from earlier rows (flow) minus
// what they give to later ones (s ds), starting from state . gradient after every step.
#include "sweep_flow_sm90.cuh"

namespace gsa::sm90 {
namespace {

constexpr int kRows = kStep, kParts = 4, kPartRows = kRows / kParts;

// One block for the rows of a step and a head: a thread has a slot and a quarter of the rows.
__global__ void __launch_bounds__(kSlots* kParts) flow_kernel(const FlowPass a) {
  auto& sums = *reinterpret_cast<float (*)[kParts][kSlots]>(block_memory());
  const int slot = threadIdx.x % kSlots, part = threadIdx.x / kSlots;
  const int64_t groups = (a.T + kRows - 1) / kRows, h = blockIdx.x % a.H;
  const int64_t sequence = blockIdx.x / a.H / groups, group = blockIdx.x / a.H % groups;
  const auto range = rows_of(a.cu_seqlens, a.T, sequence);
  const int64_t rows = range.end - range.begin;
  const int64_t first = group * kRows + part * kPartRows, last = min(first + kPartRows, rows);
  if (group * kRows >= rows) return;
  const auto term = [&](int64_t row) {
    const int64_t at = ((range.begin + row) * a.H + h) * kSlots + slot;
    return a.flow[at] - a.s[at] * a.ds[at];
  };
  float sum = 0;
#pragma unroll 8
  for (int64_t row = first; row < last; ++row) sum += term(row);
  sums[part][slot] = sum;
  __syncthreads();
  float x = 0;
  const float* start = a.anchor_flow +
                       ((first_anchor(range.begin, sequence) + group) * a.H + h) * a.cluster * 5 * kSlots +
                       slot;
  for (int i = 0; i < a.cluster * 5; ++i) x += start[i * kSlots];
  for (int later = kParts - 1; later > part; --later) x += sums[later][slot];
#pragma unroll 8
  for (int64_t row = last - 1; row >= first; --row) {
    x += term(row);
    a.dg[((range.begin + row) * a.H + h) * kSlots + slot] = x;
  }
}

}  // namespace

void launch_flow(gsa_device& device, const FlowPass& a) {
  // With cu_seqlens the lengths are on the device: every sequence gets the blocks of the longest possible
  // one.
  const int64_t groups = (a.T + kRows - 1) / kRows;
  if (a.N == 0 || groups == 0) return;
  cuda::launch_clusters<1>(device, flow_kernel, a.N * groups * a.H, kSlots * kParts,
                           kParts * kSlots * sizeof(float), a);
}

}  // namespace gsa::sm90
