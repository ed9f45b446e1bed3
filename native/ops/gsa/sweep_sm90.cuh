// What the sweeps share: one walk over the tokens of a sequence, 64 at a time, with both states of a head in
// the registers of a cluster of blocks, each block a slice of the key and of the value channels.
// README-sweeps.md has the schedule.
//
// Twelve warps a block, three roles, each a warpgroup:
//   in    contracts rows with the first state, which it holds as [slots, channels]
//   out   contracts slots with the second state, which it holds as [channels, slots]
//   slot  what is elementwise or between: decays, sums over the cluster, softmax, pairs of a block of rows
// Inside the 64 tokens the states move on every 16, so that only pairs inside a block of 16 rows remain.
// Blocks hand one another what they need by stores that count themselves in (barrier.cuh); the one barrier of
// the cluster in every step only says that what was read may be overwritten.
#pragma once

#include <algorithm>

#include "../../cuda/kernel.cuh"
#include "../../cuda/launch.cuh"
#include "../../cuda/tensor_map.h"
#include "../../sm90/barrier.cuh"
#include "../../sm90/wgmma.cuh"
#include "params.h"
#include "sweep_line.h"

namespace gsa::sm90 {

constexpr int kSlots = 64;                      // of a block: M, or half of it (kHalves)
constexpr int kSub = 16, kSubs = kStep / kSub;  // tokens between two moves of the states
constexpr int kRole = 128;                      // threads of a role
constexpr int kSweepThreads = 3 * kRole;
constexpr int kSlotBarrier = 1, kInBarrier = 2, kOutBarrier = 3;  // of the roles' own threads
constexpr int kRowsBarrier = 4;  // of the in role and another that reads or clears its rows

constexpr int kWeightPitch = 24;  // bfloat16 between rows of the pair weights
constexpr int kStepTile = kStep * kTile, kSubTile = kSub * kTile;
constexpr int kPartial = kSub * kSlots, kPairs = kSub * kSub;  // floats that a block of rows sends its owner

// What arrives in a step, in bytes, at every block: from all blocks for all rows, or for the rows it owns.
constexpr int kTileBytes = kStepTile * sizeof(bf16), kDecayBytes = kSubs * kSlots * sizeof(float);
constexpr int kWeightBytes = kSubs * kPairs * sizeof(bf16);
constexpr int kPartialBytes = kSubs * (kPartial + kPairs) * sizeof(float);

// States at the ends of walks, as threads hold them: [sequence, key/value head, block, in and out]
// (sweep_states_sm90.cuh). NULL: zeros, or not wanted.
struct StateEnds {
  const float* start;
  float* end;
};

// The stored states of one block: first the `in` state, then the `out` state.
__host__ __device__ constexpr int64_t anchor_elements(int in_slice, int out_slice) {
  return (in_slice + out_slice) * int64_t{kSlots};
}

// States handed from cluster to cluster where a walk is cut, or (`ready` is NULL) there before the launch.
struct HandOver {
  float* states;  // [cluster, block, in and out]
  int* ready;     // [cluster, block, 2], zero before the launch
};

// 64 rows of kWidth channels from `column`, as tiles of 64 columns, on their way. One thread; counts as
// kWidth / 64 * kTileBytes.
template <int kWidth>
__device__ __forceinline__ void load_step(bf16* tiles, const TensorMap& map, int64_t column, int64_t row,
                                          uint64_t* barrier) {
#pragma unroll
  for (int t = 0; t < kWidth / kTile; ++t)
    load_box(tiles + t * kStepTile, map, static_cast<int>(column) + t * kTile, static_cast<int>(row),
             barrier);
}
// Zeros for the rows past the end of the sequence: the boxes brought those of the next one.
template <int kWidth>
__device__ __forceinline__ void clear_rows(bf16* tiles, int rows, int thread) {
  for (int i = rows * 8 + thread; i < kStep * 8; i += kRole)
#pragma unroll
    for (int t = 0; t < kWidth / kTile; ++t)
      *reinterpret_cast<uint4*>(tiles + t * kStepTile + i * 8) = {0, 0, 0, 0};
}

// The same by a warp, of the 16 rows `sub`.
template <int kWidth>
__device__ __forceinline__ void clear_block(bf16* tiles, int rows, int sub, int lane) {
  for (int i = max(rows, sub * kSub) * 8 + lane; i < (sub + 1) * kSub * 8; i += 32)
#pragma unroll
    for (int t = 0; t < kWidth / kTile; ++t)
      *reinterpret_cast<uint4*>(tiles + t * kStepTile + i * 8) = {0, 0, 0, 0};
}

// Between two moves of the states a third of the instructions are addresses: where registers are short the
// compiler makes them again wherever they are used. How a role comes by those of the blocks of 16 rows:
//   kept     made once, behind a shuffle, which the compiler cannot repeat
//   hoisted  made before the loop over the blocks, as far as the compiler leaves them there
//   made     in every turn of the loop, as far as the compiler does not hoist them
//   again    in every turn
// Which is fastest where was found by trying (README-sweeps.md).
enum class Addresses { kept, hoisted, made, again };
__device__ __forceinline__ int held(int x) { return __shfl_sync(~0u, x, threadIdx.x % 32); }
__device__ __forceinline__ int again(int x) {
#ifdef __CUDA_ARCH__
  asm volatile("" : "+r"(x));
#endif
  return x;
}
template <Addresses kHow>
__device__ __forceinline__ int index(int x) {
  return kHow == Addresses::kept ? held(x) : x;
}

// Where a thread of the in and out roles finds its part of 16 rows, in elements.
struct RolePlace {
  int warp, lane;
  int tile;    // of the 16 columns of its warp in a tile, as ldmatrix and stmatrix want them, transposed
  int slot;    // in: its first
  int pair;    // out: its first two slots
  int weight;  // out: of the weights of the rows' pairs
  __device__ explicit __forceinline__ RolePlace(int thread)
      : warp(thread / 32),
        lane(thread % 32),
        tile(tile_offset((lane & 7) + (lane >> 4) * 8, warp * 16 + (lane & 8))),
        slot(warp * 16 + lane / 4),
        pair(lane % 4 * 2),
        weight(((lane & 7) + (lane >> 4) * 8) * kWeightPitch + (lane & 8)) {}
};
template <Addresses kHow>
class RolePlaces {
 public:
  __device__ explicit __forceinline__ RolePlaces(int thread) : thread_(thread), place_(thread) {
    if constexpr (kHow != Addresses::kept) return;
    for (int* x : {&place_.tile, &place_.slot, &place_.pair, &place_.weight}) *x = held(*x);
  }
  __device__ __forceinline__ const RolePlace& first() const { return place_; }
  // In a turn of the loop.
  __device__ __forceinline__ RolePlace here() const {
    if constexpr (kHow == Addresses::again) return RolePlace(again(thread_));
    if constexpr (kHow == Addresses::made) return RolePlace(thread_);
    return place_;
  }

