// What a block of the sweep in the direction of time has in shared memory, and which of the work is its own.
#pragma once

#include "sweep_activate_sm90.cuh"
#include "sweep_forward_sm90.cuh"
#include "sweep_halves_sm90.cuh"
#include "sweep_pieces_sm90.cuh"
#include "sweep_slots_sm90.cuh"

namespace gsa::sm90 {
namespace {

// What is rarely needed, in one place. 128 slots have no layer form, and no room for either.
template <bool kLayers, int kOut>
union Rare {
  ExactWork exact;
  alignas(1024) bf16 raw[kOut / kTile * kStepTile];  // layer form (sweep_slope_sm90.cuh)
};
template <int kOut>
union Rare<false, kOut> {};

// Whether ExactWork lies in global memory, a block each.
constexpr bool exact_is_away(bool layer, bool backward, int halves) {
  return (layer && backward) || halves == 2;
}

template <bool kLayers, int kIn, int kOut>
struct Shared {
  bf16 reading[2][kIn / kTile * kStepTile];
  bf16 writing[2][kIn / kTile * kStepTile];
  bf16 values[2][kOut / kTile * kStepTile];  // the outputs take the places of rows that are done
  bf16 strengths[4][kStepTile];              // decayed to the end of their 16 rows
  bf16 slots[2][kStepTile];  // what reads the second state, decayed from the start of its 16 rows
  SlotWork work;
  bf16 weights[2][kStep * kWeightPitch];  // pairs inside each 16 rows
  float decay[4][kSubs][kSlots];          // of each 16 rows
  float partial[2][kSubs][kPartial];      // [.., owned block * kCluster + source, ..]
  float pairs[2][kSubs][kPairs];
  Rare<kLayers, kOut> rare;
  uint64_t rows_ready[2], values_ready[2], strengths_ready[4], partial_ready[2], slots_ready[2], raw_ready;
  uint64_t rows_active[2], values_active[2];  // layer form (sweep_activate_sm90.cuh)
};

template <int kIn, int kOut>
struct SharedOfHalf : Shared<false, kIn, kOut> {
  HalvesWork<kOut> halves;
};
template <int kHalves, int kIn, int kOut>
using Memory = std::conditional_t<kHalves == 1, Shared<true, kIn, kOut>, SharedOfHalf<kIn, kOut>>;

template <bool kBackward, int kHalves, int kIn, int kOut>
__device__ __forceinline__ void start_barriers(Memory<kHalves, kIn, kOut>& x) {
  for (int i = 0; i < 2; ++i) {
    init_barrier(&x.rows_ready[i]);
    init_barrier(&x.values_ready[i]);
    init_barrier(&x.rows_active[i]);
    init_barrier(&x.values_active[i]);
    init_barrier(&x.partial_ready[i]);
    init_barrier(&x.slots_ready[i]);
    expect_bytes(&x.partial_ready[i], kPartialBytes);
    expect_bytes(&x.slots_ready[i], kTileBytes + kWeightBytes);
  }
  for (int i = 0; i < 4; ++i) {
    init_barrier(&x.strengths_ready[i]);
    expect_bytes(&x.strengths_ready[i], kTileBytes + kDecayBytes);
  }
  init_barrier(&x.raw_ready);
  if constexpr (kHalves == 2) start_halves<kBackward>(x.halves);
  publish_barriers();
}

// The cluster's walks, and which block of the cluster this is: which half of the slots and block of that.
template <int kHalves, int kCluster>
struct Place : Half<kHalves> {
  static constexpr int kBlocks = kHalves * kCluster, kSlotsOfHead = kHalves * kSlots;
  Line line;
  int cluster, rank;
  __device__ explicit Place(const ForwardSweep& a)
      : Half<kHalves>(kHalves == 1 ? 0 : uniform(cluster_rank<kBlocks>()) / kCluster),
        line(a.line, blockIdx.x / kBlocks),
        cluster(blockIdx.x / kBlocks),
        rank(kHalves == 1 ? cluster_rank<kBlocks>() : uniform(cluster_rank<kBlocks>()) % kCluster) {}
  __device__ int partner() const { return (1 - this->half) * kCluster + rank; }
  __device__ Ends ends(const ForwardSweep& a) const {
    return {a.ends, a.hand_over, a.H, cluster, this->half * kCluster + rank, kBlocks};
  }
};

}  // namespace
}  // namespace gsa::sm90
