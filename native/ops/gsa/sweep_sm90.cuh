// What the sweeps share: one walk over the tokens of a sequence, 64 at a time, with both states of a head in
// the registers of a cluster of blocks, each block a slice of the key and of the value channels.
// README-sm90.md has the schedule.
//
// Twelve warps a block, three roles:
//   in   (4 warps)  contracts rows with the first state; a warp holds 16 slots, all channels of the slice
//   out  (4 warps)  contracts slots with the second state; a warp holds a quarter of the slice, all slots
//   slot (4 warps)  what is elementwise or between: decays, sums over the cluster, softmax, pairs of a block
// Inside the 64 tokens the states move on every 16, so that only pairs inside a block of 16 remain; those are
// exact in float32 for all gates.
#pragma once

#include "../../cuda/kernel.cuh"
#include "../../cuda/launch.cuh"
#include "../../sm90/cluster.cuh"
#include "params.h"
#include "sweep_line.h"

namespace gsa::sm90 {

constexpr int kSlots = 64;                      // M
constexpr int kSub = 16, kSubs = kStep / kSub;  // tokens between two moves of the states
constexpr int kRole = 128;                      // threads of a role
constexpr int kSweepThreads = 3 * kRole;
// 168 registers a thread at the start, then what each role needs; more than that in all would wait for ever.
constexpr int kStateRegisters = 160, kSlotRegisters = 184;
static_assert(2 * kStateRegisters + kSlotRegisters <= 3 * 168, "the block has no more registers");
constexpr int kPitch = kSlots + 4;         // floats between rows of a [16, slots] matrix
constexpr int kPartialPitch = kSlots + 8;  // the same where products are stored in pairs
constexpr int kWeightPitch = 24;           // bfloat16 between rows of the pair weights

constexpr int kStepTile = kStep * kTile, kSubTile = kSub * kTile;

// A state in memory: element (channel, slot) of sequence n and head h at
// ((n * H + h) * width * slots) + channel * stride_channel + slot * stride_slot. NULL: zeros, or not wanted.
struct StateEnds {
  const float* start;
  float* end;
  int stride_channel, stride_slot;
};

// The stored states of one block: first the `in` state, then the `out` state.
__host__ __device__ constexpr int64_t anchor_elements(int in_slice, int out_slice) {
  return (in_slice + out_slice) * int64_t{kSlots};
}

// States handed from cluster to cluster where a walk is cut.
struct HandOver {
  float* states;  // [cluster, block, in and out]
  int* ready;     // [cluster, block, 2], zero before the launch
};

// 64 rows of kWidth channels, `stride` elements apart, as tiles of 64 columns; zeros past `rows`.
template <int kWidth>
__device__ __forceinline__ void load_step(bf16* tiles, const bf16* global, int64_t stride, int64_t rows,
                                          int thread) {
  constexpr int kParts = kWidth / 8;
#pragma unroll
  for (int i = 0; i < kStep * kParts / kRole; ++i) {
    const int part = thread + i * kRole, row = part / kParts, column = part % kParts * 8;
    copy_async(tiles + column / kTile * kStepTile + tile_offset(row, column % kTile),
               row < rows ? global + row * stride + column : global, row < rows);
  }
}

// The first state of a warp of the `in` role: slots [16 w, 16 w + 16) by kWidth channels of the slice, as
// m16n8 accumulators over the channels. Of accumulator n a thread holds slots lane / 4 (+ 8), channels
// 8 n + lane % 4 * 2 (+ 1).
template <int kWidth>
struct InState {
  float x[kWidth / 8][4];

  template <class Body>
  __device__ __forceinline__ void each(int warp, Body body) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int n = 0; n < kWidth / 8; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        body(x[n][i], 8 * n + lane % 4 * 2 + i % 2, warp * 16 + lane / 4 + i / 2 * 8);
  }