 private:
  int thread_;
  RolePlace place_;
};

// Operands b of the rows of a step, 16 at a time.
template <Addresses kHow, bool kColumns>
class StepRows {
 public:
  __device__ explicit __forceinline__ StepRows(const bf16* tile) : tile_(tile), first_(from(tile, 0)) {
    if constexpr (kHow == Addresses::kept) first_ = held(first_);
  }
  __device__ __forceinline__ Operand block(int sub) const {
    if constexpr (kHow == Addresses::kept || kHow == Addresses::hoisted)
      return advance(first_, sub * kSubTile);
    else
      return from(tile_, sub * kSub);
  }

 private:
  __device__ static __forceinline__ Operand from(const bf16* tile, int row) {
    if constexpr (kColumns)
      return column_operand(tile, row, kStepTile);
    else
      return row_operand(tile, row, 0);
  }
  const bf16* tile_;
  Operand first_;
};

// The first state, slots by kWidth channels of the slice, as a product's d: of x[n] a thread holds slots
// 16 warp + lane / 4 (+ 8) and channels 8 n + lane % 4 * 2 (+ 1).
template <int kWidth>
struct InState {
  float x[kWidth / 8][4];

  // What 16 rows need of the step: their write strengths as operand a, and the decays of the thread's slots.
  struct Move {
    uint32_t written[4];
    float decay[2];
    __device__ __forceinline__ Move(const bf16* strengths, const float* decays, int sub,
                                    const RolePlace& at) {
      ldmatrix_x4_trans(written, strengths + sub * kSubTile + at.tile);
      decay[0] = decays[sub * kSlots + at.slot];
      decay[1] = decays[sub * kSlots + at.slot + 8];
    }
  };

