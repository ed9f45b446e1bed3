// What a block of the sweep against time has in shared memory, which of the work is its own, and what it
// leaves for dg (sweep_flow_sm90.cuh).
#pragma once

#include "sweep_activate_sm90.cuh"
#include "sweep_pieces_sm90.cuh"
#include "sweep_reverse_sm90.cuh"
#include "sweep_slots_sm90.cuh"

namespace gsa::sm90 {
namespace {

template <int kWidth>
struct Shared {
  bf16 read[2][kWidth / kTile * kStepTile];
  bf16 write[2][kWidth / kTile * kStepTile];
  bf16 out[kWidth / kTile * kStepTile];
  bf16 anchor[2]
             [kWidth * kSlots];  // the state that the forward sweep stored, as the role's threads hold theirs
  bf16 strengths[2][kStepTile];  // of what is written, decayed to the start of its 16 rows
  bf16 slots[2][kStepTile];      // write strengths s, decayed to the end of their 16 rows
  SlotWork work[2];
  bf16 weights[2][kStep * kWeightPitch];  // pairs inside each 16 rows, [reading j][written i]
  float decay[2][kSubs][kSlots];
  float partial[2][kSubs][kPartial];
  float pairs[2][kSubs][kPairs];
  union {
    ExactWork exact;
    alignas(1024) bf16 raw[kWidth / kTile * kStepTile];  // layer form (sweep_slope_sm90.cuh)
  };
  uint64_t read_ready[2], write_ready[2], anchor_ready[2], prepared[2], partial_ready[2], raw_ready;
  uint64_t active[2];  // layer form (sweep_activate_sm90.cuh)
};

constexpr int kPreparedBytes = 2 * kTileBytes + kDecayBytes + kWeightBytes;

template <int kWidth>
__device__ __forceinline__ void start_barriers(Shared<kWidth>& x) {
  for (int i = 0; i < 2; ++i) {
    init_barrier(&x.read_ready[i]);
    init_barrier(&x.write_ready[i]);
    init_barrier(&x.anchor_ready[i]);
    init_barrier(&x.active[i]);
    init_barrier(&x.prepared[i]);
    init_barrier(&x.partial_ready[i]);
    expect_bytes(&x.prepared[i], kPreparedBytes);
    expect_bytes(&x.partial_ready[i], kPartialBytes);
  }
  init_barrier(&x.raw_ready);
  publish_barriers();
}

template <bool kGrouped, int kHalf, int kCluster>
struct Place {
  static constexpr int kHalves = kHalf == 0 ? 1 : 2, kSlotsOfHead = kHalves * kSlots, half = kHalf / 2;
  Line line;
  int cluster, rank;
  __device__ explicit Place(const ReverseSweep& a)
      : line(a.line, blockIdx.x / kCluster), cluster(blockIdx.x / kCluster), rank(cluster_rank<kCluster>()) {}
  __device__ Ends ends(const ReverseSweep& a) const {
    return {a.ends, a.hand_over, a.HQ, cluster, rank, kCluster};
  }
  // Said so that the compiler knows where rows of both kinds of heads are the same.
  __device__ static int64_t kv_heads(const ReverseSweep& a) { return kGrouped ? a.H : a.HQ; }
  // The gradients of states are those of query heads.
  __device__ static Location own_states(Location x) {
    x.kv_head = x.head;
    return x;
  }
  // Place of a stored state, or of its product with a gradient, among those of all blocks.
  __device__ int64_t anchor(const Location& x, int64_t heads, int64_t head) const {
    const int64_t n = first_anchor(x.row - x.chunk * kStep, x.sequence) + x.chunk;
    return ((n * heads + head) * kHalves + half) * kCluster + rank;
  }
};

// Sum over the channels of state * gradient, by slot. The `in` layout: four lanes share a slot.
template <int kWidth>
__device__ __forceinline__ void store_flow(const InState<kWidth>& state, const bf16* anchor, float* flow,
                                           int thread) {
  constexpr int kParts = sizeof(state) / 32;
  const float* x = reinterpret_cast<const float*>(&state);
  float sum[2] = {};
#pragma unroll
  for (int i = 0; i < kParts; ++i) {
    const uint4 v = reinterpret_cast<const uint4*>(anchor)[i * kRole + thread];
#pragma unroll
    for (int t = 0; t < 4; ++t) {
      const float2 pair = __bfloat1622float2(reinterpret_cast<const __nv_bfloat162*>(&v)[t]);
      sum[t % 2] += pair.x * x[8 * i + 2 * t] + pair.y * x[8 * i + 2 * t + 1];
    }
  }
#pragma unroll
  for (int t = 0; t < 2; ++t) {
    sum[t] += __shfl_xor_sync(~0u, sum[t], 1);
    sum[t] += __shfl_xor_sync(~0u, sum[t], 2);
    if (thread % 4 == 0) flow[thread / 32 * 16 + thread % 32 / 4 + t * 8] = sum[t];
  }
}
// The `out` layout: eight lanes and four warps share a slot; one row of `flow` a warp.
template <int kWidth>
__device__ __forceinline__ void store_flow(const OutState<kWidth>& state, const bf16* anchor, float* flow,
                                           int thread) {
  constexpr int kParts = sizeof(state) / 32;
  const float* x = reinterpret_cast<const float*>(&state);
  float sum[kSlots / 8][2] = {};
#pragma unroll
  for (int i = 0; i < kParts; ++i) {
    const uint4 v = reinterpret_cast<const uint4*>(anchor)[i * kRole + thread];
#pragma unroll
    for (int t = 0; t < 4; ++t) {
      const float2 pair = __bfloat1622float2(reinterpret_cast<const __nv_bfloat162*>(&v)[t]);
      float (&to)[2] = sum[(2 * i + t / 2) % (kSlots / 8)];
      to[0] += pair.x * x[8 * i + 2 * t];
      to[1] += pair.y * x[8 * i + 2 * t + 1];
    }
  }
#pragma unroll
  for (int n = 0; n < kSlots / 8; ++n)
#pragma unroll
    for (int t = 0; t < 2; ++t) {
#pragma unroll
      for (int o = 4; o < 32; o *= 2) sum[n][t] += __shfl_xor_sync(~0u, sum[n][t], o);
      if (thread % 32 < 4) flow[thread / 32 * kSlots + 8 * n + thread % 4 * 2 + t] = sum[n][t];
    }
}

}  // namespace
}  // namespace gsa::sm90
