// What happens between the 64 tokens of one chunk. Decays are products of exp(g) <= 1 that never leave their
// direction, so no gate can overflow: pairs of tokens in different blocks of 16 meet on the tensor cores
// through the border between their blocks, pairs inside a block are walked token by token in float32; exact,
// all pairs are.
#pragma once

#include "chunks_sm90.cuh"

namespace gsa::sm90 {

constexpr int kBlock = 16, kBlocks = kC / kBlock;
constexpr int kScoreLd = kC + 4;  // floats between rows of a score matrix in shared memory

// The shape of a thread block: a thread per slot and block of rows. Matrices of bfloat16 [64, slots] are
// kHalves tiles.
template <typename S>
struct Shape {
  static constexpr int kM = S::kPlaces, kHalves = S::kHalves, kThreads = kBlocks * kM;
  static constexpr int kLd = kM + 4;      // floats between rows of a slot matrix in shared memory
  static constexpr int kShare = kM / 16;  // threads that share a row or column, 16 slots each
};
// Element offset of (row, slot) in such a matrix whose halves are `tile` elements long.
template <typename S>
__device__ __forceinline__ int slot_offset(int row, int slot, int tile = S::kParts * kTileElements) {
  if constexpr (S::kHalves == 1) return tile_offset(row, slot);
  return slot / kTile * tile + tile_offset(row, slot % kTile);
}

// A thread's share of [64, slots]: one slot of one block.
template <typename S>
struct BlockSlot {
  int block = threadIdx.x / S::kPlaces, slot = threadIdx.x % S::kPlaces;
  __device__ int row(int i) const { return block * kBlock + i; }
};

// First row, in a table of rows grouped by later block, of the rows before block I; and by earlier block, of
// those after.
__device__ __forceinline__ constexpr int rows_before(int I) { return 8 * I * (I - 1); }
__device__ __forceinline__ constexpr int rows_after(int J) { return J == 0 ? 0 : J == 1 ? 48 : 80; }
constexpr int kTableRows = 96;

// Write strengths of the chunk: read where they are used (the second time from a cache), zero past the
// chunk's end.
template <typename S>
struct Strengths {
  const float* first;
  int64_t stride;
  int rows;
  S slots;
  __device__ float at(int row, int slot) const {
    return row < slots.rows(rows, slot) ? first[row * stride + slot] : 0.0f;
  }
  __device__ float4 four(int row, int slot) const {
    return row < slots.rows(rows, slot) ? *reinterpret_cast<const float4*>(first + row * stride + slot)
                                        : float4{};
  }
};

// Gates of the chunk in shared memory, and the write strengths as later blocks see them.
template <typename S>
struct Gates {
  static constexpr int kM = S::kPlaces;
  float e[kC][kM];                                          // exp(g); past the chunk's end 1
  float block_decay[kBlocks][kM], from_start[kBlocks][kM];  // from_start: up to the start of a block
  // For block I: s_j decayed to the start of I, j in earlier blocks. Exact, nobody needs it.
  bf16 past[S::kExact ? 8 : S::kHalves * kTableRows * kTile];
};

// Sum of pairs j < i of earlier blocks: x [64, kLd] = from_start * x + a [i, j] past [j, m], relative to the
// block's start. a is a tile [64, 64], past the table of `Gates`. A warp does 16 rows of 32 slots.
template <typename S>
__device__ __forceinline__ void receive_blocks(const bf16* a, const bf16* past,
                                               const float (*from_start)[S::kPlaces], float* x) {
  constexpr int kLd = Shape<S>::kLd;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, I = warp % kBlocks, first = warp / kBlocks * 32;
  if (I == 0) return;
  const int half = S::kHalves == 1 ? first : first % kTile;
  if (S::kHalves > 1) past += first / kTile * (kTableRows * kTile);
  float acc[4][4] = {};
#pragma unroll
  for (int J = 0; J < kBlocks - 1; ++J) {
    if (J >= I) break;
    uint32_t fa[4], fb[4];
    load_a(fa, a, I * kBlock, J * kBlock);
#pragma unroll
    for (int t = 0; t < 2; ++t) {
      load_b_trans(fb, past + rows_before(I) * kTile, half + t * 16, J * kBlock);
      mma(acc[2 * t], fa, fb[0], fb[1]);
      mma(acc[2 * t + 1], fa, fb[2], fb[3]);
    }
  }
#pragma unroll
  for (int t = 0; t < 4; ++t)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = I * kBlock + lane / 4 + i / 2 * 8, m = first + t * 8 + lane % 4 * 2 + i % 2;
      x[row * kLd + m] = from_start[I][m] * x[row * kLd + m] + acc[t][i];
    }
}

