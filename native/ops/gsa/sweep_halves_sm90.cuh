// 128 slots in the sweep in the direction of time: two halves of 64, each with blocks of its own in one
// cluster, strangers to one another but for the softmax (or p . dp) of a row and the sum of their outputs. A
// block's partner has the other half of the same channels and, in the slot role, of the same rows. Half h
// finishes rows 32 h .. 32 h + 31 of a step.
//
// Forward no half waits for the other's softmax: each divides by its own largest exponential only, and the
// factors that are missing meet the two shares of the outputs where they are added.
#pragma once

#include "sweep_slots_sm90.cuh"

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

// What arrives from the partner, and from the slot roles of the own half what they make of it.
template <int kOut>
struct HalvesWork {
  bf16 outputs[2][kOut / kTile * kHalfTile];  // its share of the rows that this half finishes, rounded
  union {
    alignas(16) float2 sums[2][2][kSub];  // forward: largest logit, sum of exponentials
    alignas(16) float means[2][kSub][4];  // backward: sums of p dp, by warp
  };
  alignas(16) float2 own_sums[kSub];         // what the block itself has beside `sums`
  alignas(16) float2 factors[4][kHalfRows];  // forward: of the rows that this half finishes, for its outputs
                                             // and the partner's
  uint64_t outputs_ready[4];                 // of the factors too
  uint64_t sums_ready[2][2], means_ready[2];
};
constexpr int kHalfSumBytes = kSub * sizeof(float2), kHalfMeanBytes = kSub * 4 * sizeof(float);
template <bool kBackward, int kOut>
constexpr int kHalfOutputBytes =
    sizeof(HalvesWork<kOut>::outputs) / 2 + (kBackward ? 0 : kHalfRows * sizeof(float2));

template <bool kBackward, int kOut>
__device__ __forceinline__ void start_halves(HalvesWork<kOut>& x) {
  const auto start = [](uint64_t* barrier, int bytes) {
    init_barrier(barrier);
    expect_bytes(barrier, bytes);
  };
  for (int i = 0; i < 4; ++i) start(&x.outputs_ready[i], kHalfOutputBytes<kBackward, kOut>);
  for (int i = 0; i < 2; ++i) {
    start(&x.sums_ready[i][0], kHalfSumBytes);
    start(&x.sums_ready[i][1], kHalfSumBytes);
    start(&x.means_ready[i], kHalfMeanBytes);
  }
}

// The partner's sums of p dp as the slot role sees them while it works on its block of rows number `turn`.
// The partner sends what belongs to turn + 2 after it has all of turn + 1, hence after this block has read
// `turn`. `meanwhile`: what is done between sending and waiting.
template <int kHalves, int kOut, class Meanwhile>
struct OtherMeans {};
template <int kOut, class Meanwhile>
struct OtherMeans<2, kOut, Meanwhile> {
  HalvesWork<kOut>& x;
  int partner, turn;
  const Meanwhile& meanwhile;
  __device__ __forceinline__ void send(int row, int warp, float mean) const {
    store_async(remote_address<2>(&x.means[turn % 2][row][warp], partner),
                remote_address<2>(&x.means_ready[turn % 2], partner), __float_as_uint(mean));
  }
  __device__ __forceinline__ void wait(int thread) const {
    wait_barrier(&x.means_ready[turn % 2], turn / 2 % 2);
    if (thread == 0) expect_bytes(&x.means_ready[turn % 2], kHalfMeanBytes);
  }
  __device__ __forceinline__ float mean(int row) const {
    const float4 v = *reinterpret_cast<const float4*>(x.means[turn % 2][row]);
    return (v.x + v.y) + (v.z + v.w);
  }
};

