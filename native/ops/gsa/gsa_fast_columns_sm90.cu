// One chunk of one head: dk, dv, ds, dg. Key and value side do the same: rows of the chunk read later rows
// and the gradient of the state after the chunk.
#include "columns_sm90.cuh"

namespace gsa::sm90 {
namespace {

constexpr int kStages = 3;

struct Shared {
  bf16 stages[kStages][3][kTileElements];
  bf16 to_end[kTileElements];          // write strengths decayed to the end of the chunk
  bf16 weights[2][kTileElements];      // key, value side
  bf16 scores_tile[2][kTileElements];  // [j, i] = own_j . later_i
  bf16 later[2]
            [kTableRows * kTile];  // for block J: dok and p of later blocks' rows, decayed from the end of J
  bf16 out[kTileElements];
  float e[kC][kM];
  float block_decay[kBlocks][kM], to_chunk_end[kBlocks][kM];  // to_chunk_end: from the end of a block
  float flow[kBlocks][kM];
  float scores[2][kC * kLd], slots[kC * kLd];
};

__device__ __forceinline__ void load_decays(Shared& x, const ColumnPass& a, const Chunk& chunk, int64_t h) {
  const BlockSlot at;
  float decay = 1.0f, r[kBlock], rows[2][kBlock];
#pragma unroll
  for (int i = 0; i < kBlock; ++i) {
    const int64_t source = ((chunk.row + at.row(i)) * a.H + h) * kM + at.slot;
    const bool inside = at.row(i) < chunk.rows;
    const float step = inside ? expf(a.g[source]) : 1.0f;
    rows[0][i] = inside ? a.dok[source] : 0.0f;
    rows[1][i] = inside ? a.p[source] : 0.0f;
    x.e[at.row(i)][at.slot] = step;
    r[i] = decay *= step;
  }
  x.block_decay[at.block][at.slot] = decay;
  __syncthreads();
  float end = 1.0f;
  for (int I = kBlocks - 1; I > at.block; --I) end *= x.block_decay[I][at.slot];
  x.to_chunk_end[at.block][at.slot] = end;
  float between = 1.0f;
  for (int J = at.block - 1; J >= 0; --J) {
#pragma unroll
    for (int side = 0; side < 2; ++side)
#pragma unroll
      for (int i = 0; i < kBlock; ++i)
        x.later[side][(rows_after(J) + (at.block - J - 1) * kBlock) * kTile + tile_offset(i, at.slot)] =
            __float2bfloat16_rn(rows[side][i] * r[i] * between);
    between *= x.block_decay[J][at.slot];
  }
}

// slots [j, m] = to_chunk_end * slots + sum over later blocks of scores [j, i] later [i, m], relative to the
// end of j's block.
__device__ __forceinline__ void receive_later_blocks(Shared& x) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, J = warp % kBlocks, half = warp / kBlocks * 32;
  float acc[4][4] = {};
#pragma unroll
  for (int side = 0; side < 2; ++side)
#pragma unroll
    for (int I = 1; I < kBlocks; ++I) {
      if (I <= J) continue;
      uint32_t fa[4], fb[4];
      load_a(fa, x.scores_tile[side], J * kBlock, I * kBlock);
#pragma unroll
      for (int t = 0; t < 2; ++t) {
        load_b_trans(fb, x.later[side] + rows_after(J) * kTile, half + t * 16, (I - J - 1) * kBlock);
        mma(acc[2 * t], fa, fb[0], fb[1]);
        mma(acc[2 * t + 1], fa, fb[2], fb[3]);
      }
    }
#pragma unroll
  for (int t = 0; t < 4; ++t)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = J * kBlock + lane / 4 + i / 2 * 8, m = half + t * 8 + lane % 4 * 2 + i % 2;
      x.slots[row * kLd + m] = x.to_chunk_end[J][m] * x.slots[row * kLd + m] + acc[t][i];
    }
}