// Then the pairs of one block: x_i = r_i x_i + sum_{j <= i} a_ij s_j exp(g_{j+1} + ... + g_i), r the decay
// from the block's start; of `kOwn` = false, the sum over j < i. Exact, x is relative to the chunk's start,
// and earlier blocks are received here too.
template <typename S, bool kOwn = true>
__device__ __forceinline__ void receive_rows(const float* a, const Strengths<S>& s, const Gates<S>& gates,
                                             float* x) {
  constexpr int kLd = Shape<S>::kLd;
  const BlockSlot<S> at;
  float sum[kBlock], step[kBlock], r = 1.0f;
  if constexpr (S::kExact) {
#pragma unroll
    for (int i = 0; i < kBlock; ++i)
      sum[i] = gates.from_start[at.block][at.slot] * x[at.row(i) * kLd + at.slot];
    float later = 1.0f;
    for (int j = at.block * kBlock - 1; j >= 0; --j) {
      const float w = s.at(j, at.slot) * later;
#pragma unroll
      for (int i = 0; i < kBlock; ++i) sum[i] += a[at.row(i) * kScoreLd + j] * w;
      later *= gates.e[j][at.slot];
    }
  }
#pragma unroll
  for (int i = 0; i < kBlock; ++i) {
    step[i] = gates.e[at.row(i)][at.slot];
    r *= step[i];
    sum[i] = r * (S::kExact ? sum[i] : x[at.row(i) * kLd + at.slot]);
  }
#pragma unroll
  for (int j = 0; j < kBlock; ++j) {
    float w = s.at(at.row(j), at.slot);
#pragma unroll
    for (int i = j; i < kBlock; ++i) {
      if (i > j) w *= step[i];
      if (kOwn || i > j) sum[i] += a[at.row(i) * kScoreLd + at.row(j)] * w;
    }
  }
#pragma unroll
  for (int i = 0; i < kBlock; ++i) x[at.row(i) * kLd + at.slot] = sum[i];
}

// x_i times the decay from its block's start and from the chunk's start, as tiles.
template <typename S>
__device__ __forceinline__ void decayed_tiles(const float* x, const float (*e)[S::kPlaces],
                                              const float (*from_start)[S::kPlaces], bf16* from_block,
                                              bf16* from_chunk) {
  constexpr int kLd = Shape<S>::kLd;
  const BlockSlot<S> at;
  float r = 1.0f;
  const float start = from_start[at.block][at.slot];
#pragma unroll
  for (int i = 0; i < kBlock; ++i) {
    r *= e[at.row(i)][at.slot];
    const float value = x[at.row(i) * kLd + at.slot] * r;
    from_block[slot_offset<S>(at.row(i), at.slot)] = __float2bfloat16_rn(value);
    from_chunk[slot_offset<S>(at.row(i), at.slot)] = __float2bfloat16_rn(value * start);
  }
}

// The second of the two alone, in place: its tiles lie where x was, which all threads must be done with.
template <typename S>
__device__ __forceinline__ void decay_in_place(float* x, const Gates<S>& gates) {
  constexpr int kLd = Shape<S>::kLd;
  static_assert(S::kTiles * kTileElements * sizeof(bf16) <= kC * kLd * sizeof(float));
  const BlockSlot<S> at;
  float value[kBlock], r = gates.from_start[at.block][at.slot];
#pragma unroll
  for (int i = 0; i < kBlock; ++i) {
    r *= gates.e[at.row(i)][at.slot];
    value[i] = x[at.row(i) * kLd + at.slot] * r;
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kBlock; ++i)
    store_parts<S::kParts>(reinterpret_cast<bf16*>(x) + slot_offset<S>(at.row(i), at.slot), kTileElements,
                           value[i]);
}