  // Starts: out [slots, 16 rows] = state . rows of `reading`, and state = decay * state + strengths^T
  // rows of `writing`, both operands of these rows. Then `answered` waits for out and `settle` for the state.
  __device__ __forceinline__ void start(const Operand& reading, const Operand& writing, const Move& move,
                                        float (&out)[2][4]) {
    uint32_t a[kWidth / 16][4];
#pragma unroll
    for (int k = 0; k < kWidth / 16; ++k)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        a[k][i] = pack_bf16(x[2 * k + i / 2][i % 2 * 2], x[2 * k + i / 2][i % 2 * 2 + 1]);
#pragma unroll
    for (int n = 0; n < kWidth / 8; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) x[n][i] *= move.decay[i / 2];
#pragma unroll
    for (int n = 0; n < 2; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) out[n][i] = 0.0f;
    wgmma_begin();
#pragma unroll
    for (int k = 0; k < kWidth / 16; ++k)
      wgmma<false>(out, a[k], advance(reading, k / 4 * kStepTile + k % 4 * 16));
    wgmma_commit();
    wgmma<true>(x, move.written, writing);
    wgmma_commit();
  }
  __device__ __forceinline__ void answered(float (&out)[2][4]) {
    wgmma_wait<1>();
    wgmma_arrived(out);
  }
  __device__ __forceinline__ void settle() {
    wgmma_wait<0>();
    wgmma_arrived(x);
  }
};

// The second state, kWidth channels of the slice by slots, as products' d: of x[c][n] a thread holds channels
// 64 c + 16 warp + lane / 4 (+ 8) and slots 8 n + lane % 4 * 2 (+ 1).
template <int kWidth>
struct OutState {
  static constexpr int kGroups = kWidth / 64;
  float x[kGroups][kSlots / 8][4];

  // What 16 rows need of the step: their own values and the weights of their pairs as operands.
  struct Move {
    uint32_t own[kGroups][4], pairs[4];
    __device__ __forceinline__ Move(const bf16* rows, const bf16* weights, int sub, const RolePlace& at) {
      ldmatrix_x4(pairs, weights + sub * kSub * kWeightPitch + at.weight);
#pragma unroll
      for (int c = 0; c < kGroups; ++c)
        ldmatrix_x4_trans(own[c], rows + c * kStepTile + sub * kSubTile + at.tile);
    }
  };

  // Starts: out [channels, 16 rows] = state . slots of the 16 rows `sub`, plus weights [16, 16] times the
  // rows' own values; and state = decay * state + rows^T strengths. Then as for InState.
  __device__ __forceinline__ void start(const Operand& slots, const Operand& strengths, const float* decays,
                                        const Move& move, int sub, const RolePlace& at,
                                        float (&out)[kGroups][2][4]) {
    uint32_t a[kGroups][kSlots / 16][4];
#pragma unroll
    for (int c = 0; c < kGroups; ++c) {
#pragma unroll
      for (int n = 0; n < 2; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) out[c][n][i] = 0.0f;
        mma(out[c][n], move.own[c], move.pairs[2 * n], move.pairs[2 * n + 1]);
      }
#pragma unroll
      for (int k = 0; k < kSlots / 16; ++k)
#pragma unroll
        for (int i = 0; i < 4; ++i)
          a[c][k][i] = pack_bf16(x[c][2 * k + i / 2][i % 2 * 2], x[c][2 * k + i / 2][i % 2 * 2 + 1]);
    }
    decays += sub * kSlots + at.pair;
#pragma unroll
    for (int n = 0; n < kSlots / 8; ++n) {
      const float2 d = *reinterpret_cast<const float2*>(decays + n * 8);
#pragma unroll
      for (int c = 0; c < kGroups; ++c) {
        x[c][n][0] *= d.x;
        x[c][n][1] *= d.y;
        x[c][n][2] *= d.x;
        x[c][n][3] *= d.y;
      }
    }
    wgmma_begin();
#pragma unroll
    for (int c = 0; c < kGroups; ++c)
#pragma unroll
      for (int k = 0; k < kSlots / 16; ++k) wgmma<false>(out[c], a[c][k], advance(slots, k * 16));
    wgmma_commit();
#pragma unroll
    for (int c = 0; c < kGroups; ++c) wgmma<true>(x[c], move.own[c], strengths);
    wgmma_commit();
  }
  __device__ __forceinline__ void answered(float (&out)[kGroups][2][4]) {
    wgmma_wait<1>();
#pragma unroll
    for (int c = 0; c < kGroups; ++c) wgmma_arrived(out[c]);
  }
  __device__ __forceinline__ void settle() {
    wgmma_wait<0>();
#pragma unroll
    for (int c = 0; c < kGroups; ++c) wgmma_arrived(x[c]);
  }
};

