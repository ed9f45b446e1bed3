// dg from what the sweeps left: what crosses the gate of a row, a running sum of what rows read from earlier
// rows (flow) minus what they give to later ones (s ds), starting from state . gradient before or after every
// step.
#include "../../sm90/math.cuh"
#include "sweep_flow_sm90.cuh"

namespace gsa::sm90 {
namespace {

constexpr int kRows = kStep, kQuads = kSlots / 4, kParts = 16, kPartRows = kRows / kParts;

struct alignas(16) Quad {
  float x[4];
};
struct Parts {
  Quad sums[kParts][kQuads], start[kParts][kQuads], end[kParts][kQuads];
};
template <class Body>
__device__ __forceinline__ void each(Body body) {
#pragma unroll
  for (int c = 0; c < 4; ++c) body(c);
}

// df = (dg - ds exp(g)) sigmoid(-f) / normalizer: ds / dg = -exp(g).
__device__ __forceinline__ float gate_slope(float dg, float ds, float f, float inverse_normalizer) {
  constexpr float kLog2E = 1.4426950408889634f;
  const float e = exp2_approx(-kLog2E * fabsf(f)), part = reciprocal_approx(1.0f + e);
  const float log2_sigmoid = kLog2E * fminf(f, 0.0f) - __log2f(1.0f + e);
  const float forgets = f > 0.0f ? e * part : part;  // sigmoid(-f)
  return (dg - ds * exp2_approx(log2_sigmoid * inverse_normalizer)) * forgets * inverse_normalizer;
}
struct alignas(8) HalfQuad {
  bf16 x[4];
};
__device__ __forceinline__ void store_gate_slopes(const FlowPass& a, int64_t row, int64_t slot,
                                                  const Quad& dg, const Quad& ds) {
  const int64_t at = row * a.gate.stride + slot;
  const HalfQuad f = *reinterpret_cast<const HalfQuad*>(a.gate.f + at);
  HalfQuad df;
  each([&](int c) {
    df.x[c] = __float2bfloat16_rn(
        gate_slope(dg.x[c], ds.x[c], __bfloat162float(f.x[c]), a.gate.inverse_normalizer));
  });
  *reinterpret_cast<HalfQuad*>(a.gate.df + at) = df;
}

// One block for the rows of a step and a key/value head: a thread has four slots of four rows. What the query
// heads of a group left is summed in their order.
__global__ void __launch_bounds__(kQuads* kParts) flow_kernel(const FlowPass a) {
  auto& shared = *reinterpret_cast<Parts*>(block_memory());
  const int quad = threadIdx.x % kQuads, part = threadIdx.x / kQuads;
  const int64_t groups = (a.T + kRows - 1) / kRows, h = blockIdx.x % a.H, step = blockIdx.x / a.H;
  const int32_t* const before = a.documents.steps_before;
  if (before && step >= before[a.N]) return;
  const int64_t sequence = before ? a.documents.owner[step] : step / groups,
                group = before ? step - before[sequence] : step % groups;
  const auto range = rows_of(a.documents.cu_seqlens, a.T, sequence);
  const int64_t rows = range.end - range.begin;
  if (group * kRows >= rows) return;
  const auto quad_of = [&](auto* x, int64_t i) { return reinterpret_cast<Quad*>(const_cast<float*>(x)) + i; };
  const int64_t first = range.begin + group * kRows + part * kPartRows, heads = a.HQ / a.H;
  const int64_t at = (first * a.H + h) * kQuads + quad, stride = a.H * kQuads;
  const int64_t queries = (first * a.HQ + h * heads) * kQuads + quad;
  const int64_t mine = rows - group * kRows - part * kPartRows;
  Quad term[kPartRows] = {}, sum = {};
  {
    Quad s[kPartRows] = {}, total[kPartRows] = {};
#pragma unroll
    for (int i = 0; i < kPartRows; ++i)
      if (i < mine) s[i] = *quad_of(a.s, at + i * stride);
    for (int64_t head = 0; head < heads; ++head)
#pragma unroll
      for (int i = 0; i < kPartRows; ++i) {
        if (i >= mine) continue;
        const int64_t from = queries + head * kQuads + i * a.HQ * kQuads;
        const Quad flow = *quad_of(a.flow, from), ds = *quad_of(a.ds, from);
        each([&](int c) { term[i].x[c] += flow.x[c] - s[i].x[c] * ds.x[c], total[i].x[c] += ds.x[c]; });
      }
#pragma unroll
    for (int i = 0; i < kPartRows; ++i) {
      each([&](int c) { sum.x[c] += term[i].x[c]; });
      if (a.ds_of_groups && i < mine) *quad_of(a.ds_of_groups, at + i * stride) = total[i];
    }
  }
  // state . gradient after step `step` of the sequence: the part's share of what the blocks and warps left
  const auto crossing = [&](int64_t step) {
    const int64_t stored = (first_anchor(range.begin, sequence) + step) * a.HQ + h * heads;
    Quad x = {};
    for (int64_t i = part; i < heads * a.cluster * 5; i += kParts) {
      const Quad y = *quad_of(a.anchor_flow, (stored * a.cluster * 5 + i) * kQuads + quad);
      each([&](int c) { x.x[c] += y.x[c]; });
    }
    return x;
  };
  shared.sums[part][quad] = sum;
  shared.end[part][quad] = crossing(group);
  shared.start[part][quad] = group > 0 ? crossing(group - 1) : Quad{};
  __syncthreads();
  // Known at both ends of the step: the sum runs from where less crosses, so that what is forgotten inside
  // leaves no rounding of something large behind. Before the first step nothing crosses, unless there was a
  // state.
  Quad start = {}, end = {}, earlier = {}, later = {};
  for (int i = 0; i < kParts; ++i) {
    const Quad s = shared.start[i][quad], e = shared.end[i][quad], x = shared.sums[i][quad];
    each([&](int c) {
      start.x[c] += s.x[c], end.x[c] += e.x[c];
      earlier.x[c] += i < part ? x.x[c] : 0.0f, later.x[c] += i > part ? x.x[c] : 0.0f;
    });
  }
  Quad dg[kPartRows];
  each([&](int c) {
    if (group == 0 ? a.empty_before : fabsf(start.x[c]) < fabsf(end.x[c])) {
      float x = start.x[c] - earlier.x[c];
#pragma unroll
      for (int i = 0; i < kPartRows; ++i) {
        dg[i].x[c] = x;
        x -= term[i].x[c];
      }
    } else {
      float x = end.x[c] + later.x[c];
#pragma unroll
      for (int i = kPartRows - 1; i >= 0; --i) dg[i].x[c] = x += term[i].x[c];
    }
  });
#pragma unroll
  for (int i = 0; i < kPartRows; ++i) {
    if (i >= mine) continue;
    if (a.gate.f)
      store_gate_slopes(a, first + i, (h * kQuads + quad) * 4, dg[i], *quad_of(a.ds, at + i * stride));
    else
      *quad_of(a.dg, at + i * stride) = dg[i];
  }
}

}  // namespace

void launch_flow(gsa_device& device, const FlowPass& a) {
  // With cu_seqlens the lengths are on the device: there are blocks for as many steps as there can be.
  const int64_t steps = Walks{a.documents, a.T, a.N, 1, 1}.steps();
  if (a.T == 0 || steps == 0) return;
  cuda::launch_clusters<1>(device, flow_kernel, steps * a.H, kQuads * kParts, sizeof(Parts), a);
}

}  // namespace gsa::sm90