// weights [i, j] = sum_m x_im s_jm exp(G_im - G_jm) for j <= i, as a tile (of each part); blocks above the
// diagonal are not written. Exact, from_block is not read.
template <typename S>
__device__ __forceinline__ void pair_weights(const float* x, const bf16* from_block, const Strengths<S>& s,
                                             const Gates<S>& gates, bf16* weights) {
  constexpr int kM = S::kPlaces, kLd = Shape<S>::kLd, kShare = Shape<S>::kShare;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  if (!S::kExact && warp < 6) {
    const int I = warp < 1 ? 1 : warp < 3 ? 2 : 3, J = warp - (I * (I - 1)) / 2;
    float acc[2][4] = {};
#pragma unroll
    for (int k = 0; k < kM; k += 16) {
      uint32_t fa[4], fb[4];
      load_a(fa, from_block + k / kTile * kTileElements, I * kBlock, k % kTile);
      load_b(fb, gates.past + k / kTile * (kTableRows * kTile) + rows_before(I) * kTile, J * kBlock,
             k % kTile);
      mma(acc[0], fa, fb[0], fb[1]);
      mma(acc[1], fa, fb[2], fb[3]);
    }
#pragma unroll
    for (int t = 0; t < 2; ++t)
#pragma unroll
      for (int i = 0; i < 2; ++i)
        *reinterpret_cast<uint32_t*>(
            weights + tile_offset(I * kBlock + lane / 4 + i * 8, J * kBlock + t * 8 + lane % 4 * 2)) =
            pack_bf16(acc[t][2 * i], acc[t][2 * i + 1]);
  }
  // Inside a block, or to the chunk's end: kShare threads share a column j, 16 slots each.
  const int block = threadIdx.x / (kBlock * kShare), j = threadIdx.x % (kBlock * kShare) / kShare,
            part = threadIdx.x % kShare;
  const auto four = [&](const float* row, int t) {
    return *reinterpret_cast<const float4*>(row + (t * kShare + part) * 4);
  };
  float4 w[4];
#pragma unroll
  for (int t = 0; t < 4; ++t) w[t] = s.four(block * kBlock + j, (t * kShare + part) * 4);
  const int rows = S::kExact ? kC - block * kBlock : kBlock;
#pragma unroll 4
  for (int i = 0; i < rows; ++i) {
    const int row = block * kBlock + i;
    float sum = 0;
    if (i >= j) {
#pragma unroll
      for (int t = 0; t < 4; ++t) {
        if (i > j) {
          const float4 step = four(gates.e[row], t);
          w[t].x *= step.x;
          w[t].y *= step.y;
          w[t].z *= step.z;
          w[t].w *= step.w;
        }
        const float4 p = four(x + row * kLd, t);
        sum += p.x * w[t].x + p.y * w[t].y + p.z * w[t].z + p.w * w[t].w;
      }
    }
#pragma unroll
    for (int offset = 1; offset < kShare; offset *= 2) sum += __shfl_xor_sync(~0u, sum, offset);
    if (part == 0) store_parts<S::kParts>(weights + tile_offset(row, block * kBlock + j), kTileElements, sum);
  }
}

// Ends with a barrier.
template <typename S>
__device__ __forceinline__ void load_gates(Gates<S>& x, const Chunk& chunk, const float* s, const float* g,
                                           int64_t H, int64_t h, const S& slots) {
  const BlockSlot<S> at;
  const int rows = slots.rows(chunk.rows, at.slot);
  float decay = 1.0f, strength[kBlock], step[kBlock];
#pragma unroll
  for (int i = 0; i < kBlock; ++i) {
    const int64_t source = ((chunk.row + at.row(i)) * H + h) * slots.pitch() + at.slot;
    const bool inside = at.row(i) < rows;
    strength[i] = inside ? s[source] : 0.0f;
    step[i] = inside ? expf(g[source]) : 1.0f;
  }
#pragma unroll
  for (int i = 0; i < kBlock; ++i) {
    x.e[at.row(i)][at.slot] = step[i];
    decay *= step[i];
  }
  x.block_decay[at.block][at.slot] = decay;
  __syncthreads();
  float start = 1.0f;
  for (int J = 0; J < at.block; ++J) start *= x.block_decay[J][at.slot];
  x.from_start[at.block][at.slot] = start;
  float later = 1.0f;
#pragma unroll
  for (int i = kBlock - 1; i >= 0 && !S::kExact; --i) {
    float value = strength[i] * later;
    for (int I = at.block + 1; I < kBlocks; ++I) {
      x.past[rows_before(I) * kTile + slot_offset<S>(at.row(i), at.slot, kTableRows * kTile)] =
          __float2bfloat16_rn(value);
      value *= x.block_decay[I][at.slot];
    }
    later *= step[i];
  }
  __syncthreads();
}

}  // namespace gsa::sm90