// The barrier of a step, in two halves, so that no role waits for another where it need not. `read`: the
// thread has read for the last time in this step what other threads write. `free`: all threads have in the
// step before, so that it may be overwritten. A role says `free` once a step, then `read`, then `done`, and
// makes no ordinary stores for others between `read` and the next `free`: racecheck sees no other barrier
// there (README-sweeps.md). A single block has no halves.
template <int kCluster>
struct Steps {
  __device__ __forceinline__ Steps() {
    if constexpr (kCluster > 1) cluster_arrive();
  }
  __device__ __forceinline__ void free() const {
    if constexpr (kCluster > 1) cluster_wait();
  }
  __device__ __forceinline__ void read() const {
    if constexpr (kCluster > 1) cluster_arrive();
  }
  __device__ __forceinline__ void done() const {
    if constexpr (kCluster == 1) __syncthreads();
  }
  // After the last step: the other blocks may still store into this one's memory.
  __device__ __forceinline__ void end() const { free(); }
};

// A state as its threads hold it, for the sweep that walks back with the same shapes: 64 values a thread (or
// fewer), 16 bytes at a time, `kRole` threads side by side.
template <class State>
__device__ __forceinline__ void store_anchor(const State& state, bf16* to, int thread) {
  constexpr int kParts = sizeof(State) / 32;
  const float* x = reinterpret_cast<const float*>(&state);
  to = opaque(to);
#pragma unroll
  for (int i = 0; i < kParts; ++i)
    reinterpret_cast<uint4*>(to)[i * kRole + thread] = {
        pack_bf16(x[8 * i], x[8 * i + 1]), pack_bf16(x[8 * i + 2], x[8 * i + 3]),
        pack_bf16(x[8 * i + 4], x[8 * i + 5]), pack_bf16(x[8 * i + 6], x[8 * i + 7])};
}

// Of 16 rows: the state's answers to the block that owns them, as the thread holds them. `partial`, `ready`:
// as they lie in this block.
template <int kCluster>
__device__ __forceinline__ void send_partial(const float (&out)[2][4], float* partial, uint64_t* ready,
                                             int owner, int thread) {
  const uint32_t to = remote_address<kCluster>(partial + thread * 4, owner),
                 barrier = remote_address<kCluster>(ready, owner);
  store_async(to, barrier, out[0]);
  store_async(to + kRole * 16, barrier, out[1]);
}

// Where a warp finds the 16 rows `sub` of operands a and b, columns 0 to 15; those 16 k further are at
// `^ 16 k`.
struct PairPlace {
  int reading, writing;
};
template <Addresses kHow>
__device__ __forceinline__ PairPlace pair_place(int sub, int lane) {
  return {index<kHow>(tile_offset(sub * kSub + (lane & 15), (lane >> 4) * 8)),
          index<kHow>(tile_offset(sub * kSub + (lane & 7) + (lane >> 4) * 8, lane & 8))};
}