// ds, and dg as what crosses the gate of each row: at the chunk's start the state times its gradient, then
// row by row less what the row read from before, plus what it wrote for after.
__device__ __forceinline__ void finish_slots(Shared& x, const ColumnPass& a, const Chunk& chunk, int64_t c,
                                             int64_t h) {
  const BlockSlot at;
  float ds[kBlock], step[kBlock], to_end = 1.0f;
#pragma unroll
  for (int j = kBlock - 1; j >= 0; --j) {
    step[j] = x.e[at.row(j)][at.slot];
    ds[j] = to_end * x.slots[at.row(j) * kLd + at.slot];
    to_end *= step[j];
  }
#pragma unroll
  for (int i = 0; i < kBlock; ++i) {
    const int64_t source = ((chunk.row + at.row(i)) * a.H + h) * kM + at.slot;
    const bool inside = at.row(i) < chunk.rows;
    float dok = inside ? a.dok[source] : 0.0f, p = inside ? a.p[source] : 0.0f;
#pragma unroll
    for (int j = i; j >= 0; --j) {
      ds[j] += x.scores[0][at.row(j) * kLd + at.row(i)] * dok + x.scores[1][at.row(j) * kLd + at.row(i)] * p;
      dok *= step[j];
      p *= step[j];
    }
  }
  float term[kBlock], sum = 0;
#pragma unroll
  for (int i = 0; i < kBlock; ++i) {
    const int64_t source = ((chunk.row + at.row(i)) * a.H + h) * kM + at.slot;
    const bool inside = at.row(i) < chunk.rows;
    if (inside) a.ds[source] = ds[i];
    term[i] = inside ? a.flow[source] - a.s[source] * ds[i] : 0.0f;
    sum += term[i];
  }
  x.flow[at.block][at.slot] = sum;
  __syncthreads();
  const int64_t n_slices = (a.key.width + a.value.width) / kTile;
  float flow = 0;
  for (int64_t slice = 0; slice < n_slices; ++slice)
    flow += a.start_flow[((c * a.H + h) * n_slices + slice) * kM + at.slot];
  for (int J = 0; J < at.block; ++J) flow -= x.flow[J][at.slot];
#pragma unroll
  for (int i = 0; i < kBlock; ++i) {
    if (at.row(i) < chunk.rows) a.dg[((chunk.row + at.row(i)) * a.H + h) * kM + at.slot] = flow;
    flow -= term[i];
  }
}

