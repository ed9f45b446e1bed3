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

// State . gradient before the first row of a sequence, slot by slot. A block for a sequence and key/value
// head.
constexpr int kCrossingThreads = 256;
__global__ void __launch_bounds__(kCrossingThreads) first_crossing_kernel(const FirstCrossing a) {
  auto& shared = *reinterpret_cast<float (*)[kCrossingThreads]>(block_memory());
  const int M = a.slots, thread = threadIdx.x, parts = kCrossingThreads / M, part = thread / M;
  float sum = 0.0f;
  if (a.hk0) {  // [channels, slots]
    const int64_t at = blockIdx.x * a.K * M + thread % M;
    for (int c = part; c < a.K; c += parts) sum += a.hk0[at + c * M] * a.dhk0[at + c * M];
  }
  shared[thread] = sum;
  __syncthreads();
  const int lane = thread % 32, warp = thread / 32;
  for (int m = warp; m < M; m += kCrossingThreads / 32) {
    float x = 0.0f;
    if (a.hv0) {  // [slots, channels]
      const int64_t at = (blockIdx.x * int64_t{M} + m) * a.V;
      for (int c = lane; c < a.V; c += 32) x += a.hv0[at + c] * a.dhv0[at + c];
    }
#pragma unroll
    for (int o = 16; o > 0; o /= 2) x += __shfl_xor_sync(~0u, x, o);
    for (int i = 0; i < parts; ++i) x += shared[i * M + m];
    if (lane == 0) a.out[blockIdx.x * int64_t{M} + m] = x;
  }
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
  Quad first_crossing = {};
  if (a.first_crossing && part == 0)
    first_crossing = *quad_of(a.first_crossing, (sequence * a.H + h) * kQuads + quad);
  shared.start[part][quad] = group > 0 ? crossing(group - 1) : first_crossing;
  __syncthreads();
  // Known at both ends of the step: the sum runs from where less crosses, so that what is forgotten inside
  // leaves no rounding of something large behind. Four slots together, since of one little may cross by
  // chance, as the difference of large numbers. Without initial states nothing crosses before the first step.
  Quad start = {}, end = {}, earlier = {}, later = {};
  float at_start = 0.0f, at_end = 0.0f;
  for (int i = 0; i < kParts; ++i) {
    const Quad s = shared.start[i][quad], e = shared.end[i][quad], x = shared.sums[i][quad];
    each([&](int c) {
      start.x[c] += s.x[c], end.x[c] += e.x[c];
      earlier.x[c] += i < part ? x.x[c] : 0.0f, later.x[c] += i > part ? x.x[c] : 0.0f;
    });
  }
  each([&](int c) { at_start += fabsf(start.x[c]), at_end += fabsf(end.x[c]); });
  const bool from_start = (group == 0 && !a.first_crossing) || at_start < at_end;
  Quad dg[kPartRows];
  each([&](int c) {
    if (from_start) {
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

void launch_first_crossing(gsa_device& device, int64_t states, const FirstCrossing& a) {
  cuda::launch_clusters<1>(device, first_crossing_kernel, states, kCrossingThreads,
                           kCrossingThreads * sizeof(float), a);
}

void launch_flow(gsa_device& device, const FlowPass& a) {
  // With cu_seqlens the lengths are on the device: there are blocks for as many steps as there can be.
  const int64_t steps = Walks{a.documents, a.T, a.N, 1, 1}.steps();
  if (a.T == 0 || steps == 0) return;
  cuda::launch_clusters<1>(device, flow_kernel, steps * a.H, kQuads * kParts, sizeof(Parts), a);
}

}  // namespace gsa::sm90
