// What happens between the 64 tokens of one chunk. Decays are products of exp(g) <= 1 that never leave their
// direction, so no gate can overflow: pairs of tokens in different blocks of 16 meet on the tensor cores
// through the border between their blocks, pairs inside a block are walked token by token in float32.
#pragma once

#include "chunks_sm90.cuh"

namespace gsa::sm90 {

constexpr int kThreads = 256, kBlock = 16, kBlocks = kC / kBlock;
constexpr int kLd = kM + 4;  // floats between rows of a score or slot matrix in shared memory

// A thread's share of [64, 64]: one slot of one block.
struct BlockSlot {
  int block = threadIdx.x / kM, slot = threadIdx.x % kM;
  __device__ int row(int i) const { return block * kBlock + i; }
};

// First row, in a table of rows grouped by later block, of the rows before block I; and by earlier block, of
// those after.
__device__ __forceinline__ constexpr int rows_before(int I) { return 8 * I * (I - 1); }
__device__ __forceinline__ constexpr int rows_after(int J) { return J == 0 ? 0 : J == 1 ? 48 : 80; }
constexpr int kTableRows = 96;

// Write strengths of the chunk: read where they are used (the second time from a cache), zero past the
// chunk's end.
struct Strengths {
  const float* first;
  int64_t stride;
  int rows;
  __device__ float at(int row, int slot) const { return row < rows ? first[row * stride + slot] : 0.0f; }
  __device__ float4 four(int row, int slot) const {
    return row < rows ? *reinterpret_cast<const float4*>(first + row * stride + slot) : float4{};
  }
};

// Sum of pairs j < i of earlier blocks: x [64, kLd] = from_start * x + a [i, j] past [j, m], relative to the
// block's start. a is a tile [64, 64], past the table of `Gates`.
__device__ __forceinline__ void receive_blocks(const bf16* a, const bf16* past, const float (*from_start)[kM],
                                               float* x) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, I = warp % kBlocks, half = warp / kBlocks * 32;
  if (I == 0) return;
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
      const int row = I * kBlock + lane / 4 + i / 2 * 8, m = half + t * 8 + lane % 4 * 2 + i % 2;
      x[row * kLd + m] = from_start[I][m] * x[row * kLd + m] + acc[t][i];
    }
}

// Then the pairs of one block: x_i = r_i x_i + sum_{j <= i} a_ij s_j exp(g_{j+1} + ... + g_i), r the decay
// from the block's start.
__device__ __forceinline__ void receive_rows(const float* a, const Strengths& s, const float (*e)[kM],
                                             float* x) {
  const BlockSlot at;
  float sum[kBlock], step[kBlock], r = 1.0f;
#pragma unroll
  for (int i = 0; i < kBlock; ++i) {
    step[i] = e[at.row(i)][at.slot];
    r *= step[i];
    sum[i] = r * x[at.row(i) * kLd + at.slot];
  }
#pragma unroll
  for (int j = 0; j < kBlock; ++j) {
    float w = s.at(at.row(j), at.slot);
#pragma unroll
    for (int i = j; i < kBlock; ++i) {
      if (i > j) w *= step[i];
      sum[i] += a[at.row(i) * kLd + at.row(j)] * w;
    }
  }
#pragma unroll
  for (int i = 0; i < kBlock; ++i) x[at.row(i) * kLd + at.slot] = sum[i];
}

// x_i times the decay from its block's start and from the chunk's start, as tiles.
__device__ __forceinline__ void decayed_tiles(const float* x, const float (*e)[kM],
                                              const float (*from_start)[kM], bf16* from_block,
                                              bf16* from_chunk) {
  const BlockSlot at;
  float r = 1.0f;
  const float start = from_start[at.block][at.slot];
#pragma unroll
  for (int i = 0; i < kBlock; ++i) {
    r *= e[at.row(i)][at.slot];
    const float value = x[at.row(i) * kLd + at.slot] * r;
    from_block[tile_offset(at.row(i), at.slot)] = __float2bfloat16_rn(value);
    from_chunk[tile_offset(at.row(i), at.slot)] = __float2bfloat16_rn(value * start);
  }
}

// weights [i, j] = sum_m x_im s_jm exp(G_im - G_jm) for j <= i, as a tile; blocks above the diagonal are not
// written.
__device__ __forceinline__ void pair_weights(const float* x, const bf16* from_block, const bf16* past,
                                             const Strengths& s, const float (*e)[kM], bf16* weights) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  if (warp < 6) {
    const int I = warp < 1 ? 1 : warp < 3 ? 2 : 3, J = warp - (I * (I - 1)) / 2;
    float acc[2][4] = {};
#pragma unroll
    for (int k = 0; k < kM; k += 16) {
      uint32_t fa[4], fb[4];
      load_a(fa, from_block, I * kBlock, k);
      load_b(fb, past + rows_before(I) * kTile, J * kBlock, k);
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
  // Inside a block: four threads share a column j, each a quarter of the slots.
  const int block = threadIdx.x / 64, j = threadIdx.x % 64 / 4, quarter = threadIdx.x % 4;
  const auto four = [&](const float* row, int t) {
    return *reinterpret_cast<const float4*>(row + t * 16 + quarter * 4);
  };
  float4 w[4];
#pragma unroll
  for (int t = 0; t < 4; ++t) w[t] = s.four(block * kBlock + j, t * 16 + quarter * 4);
#pragma unroll 4
  for (int i = 0; i < kBlock; ++i) {
    const int row = block * kBlock + i;
    float sum = 0;
    if (i >= j) {
#pragma unroll
      for (int t = 0; t < 4; ++t) {
        if (i > j) {
          const float4 step = four(e[row], t);
          w[t].x *= step.x;
          w[t].y *= step.y;
          w[t].z *= step.z;
          w[t].w *= step.w;
        }
        const float4 p = four(x + row * kLd, t);
        sum += p.x * w[t].x + p.y * w[t].y + p.z * w[t].z + p.w * w[t].w;
      }
    }
    sum += __shfl_xor_sync(~0u, sum, 1);
    sum += __shfl_xor_sync(~0u, sum, 2);
    if (quarter == 0) weights[tile_offset(row, block * kBlock + j)] = __float2bfloat16_rn(sum);
  }
}

// Gates of the chunk in shared memory, and the write strengths as later blocks see them.
struct Gates {
  float e[kC][kM];                                          // exp(g); past the chunk's end 1
  float block_decay[kBlocks][kM], from_start[kBlocks][kM];  // from_start: up to the start of a block
  bf16 past[kTableRows * kTile];  // for block I: s_j decayed to the start of I, j in earlier blocks
};

// Ends with a barrier.
__device__ __forceinline__ void load_gates(Gates& x, const Chunk& chunk, const float* s, const float* g,
                                           int64_t H, int64_t h) {
  const BlockSlot at;
  float decay = 1.0f, strength[kBlock], step[kBlock];
#pragma unroll
  for (int i = 0; i < kBlock; ++i) {
    const int64_t source = ((chunk.row + at.row(i)) * H + h) * kM + at.slot;
    const bool inside = at.row(i) < chunk.rows;
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
  for (int i = kBlock - 1; i >= 0; --i) {
    float value = strength[i] * later;
    for (int I = at.block + 1; I < kBlocks; ++I) {
      x.past[rows_before(I) * kTile + tile_offset(at.row(i), at.slot)] = __float2bfloat16_rn(value);
      value *= x.block_decay[I][at.slot];
    }
    later *= step[i];
  }
  __syncthreads();
}

}  // namespace gsa::sm90