  // rows [16 sub, +16) of the tiles times the state: [16 rows, 16 slots], two accumulators over the slots
  __device__ __forceinline__ void read(const bf16* rows, int sub, float (&out)[2][4]) const {
    float odd[2][4] = {};
#pragma unroll
    for (int k = 0; k < kWidth / 16; ++k) {
      uint32_t fa[4];
      load_a(fa, rows + k / 4 * kStepTile, sub * kSub, k % 4 * 16);
      float (&to)[2][4] = k % 2 ? odd : out;
      mma(to[0], fa, pack_bf16(x[2 * k][0], x[2 * k][1]), pack_bf16(x[2 * k + 1][0], x[2 * k + 1][1]));
      mma(to[1], fa, pack_bf16(x[2 * k][2], x[2 * k][3]), pack_bf16(x[2 * k + 1][2], x[2 * k + 1][3]));
    }
#pragma unroll
    for (int t = 0; t < 2; ++t)
#pragma unroll
      for (int i = 0; i < 4; ++i) out[t][i] += odd[t][i];
  }

  // x = decay * x + strength^T rows
  __device__ __forceinline__ void move(const bf16* rows, const bf16* strength, const float* decay, int sub,
                                       int warp) {
    const int lane = threadIdx.x % 32;
    const float d0 = decay[warp * 16 + lane / 4], d1 = decay[warp * 16 + lane / 4 + 8];
    uint32_t fa[4];
    load_a_trans(fa, strength, warp * 16, sub * kSub);
#pragma unroll
    for (int n = 0; n < kWidth / 16; ++n) {
      uint32_t fb[4];
      load_b_trans(fb, rows + n / 4 * kStepTile, n % 4 * 16, sub * kSub);
#pragma unroll
      for (int t = 0; t < 2; ++t) {
        float (&y)[4] = x[2 * n + t];
        y[0] *= d0;
        y[1] *= d0;
        y[2] *= d1;
        y[3] *= d1;
        mma(y, fa, fb[2 * t], fb[2 * t + 1]);
      }
    }
  }
};

// The second state of a warp of the `out` role: kWidth / 4 channels by all slots, as m16n8 accumulators over
// the slots: of accumulator [c][n] a thread holds channels 16 c + lane / 4 (+ 8), slots 8 n + lane % 4 * 2
// (+ 1).
template <int kWidth>
struct OutState {
  static constexpr int kOwn = kWidth / 4, kGroups = kOwn / 16;
  float x[kGroups][kSlots / 8][4];

  template <class Body>
  __device__ __forceinline__ void each(int warp, Body body) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int c = 0; c < kGroups; ++c)
#pragma unroll
      for (int n = 0; n < kSlots / 8; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i)
          body(x[c][n][i], warp * kOwn + 16 * c + lane / 4 + i / 2 * 8, 8 * n + lane % 4 * 2 + i % 2);
  }

  // slots [16 rows, slots] times the state, plus weights [16, 16] times the rows' own values
  __device__ __forceinline__ void read(const bf16* slots, const bf16* weights, const bf16* rows, int sub,
                                       int warp, float (&out)[2 * kGroups][4]) const {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < kSlots / 16; ++k) {
      uint32_t fa[4];
      load_a(fa, slots, sub * kSub, k * 16);
#pragma unroll
      for (int c = 0; c < kGroups; ++c) {
        const float (&y)[4] = x[c][2 * k], (&z)[4] = x[c][2 * k + 1];
        mma(out[2 * c], fa, pack_bf16(y[0], y[1]), pack_bf16(z[0], z[1]));
        mma(out[2 * c + 1], fa, pack_bf16(y[2], y[3]), pack_bf16(z[2], z[3]));
      }
    }
    uint32_t fa[4];
    ldmatrix_x4(fa, weights + (sub * kSub + (lane & 15)) * kWeightPitch + (lane >> 4) * 8);