__global__ void __launch_bounds__(kThreads) columns_kernel(ColumnPass a) {
  extern __shared__ __align__(1024) char memory[];
  Shared& x = *reinterpret_cast<Shared*>(memory);
  const int64_t c = blockIdx.x / a.H, h = blockIdx.x % a.H;
  const Chunk chunk = a.chunks.table[c];
  if (chunk.rows == 0) return;
  const int n_key = static_cast<int>(a.key.width / kTile), n_value = static_cast<int>(a.value.width / kTile);
  const int64_t token = chunk.row * a.H + h;
  const bf16* const tiles = a.tiles + (c * a.H + h) * (n_key + n_value) * kTileElements;
  const auto load = [&](int i) {
    if (i < n_key + n_value) {
      const bool key = i < n_key;
      const ColumnSide& side = key ? a.key : a.value;
      const int j = key ? i : i - n_key;
      bf16(*stage)[kTileElements] = x.stages[i % kStages];
      const int64_t at = token * side.width + j * kTile;
      load_tile<kC, kThreads>(stage[0], side.later + at, a.H * side.width, chunk.rows);
      load_tile<kC, kThreads>(stage[1], side.own + at, a.H * side.width, chunk.rows);
      load_tile<kC, kThreads>(stage[2], tiles + (side.first_tile + j) * kTileElements, kTile, kTile);
    }
    copy_commit();
  };
  load_tile<kC, kThreads>(x.to_end, a.chunks.s_to_end + token * kM, a.H * kM, chunk.rows);
  for (int side = 0; side < 2; ++side)
    load_tile<kC, kThreads>(x.weights[side], (side ? a.value : a.key).weights + (c * a.H + h) * kTileElements,
                            kTile, kTile);
  for (int i = 0; i < kStages - 1; ++i) load(i);
  load_decays(x, a, chunk, h);

  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, J = warp % kBlocks, half = warp / kBlocks * 32;
  const bool with_state = warp >= kBlocks;
  float state[8][4] = {};  // own rows times the state's gradient, both sides together
  for (int side = 0; side < 2; ++side) {
    const ColumnSide& part = side ? a.value : a.key;
    const int n = side ? n_value : n_key, first = side ? n_key : 0;
    float acc[8][4] = {};
    for (int i = 0; i < n; ++i) {
      copy_wait<kStages - 2>();
      __syncthreads();
      load(first + i + kStages - 1);
      const bf16(*stage)[kTileElements] = x.stages[(first + i) % kStages];
#pragma unroll
      for (int k = 0; k < kTile; k += 16) {
        uint32_t fa[4], fb[4];
        load_a(fa, stage[1], J * kBlock, k);
#pragma unroll
        for (int t = 0; t < 4; ++t) {
          if (with_state) {
            load_b_trans(fb, stage[2], t * 16, k);
            mma(state[2 * t], fa, fb[0], fb[1]);
            mma(state[2 * t + 1], fa, fb[2], fb[3]);
          } else if (t >= J) {
            load_b(fb, stage[0], t * 16, k);
            mma(acc[2 * t], fa, fb[0], fb[1]);
            mma(acc[2 * t + 1], fa, fb[2], fb[3]);
          }
        }
      }
      float out[4][4] = {};
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        uint32_t fa[4], fb[4];
        load_a(fa, x.to_end, J * kBlock, k * 16);
#pragma unroll
        for (int t = 0; t < 2; ++t) {
          load_b(fb, stage[2], half + t * 16, k * 16);
          mma(out[2 * t], fa, fb[0], fb[1]);
          mma(out[2 * t + 1], fa, fb[2], fb[3]);
        }
        if (k < J) continue;
        load_a_trans(fa, x.weights[side], J * kBlock, k * 16);
#pragma unroll
        for (int t = 0; t < 2; ++t) {
          load_b_trans(fb, stage[0], half + t * 16, k * 16);
          mma(out[2 * t], fa, fb[0], fb[1]);
          mma(out[2 * t + 1], fa, fb[2], fb[3]);
        }
      }
#pragma unroll
      for (int t = 0; t < 4; ++t)
#pragma unroll
        for (int r = 0; r < 2; ++r)
          *reinterpret_cast<uint32_t*>(
              x.out + tile_offset(J * kBlock + lane / 4 + r * 8, half + t * 8 + lane % 4 * 2)) =
              pack_bf16(out[t][2 * r], out[t][2 * r + 1]);
      __syncwarp();
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int row = J * kBlock + r * 8 + lane / 4, column = half + lane % 4 * 8;
        if (row < chunk.rows)
          *reinterpret_cast<uint4*>(part.out + (token + row * a.H) * part.width + i * kTile + column) =
              *reinterpret_cast<const uint4*>(x.out + tile_offset(row, column));
      }
      __syncwarp();
    }
    if (with_state) continue;
#pragma unroll
    for (int t = 0; t < 8; ++t)
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int row = J * kBlock + lane / 4 + r * 8, column = t * 8 + lane % 4 * 2;
        const float v0 = acc[t][2 * r] * part.scale, v1 = acc[t][2 * r + 1] * part.scale;
        *reinterpret_cast<float2*>(x.scores[side] + row * kLd + column) = make_float2(v0, v1);
        *reinterpret_cast<uint32_t*>(x.scores_tile[side] + tile_offset(row, column)) = pack_bf16(v0, v1);
      }
  }
  if (with_state)
#pragma unroll
    for (int t = 0; t < 8; ++t)
#pragma unroll
      for (int r = 0; r < 2; ++r)
        *reinterpret_cast<float2*>(x.slots + (J * kBlock + lane / 4 + r * 8) * kLd + t * 8 + lane % 4 * 2) =
            make_float2(state[t][2 * r], state[t][2 * r + 1]);
  __syncthreads();
  receive_later_blocks(x);
  __syncthreads();
  finish_slots(x, a, chunk, c, h);
}

}  // namespace

void launch_columns(gsa_device& device, const ColumnPass& pass) {
  const int64_t blocks = pass.chunks.count * pass.H;
  if (blocks == 0) return;
  static_assert(sizeof(Shared) <= 232448, "more shared memory than a block may have");
  cudaFuncSetAttribute(columns_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(Shared));
  columns_kernel<<<static_cast<unsigned>(blocks), kThreads, sizeof(Shared), device.stream>>>(pass);
}

}  // namespace gsa::sm90
