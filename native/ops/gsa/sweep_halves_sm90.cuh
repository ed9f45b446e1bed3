// 128 slots in the sweep in the direction of time: two halves of 64, each with blocks of its own in one
// cluster, strangers to one another but for the softmax (or p . dp) of a row and the sum of their outputs. A
// block's partner has the other half of the same channels and, in the slot role, of the same rows.
#pragma once

#include "sweep_sm90.cuh"

namespace gsa::sm90 {

// Which half of its head's slots a block has: a constant where there is only one.
template <int kHalves>
struct Half {
  static constexpr int half = 0;
  __device__ __forceinline__ explicit Half(int) {}
};
template <>
struct Half<2> {
  int half;
  __device__ __forceinline__ explicit Half(int which) : half(which) {}
};

constexpr int kHalfRows = kStep / 2, kHalfTile = kHalfRows * kTile;

// Sums of the rows of two blocks in turn, as SlotWork has those of the own warps.
struct HalfSums {
  union {
    float2 sums[2][kSub][4];
    alignas(16) float means[2][kSub][4];
  };
  uint64_t ready[2];
};
// What arrives from the partner. `outputs`: its share of the 32 rows of a step that this block finishes,
// rounded.
template <int kOut>
struct HalvesWork {
  bf16 outputs[kOut / kTile * kHalfTile];
  HalfSums rows;
  uint64_t outputs_ready;
};

template <bool kBackward>
constexpr int kHalfSumBytes = kSub * 4 * (kBackward ? sizeof(float) : sizeof(float2));

template <bool kBackward, int kOut>
__device__ __forceinline__ void start_halves(HalvesWork<kOut>& x) {
  init_barrier(&x.outputs_ready);
  expect_bytes(&x.outputs_ready, sizeof(x.outputs));
  for (int i = 0; i < 2; ++i) {
    init_barrier(&x.rows.ready[i]);
    expect_bytes(&x.rows.ready[i], kHalfSumBytes<kBackward>);
  }
}

// The other half as the slot role sees it while it works on its block of rows number `turn`. A partner sends
// what belongs to turn + 2 after it has all of turn + 1, hence after this block has read `turn`. `meanwhile`:
// what is done between sending and waiting.
template <int kHalves, bool kBackward, class Meanwhile>
struct OtherHalf {
  template <class... Sums>
  __device__ __forceinline__ void send(int, int, Sums...) const {}
  __device__ __forceinline__ void wait(int) const {}
};
template <bool kBackward, class Meanwhile>
struct OtherHalf<2, kBackward, Meanwhile> {
  HalfSums& here;
  int partner, turn;
  const Meanwhile& meanwhile;
  __device__ __forceinline__ void send(int row, int warp, float most, float sum) const {
    store_async(remote_address<2>(&here.sums[turn % 2][row][warp], partner), barrier(),
                make_uint2(__float_as_uint(most), __float_as_uint(sum)));
  }
  __device__ __forceinline__ void send(int row, int warp, float mean) const {
    store_async(remote_address<2>(&here.means[turn % 2][row][warp], partner), barrier(),
                __float_as_uint(mean));
  }
  __device__ __forceinline__ void wait(int thread) const {
    wait_barrier(&here.ready[turn % 2], turn / 2 % 2);
    if (thread == 0) expect_bytes(&here.ready[turn % 2], kHalfSumBytes<kBackward>);
  }
  __device__ __forceinline__ float2 sums(int row, int warp) const { return here.sums[turn % 2][row][warp]; }
  __device__ __forceinline__ float mean(int row) const {
    const float4 x = *reinterpret_cast<const float4*>(here.means[turn % 2][row]);
    return (x.x + x.y) + (x.z + x.w);
  }

 private:
  __device__ __forceinline__ uint32_t barrier() const {
    return remote_address<2>(&here.ready[turn % 2], partner);
  }
};

// Half `half` finishes rows 32 half .. 32 half + 31 of a step. Before: the warp has staged block `sub` of the
// outputs, of which its partner gets what that one finishes.
template <int kGroups, int kOut>
__device__ __forceinline__ void send_outputs(const bf16* tiles, HalvesWork<kOut>& x, int half, int partner,
                                             int sub, int thread) {
  if (sub / (kSubs / 2) == half) return;
  const int lane = thread % 32, column = thread / 32 * 16 + lane % 2 * 8, row = sub * kSub + lane / 2;
  __syncwarp();
#pragma unroll
  for (int c = 0; c < kGroups; ++c)
    store_async(remote_address<2>(x.outputs + c * kHalfTile + tile_offset(row % kHalfRows, column), partner),
                remote_address<2>(&x.outputs_ready, partner),
                *reinterpret_cast<const uint4*>(tiles + c * kStepTile + tile_offset(row, column)));
}
// Adds what the partner sent to what the warp has staged of this block's rows.
template <int kGroups, int kOut>
__device__ __forceinline__ void add_outputs(bf16* tiles, HalvesWork<kOut>& x, int half, int turn,
                                            int thread) {
  const int lane = thread % 32, column = thread / 32 * 16 + lane % 2 * 8;
  wait_barrier(&x.outputs_ready, turn % 2);
  if (thread == 0) expect_bytes(&x.outputs_ready, sizeof(x.outputs));
  __syncwarp();
#pragma unroll
  for (int row = lane / 2; row < kHalfRows; row += kSub)
#pragma unroll
    for (int c = 0; c < kGroups; ++c) {
      auto& mine =
          *reinterpret_cast<uint4*>(tiles + c * kStepTile + half * kHalfTile + tile_offset(row, column));
      mine = add_bf16(mine,
                      *reinterpret_cast<const uint4*>(x.outputs + c * kHalfTile + tile_offset(row, column)));
    }
}

}  // namespace gsa::sm90