#pragma unroll
    for (int c = 0; c < kGroups; ++c) {
      uint32_t fb[4];
      const int column = warp * kOwn + c * 16;
      load_b_trans(fb, rows + column / kTile * kStepTile, column % kTile, sub * kSub);
      mma(out[2 * c], fa, fb[0], fb[1]);
      mma(out[2 * c + 1], fa, fb[2], fb[3]);
    }
  }

  __device__ __forceinline__ void move(const bf16* rows, const bf16* strength, const float* decay, int sub,
                                       int warp) {
    const int lane = threadIdx.x % 32;
    uint32_t fa[kGroups][4];
#pragma unroll
    for (int c = 0; c < kGroups; ++c) {
      const int column = warp * kOwn + c * 16;
      load_a_trans(fa[c], rows + column / kTile * kStepTile, column % kTile, sub * kSub);
    }
#pragma unroll
    for (int n = 0; n < kSlots / 16; ++n) {
      uint32_t fb[4];
      load_b_trans(fb, strength, n * 16, sub * kSub);
#pragma unroll
      for (int t = 0; t < 2; ++t) {
        const float2 d = *reinterpret_cast<const float2*>(decay + n * 16 + t * 8 + lane % 4 * 2);
#pragma unroll
        for (int c = 0; c < kGroups; ++c) {
          float (&y)[4] = x[c][2 * n + t];
          y[0] *= d.x;
          y[1] *= d.y;
          y[2] *= d.x;
          y[3] *= d.y;
          mma(y, fa[c], fb[2 * t], fb[2 * t + 1]);
        }
      }
    }
  }
};

// Start and end of a walk, in the layout the user sees.
template <class State>
__device__ __forceinline__ void load_state(State& state, const float* from, const StateEnds& ends, int first,
                                           int warp) {
  from = opaque(from);
  const int channel_stride = opaque(ends.stride_channel), slot_stride = opaque(ends.stride_slot);
  state.each(opaque(warp), [&](float& x, int channel, int slot) {
    x = from ? from[(first + channel) * channel_stride + slot * slot_stride] : 0.0f;
  });
}
template <class State>
__device__ __forceinline__ void store_state(State& state, float* to, const StateEnds& ends, int first,
                                            int warp) {
  to = opaque(to);
  const int channel_stride = opaque(ends.stride_channel), slot_stride = opaque(ends.stride_slot);
  state.each(opaque(warp), [&](float& x, int channel, int slot) {
    to[(first + channel) * channel_stride + slot * slot_stride] = x;
  });
}

// A state as its threads hold it, through memory to the cluster that goes on with the walk.
template <int kBarrier, class State>
__device__ __forceinline__ void hand_over(const State& state, float* to, int* ready, int thread) {
  const float* x = reinterpret_cast<const float*>(&state);
  to = opaque(to);
#pragma unroll
  for (int i = 0; i < static_cast<int>(sizeof(State) / 16); ++i)
    reinterpret_cast<float4*>(to)[i * kRole + thread] =
        make_float4(x[4 * i], x[4 * i + 1], x[4 * i + 2], x[4 * i + 3]);
  __threadfence();
  named_sync<kBarrier, kRole>();
  if (thread == 0) set_flag(ready);
}
template <int kBarrier, class State>
__device__ __forceinline__ void take_over(State& state, const float* from, const int* ready, int thread) {
  if (thread == 0) wait_flag(ready);
  named_sync<kBarrier, kRole>();
  from = opaque(from);
  float* x = reinterpret_cast<float*>(&state);
#pragma unroll
  for (int i = 0; i < static_cast<int>(sizeof(State) / 16); ++i) {
    const float4 v = __ldcg(reinterpret_cast<const float4*>(from) + i * kRole + thread);
    x[4 * i] = v.x, x[4 * i + 1] = v.y, x[4 * i + 2] = v.z, x[4 * i + 3] = v.w;
  }
}

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

// [16 rows, 16 slots] of the warp to the block that owns the rows, beside those of the other slices.
__device__ __forceinline__ void send_partial(const float (&acc)[2][4], float* local, int owner, int warp) {
  const int lane = threadIdx.x % 32;
  const uint32_t to = remote_address(local, owner);
#pragma unroll
  for (int t = 0; t < 2; ++t)
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = lane / 4 + i * 8, slot = warp * 16 + t * 8 + lane % 4 * 2;
      store_remote(to + (row * kPartialPitch + slot) * 4, acc[t][2 * i], acc[t][2 * i + 1]);
    }
}