// Products over the slice of 16 rows of `reading` with the same rows of `writing`, [16, 16], as a warp's
// products leave them: reading row lane / 4 (+ 8), written row 8 n + lane % 4 * 2 (+ 1). In quarters, which
// fill the time of other products.
template <int kWidth>
struct Pairs {
  float x[2][4] = {};
  __device__ __forceinline__ void add(const bf16* reading, const bf16* writing, const PairPlace& at,
                                      int quarter) {
#pragma unroll
    for (int i = 0; i < kWidth / 64; ++i) {
      const int k = quarter * (kWidth / 64) + i;
      uint32_t fa[4], fb[4];
      ldmatrix_x4(fa, reading + k / 4 * kStepTile + (at.reading ^ k % 4 * 16));
      ldmatrix_x4(fb, writing + k / 4 * kStepTile + (at.writing ^ k % 4 * 16));
      mma(x[0], fa, fb[0], fb[1]);
      mma(x[1], fa, fb[2], fb[3]);
    }
  }
  // All quarters, where nothing else has to be done meanwhile.
  __device__ __forceinline__ void add(const bf16* reading, const bf16* writing, const PairPlace& at) {
#pragma unroll 1
    for (int quarter = 0; quarter < 4; ++quarter) add(reading, writing, at, quarter);
  }
  // To the block that owns the rows; the address and the barrier as they lie in this one.
  template <int kCluster>
  __device__ __forceinline__ void send(float* pairs, uint64_t* ready, int owner, int lane) const {
    const uint32_t to = remote_address<kCluster>(pairs + lane * 4, owner),
                   barrier = remote_address<kCluster>(ready, owner);
    store_async(to, barrier, x[0]);
    store_async(to + 32 * 16, barrier, x[1]);
  }
};

// [channels, 16 rows] of the role into rows `sub` of `tiles`, as load_step leaves them; a warp has 16 columns
// of each.
template <int kGroups>
__device__ __forceinline__ void stage_rows(const float (&out)[kGroups][2][4], bf16* tiles, int sub,
                                           const RolePlace& at) {
  bf16* to = tiles + sub * kSubTile + at.tile;
#pragma unroll
  for (int c = 0; c < kGroups; ++c)
    stmatrix_x4_trans(to + c * kStepTile, pack_bf16(out[c][0][0], out[c][0][1]),
                      pack_bf16(out[c][0][2], out[c][0][3]), pack_bf16(out[c][1][0], out[c][1][1]),
                      pack_bf16(out[c][1][2], out[c][1][3]));
}
// Eight values each, times their factors, rounded once more.
__device__ __forceinline__ uint4 add_bf16(const uint4& x, const uint4& y, float2 factors = {1.0f, 1.0f}) {
  uint32_t sums[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 a = __bfloat1622float2(reinterpret_cast<const __nv_bfloat162*>(&x)[i]),
                 b = __bfloat1622float2(reinterpret_cast<const __nv_bfloat162*>(&y)[i]);
    sums[i] = pack_bf16(factors.x * a.x + factors.y * b.x, factors.x * a.y + factors.y * b.y);
  }
  return {sums[0], sums[1], sums[2], sums[3]};
}

// kRows staged rows, of which `rows` exist, to `map` and, where they are not all, to the same place at `to`;
// kAdds: to what is there. All threads of the role; thread 0 has to wait for its stores before the tiles are
// written again.
template <int kBarrier, int kGroups, int kRows = kStep, bool kAdds = false>
__device__ __forceinline__ void store_step(const bf16* tiles, const TensorMap& map, int64_t column,
                                           int64_t row, bf16* to, int64_t stride, int rows, int thread) {
  publish_shared();
  named_sync<kBarrier, kRole>();
  if (rows == kRows) {
    if (thread == 0) {
#pragma unroll
      for (int c = 0; c < kGroups; ++c)
        store_box<kAdds>(map, static_cast<int>(column) + c * kTile, static_cast<int>(row),
                         tiles + c * kStepTile);
      commit_stores();
    }
    return;
  }
  for (int i = thread; i < rows * kGroups * 8; i += kRole) {
    const int r = i / (kGroups * 8), part = i % (kGroups * 8);
    const auto& staged =
        *reinterpret_cast<const uint4*>(tiles + part / 8 * kStepTile + tile_offset(r, part % 8 * 8));
    auto& there = *reinterpret_cast<uint4*>(to + r * stride + part * 8);
    if constexpr (kAdds)
      there = add_bf16(there, staged);
    else
      there = staged;
  }
}

}  // namespace gsa::sm90