// Largest logit (in units of log 2) and sum of exponentials of this half, for the thread's rows.
struct RowSums {
  float most[2][2], all[2][2];
};
__device__ __forceinline__ uint4 two_rows(float x0, float y0, float x1, float y1) {
  return {__float_as_uint(x0), __float_as_uint(y0), __float_as_uint(x1), __float_as_uint(y1)};
}
// Of block `sub` of step `step`: to the half that finishes its rows.
template <int kOut>
__device__ __forceinline__ void send_sums(const RowSums& sums, HalvesWork<kOut>& x, int half, int partner,
                                          int step, int sub, const FragmentPlace& at) {
  if (at.thread >= 4) return;
#pragma unroll
  for (int n = 0; n < 2; ++n) {
    const uint4 two = two_rows(sums.most[n][0], sums.all[n][0], sums.most[n][1], sums.all[n][1]);
    if (sub / (kSubs / 2) == half)
      *reinterpret_cast<uint4*>(&x.own_sums[at.row + 8 * n]) = two;
    else
      store_async(remote_address<2>(&x.sums[step % 2][sub % 2][at.row + 8 * n], partner),
                  remote_address<2>(&x.sums_ready[step % 2][sub % 2], partner), two);
  }
}
// Of one whose rows this half finishes: what both halves' outputs are to be multiplied by, to the blocks of
// this half, a warp each. At least one barrier of the role after send_sums.
template <int kCluster, int kOut>
__device__ __forceinline__ void send_factors(HalvesWork<kOut>& x, int step, int sub,
                                             const FragmentPlace& at) {
  uint64_t* const arrived = &x.sums_ready[step % 2][sub % 2];
  wait_barrier(arrived, step / 2 % 2);
  if (at.thread == 0) expect_bytes(arrived, kHalfSumBytes);
  if (at.warp >= kCluster || at.lane >= 4) return;
  const int rank = at.first_rank + at.warp;
#pragma unroll
  for (int n = 0; n < 2; ++n) {
    float mine[2], theirs[2];
#pragma unroll
    for (int b = 0; b < 2; ++b) {
      const float2 own = x.own_sums[at.row + 8 * n + b],
                   other = x.sums[step % 2][sub % 2][at.row + 8 * n + b];
      const float most = fmaxf(own.x, other.x);
      mine[b] = exp2_approx(own.x - most);
      theirs[b] = exp2_approx(other.x - most);
      const float part = reciprocal_approx(mine[b] * own.y + theirs[b] * other.y);
      mine[b] *= part;
      theirs[b] *= part;
    }
    store_async(remote_address<2>(&x.factors[step % 4][sub % 2 * kSub + at.row + 8 * n], rank),
                remote_address<2>(&x.outputs_ready[step % 4], rank),
                two_rows(mine[0], theirs[0], mine[1], theirs[1]));
  }
}

// Where a thread of the out role finds 16 bytes of its warp's 16 columns, in the first 16 rows of a tile.
__device__ __forceinline__ int row_part(int thread) {
  return tile_offset(thread % 32 / 2, thread / 32 * 16 + thread % 2 * 8);
}

// Before: the warp has staged block `sub` of the outputs, of which its partner gets what that one finishes.
template <int kGroups, int kOut>
__device__ __forceinline__ void send_outputs(const bf16* tiles, HalvesWork<kOut>& x, int half, int partner,
                                             int step, int sub, int thread) {
  if (sub / (kSubs / 2) == half) return;
  const int part = row_part(thread);
  __syncwarp();
#pragma unroll
  for (int c = 0; c < kGroups; ++c)
    store_async(
        remote_address<2>(x.outputs[step % 2] + c * kHalfTile + sub % (kSubs / 2) * kSubTile + part, partner),
        remote_address<2>(&x.outputs_ready[step % 4], partner),
        *reinterpret_cast<const uint4*>(tiles + c * kStepTile + sub * kSubTile + part));
}
// Adds what the partner sent of step `step` to what the warp has staged of this half's rows.
template <bool kBackward, int kGroups, int kOut>
__device__ __forceinline__ void add_outputs(bf16* tiles, HalvesWork<kOut>& x, int half, int step,
                                            int thread) {
  wait_barrier(&x.outputs_ready[step % 4], step / 4 % 2);
  if (thread == 0) expect_bytes(&x.outputs_ready[step % 4], kHalfOutputBytes<kBackward, kOut>);
  __syncwarp();
  const int part = row_part(thread);
  bf16* own = tiles + half * kHalfTile + part;
  const bf16* theirs = x.outputs[step % 2] + part;
  constexpr int kParts = kHalfRows / kSub;
  // All are read before the first is stored: the compiler does not know that these are other places.
  uint4 x0[kParts][kGroups], x1[kParts][kGroups];
  float2 factors[kParts];
#pragma unroll
  for (int i = 0; i < kParts; ++i) {
    factors[i] = kBackward ? make_float2(1.0f, 1.0f) : x.factors[step % 4][i * kSub + thread % 32 / 2];
#pragma unroll
    for (int c = 0; c < kGroups; ++c) {
      x0[i][c] = *reinterpret_cast<const uint4*>(own + c * kStepTile + i * kSubTile);
      x1[i][c] = *reinterpret_cast<const uint4*>(theirs + c * kHalfTile + i * kSubTile);
    }
  }
#pragma unroll
  for (int i = 0; i < kParts; ++i)
#pragma unroll
    for (int c = 0; c < kGroups; ++c)
      *reinterpret_cast<uint4*>(own + c * kStepTile + i * kSubTile) =
          add_bf16(x0[i][c], x1[i][c], factors[i]);
}

}  // namespace gsa::sm90
