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
// By part of the rows, slot by slot: sums of the part, and of those before and behind it; its share of what
// crosses at both ends, and in [0] all of it.
using Slots = float[kParts][kSlots];
struct Parts {
  Slots sums, before, behind, start, end;
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
// Of four slots, rounded, as one word; f as the row holds it.
__device__ __forceinline__ uint64_t gate_slopes(const Quad& dg, const Quad& ds, uint2 f,
                                                float inverse_normalizer) {
  const auto slope = [&](int c, uint32_t bits) {
    return gate_slope(dg.x[c], ds.x[c], __uint_as_float(bits), inverse_normalizer);
  };
  const uint32_t low = pack_bf16(slope(0, f.x << 16), slope(1, f.x & 0xffff0000u)),
                 high = pack_bf16(slope(2, f.y << 16), slope(3, f.y & 0xffff0000u));
  return uint64_t{high} << 32 | low;
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
  const auto quads = [](auto* x) { return reinterpret_cast<Quad*>(const_cast<float*>(x)); };
  const int64_t first = range.begin + group * kRows + part * kPartRows;
  const int heads = static_cast<int>(a.HQ / a.H), of_kv = static_cast<int>(a.H) * kQuads,
            of_q = of_kv * heads;
  const int64_t at = first * of_kv + h * kQuads + quad, queries = first * of_q + h * heads * kQuads + quad;
  const int64_t gate_at = first * a.gate.stride + (h * kQuads + quad) * 4;
  const int mine = static_cast<int>(min(rows - group * kRows - part * kPartRows, int64_t{kPartRows}));
  // All that is read is on its way before any of it is waited for. State . gradient after step `group` of the
  // sequence, and after the step before: the part's share of what blocks and warps left of it.
  const int left = heads * a.cluster * 5;
  const Quad* const after =
      quads(a.anchor_flow) +
      ((first_anchor(range.begin, sequence) + group) * a.HQ + h * heads) * a.cluster * 5 * kQuads + quad;
  const Quad* const after_last = after - a.HQ * a.cluster * 5 * kQuads;
  const auto left_at = [&](const Quad* from, int i) { return i < left ? from[i * kQuads] : Quad{}; };
  Quad end = left_at(after, part), end_more = left_at(after, part + kParts), start = {}, start_more = {};
  if (group > 0)
    start = left_at(after_last, part), start_more = left_at(after_last, part + kParts);
  else if (a.first_crossing && part == 0)
    start = quads(a.first_crossing)[(sequence * a.H + h) * kQuads + quad];
  uint2 f[kPartRows] = {};
  if (a.gate.f) {
#pragma unroll
    for (int i = 0; i < kPartRows; ++i)
      if (i < mine) f[i] = *reinterpret_cast<const uint2*>(a.gate.f + gate_at + i * a.gate.stride);
  }
  Quad term[kPartRows] = {}, total[kPartRows] = {}, sum = {};  // total: of ds
  {
    Quad s[kPartRows] = {};
#pragma unroll
    for (int i = 0; i < kPartRows; ++i)
      if (i < mine) s[i] = quads(a.s)[at + i * of_kv];
    const Quad *from = quads(a.flow) + queries, *ds_from = quads(a.ds) + queries;
    for (int head = 0; head < heads; ++head, from += kQuads, ds_from += kQuads) {
      Quad flow[kPartRows] = {}, ds[kPartRows] = {};
#pragma unroll
      for (int i = 0; i < kPartRows; ++i)
        if (i < mine) flow[i] = from[i * of_q], ds[i] = ds_from[i * of_q];
#pragma unroll
      for (int i = 0; i < kPartRows; ++i)
        each([&](int c) {
          term[i].x[c] += flow[i].x[c] - s[i].x[c] * ds[i].x[c], total[i].x[c] += ds[i].x[c];
        });
    }
#pragma unroll
    for (int i = 0; i < kPartRows; ++i) {
      each([&](int c) { sum.x[c] += term[i].x[c]; });
      if (a.ds_of_groups && i < mine) quads(a.ds_of_groups)[at + i * of_kv] = total[i];
    }
  }
  each([&](int c) { start.x[c] += start_more.x[c], end.x[c] += end_more.x[c]; });
#pragma unroll 1
  for (int i = part + 2 * kParts; i < left; i += kParts) {
    const Quad y = left_at(after, i), x = group > 0 ? left_at(after_last, i) : Quad{};
    each([&](int c) { start.x[c] += x.x[c], end.x[c] += y.x[c]; });
  }
  const auto mine_of = [&](Slots& of, int which) -> Quad& {
    return reinterpret_cast<Quad*>(of[which])[quad];
  };
  mine_of(shared.sums, part) = sum;
  mine_of(shared.start, part) = start;
  mine_of(shared.end, part) = end;
  __syncthreads();
  // A thread for a slot and one of the four sums over parts. No sum is a difference.
  {
    const int slot = threadIdx.x % kSlots, which = threadIdx.x / kSlots;
    Slots& from = which < 2 ? shared.sums : which == 2 ? shared.start : shared.end;
    float x[kParts], running = 0.0f;
#pragma unroll
    for (int i = 0; i < kParts; ++i) x[i] = from[which == 1 ? kParts - 1 - i : i][slot];
#pragma unroll
    for (int i = 0; i < kParts; ++i) {
      if (which == 0) shared.before[i][slot] = running;
      if (which == 1) shared.behind[kParts - 1 - i][slot] = running;
      running += x[i];
    }
    if (which >= 2) from[0][slot] = running;
  }
  __syncthreads();
  // Known at both ends of the step: the sum runs from where less crosses, so that what is forgotten inside
  // leaves no rounding of something large behind. Four slots together, since of one little may cross by
  // chance, as the difference of large numbers. Without initial states nothing crosses before the first step.
  start = mine_of(shared.start, 0), end = mine_of(shared.end, 0);
  const Quad earlier = mine_of(shared.before, part), later = mine_of(shared.behind, part);
  float at_start = 0.0f, at_end = 0.0f;
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
      *reinterpret_cast<uint64_t*>(a.gate.df + gate_at + i * a.gate.stride) =
          gate_slopes(dg[i], total[i], f[i], a.gate.inverse_normalizer);
    else
      quads(a.dg)[at + i * of_kv] = dg[i];
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