// Products of the rows of one block with one another over the slice: read_i . write_j, stored [j][i].
template <int kWidth>
__device__ __forceinline__ void send_pairs(const bf16* reading, const bf16* writing, int sub, float* local,
                                           int owner) {
  const int lane = threadIdx.x % 32;
  float acc[2][4] = {};
#pragma unroll
  for (int k = 0; k < kWidth / 16; ++k) {
    uint32_t fa[4], fb[4];
    load_a(fa, writing + k / 4 * kStepTile, sub * kSub, k % 4 * 16);
    load_b(fb, reading + k / 4 * kStepTile, sub * kSub, k % 4 * 16);
    mma(acc[0], fa, fb[0], fb[1]);
    mma(acc[1], fa, fb[2], fb[3]);
  }
  const uint32_t to = remote_address(local, owner);
#pragma unroll
  for (int t = 0; t < 2; ++t)
#pragma unroll
    for (int i = 0; i < 2; ++i)
      store_remote(to + ((lane / 4 + i * 8) * kSub + t * 8 + lane % 4 * 2) * 4, acc[t][2 * i],
                   acc[t][2 * i + 1]);
}

// [16 rows, kWidth / 4 channels] of the warp to global memory; the first `rows` of the 16 exist. `stage`: the
// warp's own kStagePitch * 16 elements, through which the stores become 16 bytes wide.
constexpr int kStagePitch = 40;
template <int kGroups>
__device__ __forceinline__ void store_rows(const float (&acc)[2 * kGroups][4], bf16* stage, bf16* to,
                                           int64_t stride, int64_t rows) {
  const int lane = threadIdx.x % 32;
  if constexpr (kGroups == 2) {
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 2; ++i)
      stmatrix_x4(stage + (i * 8 + lane % 8) * kStagePitch + lane / 8 * 8,
                  pack_bf16(acc[0][2 * i], acc[0][2 * i + 1]), pack_bf16(acc[1][2 * i], acc[1][2 * i + 1]),
                  pack_bf16(acc[2][2 * i], acc[2][2 * i + 1]), pack_bf16(acc[3][2 * i], acc[3][2 * i + 1]));
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = lane / 4 + i * 8;
      if (row < rows)
        *reinterpret_cast<uint4*>(to + row * stride + lane % 4 * 8) =
            *reinterpret_cast<const uint4*>(stage + row * kStagePitch + lane % 4 * 8);
    }
  } else {
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
      for (int t = 0; t < 2 * kGroups; ++t)
        if (const int row = lane / 4 + i * 8; row < rows)
          *reinterpret_cast<uint32_t*>(to + row * stride + t * 8 + lane % 4 * 2) =
              pack_bf16(acc[t][2 * i], acc[t][2 * i + 1]);
  }
}

// As many clusters as fit the device, or one a walk; `a.hand_over` and `a.clusters` are filled in.
template <int kCluster, class Arguments>
void launch_sweep(gsa_device& device, void (*kernel)(Arguments), int bytes, int64_t walks,
                  int64_t state_elements, Arguments a) {
  const int fit = cuda::clusters_that_fit<kCluster>(device, kernel, kSweepThreads, bytes);
  a.clusters = static_cast<int>(a.cu_seqlens ? walks : std::min<int64_t>(walks, std::max(fit, 1)));
  const int64_t blocks = static_cast<int64_t>(a.clusters) * kCluster, flags = blocks * 2 * sizeof(int);
  const cuda::Scratch memory(device, a.cu_seqlens ? 0 : flags + blocks * state_elements * sizeof(float));
  if (!a.cu_seqlens) {
    a.hand_over = {memory.as<float>(), reinterpret_cast<int*>(memory.as<float>() + blocks * state_elements)};
    cuda::fill_zero(device, a.hand_over.ready, flags);
  }
  cuda::launch_clusters<kCluster>(device, kernel, a.clusters, kSweepThreads, bytes, a);
}

}  // namespace gsa::sm90
