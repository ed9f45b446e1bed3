// dg from what the sweeps left: what crosses the gate of a row, a running sum of what rows read from earlier
// rows (flow) minus what they give to later ones (s ds), starting from state . gradient before or after every
// step.
#include "sweep_flow_sm90.cuh"

namespace gsa::sm90 {
namespace {

constexpr int kRows = kStep, kParts = 4, kPartRows = kRows / kParts;

struct Parts {
  float sums[kParts][kSlots], start[kParts][kSlots], end[kParts][kSlots];
};

// One block for the rows of a step and a head: a thread has a slot and a quarter of the rows.
__global__ void __launch_bounds__(kSlots* kParts) flow_kernel(const FlowPass a) {
  auto& shared = *reinterpret_cast<Parts*>(block_memory());
  const int slot = threadIdx.x % kSlots, part = threadIdx.x / kSlots;
  const int64_t groups = (a.T + kRows - 1) / kRows, h = blockIdx.x % a.H, step = blockIdx.x / a.H;
  const int32_t* const before = a.documents.steps_before;
  if (before && step >= before[a.N]) return;
  const int64_t sequence = before ? a.documents.owner[step] : step / groups,
                group = before ? step - before[sequence] : step % groups;
  const auto range = rows_of(a.documents.cu_seqlens, a.T, sequence);
  const int64_t rows = range.end - range.begin;
  if (group * kRows >= rows) return;
  const int64_t at = ((range.begin + group * kRows + part * kPartRows) * a.H + h) * kSlots + slot,
                stride = a.H * kSlots;
  const int mine = static_cast<int>(min(rows - group * kRows - part * kPartRows, int64_t{kPartRows}));
  float term[kPartRows], sum = 0;
#pragma unroll
  for (int i = 0; i < kPartRows; ++i) {
    term[i] = i < mine ? a.flow[at + i * stride] - a.s[at + i * stride] * a.ds[at + i * stride] : 0.0f;
    sum += term[i];
  }
  // state . gradient after step `step` of the sequence: the part's share of what the blocks and warps left
  const auto crossing = [&](int64_t step) {
    const float* from = a.anchor_flow +
                        ((first_anchor(range.begin, sequence) + step) * a.H + h) * a.cluster * 5 * kSlots +
                        slot;
    float x = 0;
    for (int i = part; i < a.cluster * 5; i += kParts) x += from[i * kSlots];
    return x;
  };
  shared.sums[part][slot] = sum;
  shared.end[part][slot] = crossing(group);
  shared.start[part][slot] = group > 0 ? crossing(group - 1) : 0.0f;
  __syncthreads();
  // Known at both ends of the step: the sum runs from where less crosses, so that what is forgotten inside
  // leaves no rounding of something large behind. Before the first step nothing crosses, unless there was a
  // state.
  float start = 0, end = 0;
  for (int i = 0; i < kParts; ++i) start += shared.start[i][slot], end += shared.end[i][slot];
  float dg[kPartRows];
  if (group == 0 ? a.empty_before : fabsf(start) < fabsf(end)) {
    float x = start;
    for (int earlier = 0; earlier < part; ++earlier) x -= shared.sums[earlier][slot];
#pragma unroll
    for (int i = 0; i < kPartRows; ++i) {
      dg[i] = x;
      x -= term[i];
    }
  } else {
    float x = end;
    for (int later = kParts - 1; later > part; --later) x += shared.sums[later][slot];
#pragma unroll
    for (int i = kPartRows - 1; i >= 0; --i) dg[i] = x += term[i];
  }
#pragma unroll
  for (int i = 0; i < kPartRows; ++i)
    if (i < mine) a.dg[at + i * stride] = dg[i];
}

}  // namespace

void launch_flow(gsa_device& device, const FlowPass& a) {
  // With cu_seqlens the lengths are on the device: there are blocks for as many steps as there can be.
  const int64_t steps = Walks{a.documents, a.T, a.N, 1, 1}.steps();
  if (a.T == 0 || steps == 0) return;
  cuda::launch_clusters<1>(device, flow_kernel, steps * a.H, kSlots * kParts, sizeof(Parts), a);
}

}  // namespace gsa::sm90
