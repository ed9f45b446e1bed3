// One chunk of one query head, all channels: the forward outputs, or backward dq with what the gradient of
// the states and of the keys and values needs. Both contract rows with a state and with earlier rows, pass
// through the slots, and contract the slots with the other state and the other rows.
#include "fast_sm90.h"
#include "rows_sm90.cuh"

namespace gsa::sm90 {
namespace {

// Two blocks share a multiprocessor, so that one loads while the other is between its products; hence the
// thrift.
struct Shared {
  bf16 stages[kRowStages][3][kTileElements];
  Gates gates;
  float scores[kC * kLd], slots[kC * kLd];  // scores: later p (backward), then the staging of the output
};
static_assert(sizeof(Shared) <= (228 * 1024 - 2 * 1024) / 2, "two blocks must fit a multiprocessor");

// Between the two loops one stage is idle; these live in it. The weights take the place of the scores.
struct Between {
  bf16 scores_or_weights[kTileElements], from_block[kTileElements], from_chunk[kTileElements];
};

// slots = softmax(slots) over each row, ok to global memory; four threads a row. Returns the thread's 16
// weights.
struct RowQuarter {
  int row = threadIdx.x / 4, quarter = threadIdx.x % 4;
  __device__ int slot(int i) const { return i / 4 * 16 + quarter * 4 + i % 4; }
};

__device__ __forceinline__ float quad_sum(float x) {
  x += __shfl_xor_sync(~0u, x, 1);
  return x + __shfl_xor_sync(~0u, x, 2);
}

__device__ __forceinline__ void softmax_quarter(float (&x)[16]) {
  float largest = x[0], sum = 0;
#pragma unroll
  for (int i = 1; i < 16; ++i) largest = fmaxf(largest, x[i]);
  largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 1));
  largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 2));
#pragma unroll
  for (int i = 0; i < 16; ++i) sum += x[i] = expf(x[i] - largest);
  const float inverse = 1.0f / quad_sum(sum);
#pragma unroll
  for (int i = 0; i < 16; ++i) x[i] *= inverse;
}

__device__ __forceinline__ void forward_slots(const RowPass& a, Shared& x, const Chunk& chunk, int64_t head) {
  const RowQuarter at;
  float p[16];
#pragma unroll
  for (int i = 0; i < 16; ++i) p[i] = x.slots[at.row * kLd + at.slot(i)];
  if (a.ok && at.row < chunk.rows)
#pragma unroll
    for (int i = 0; i < 16; i += 4)
      *reinterpret_cast<float4*>(a.ok + ((chunk.row + at.row) * a.HQ + head) * kM + at.slot(i)) =
          make_float4(p[i], p[i + 1], p[i + 2], p[i + 3]);
  softmax_quarter(p);
#pragma unroll
  for (int i = 0; i < 16; ++i) x.slots[at.row * kLd + at.slot(i)] = p[i];
}

// slots holds dp: becomes dok; p goes to `scores`, whose scores are spent.
__device__ __forceinline__ void backward_slots(const RowPass& a, Shared& x, const Chunk& chunk,
                                               int64_t head) {
  const RowQuarter at;
  const bool inside = at.row < chunk.rows;
  const int64_t base = ((chunk.row + at.row) * a.HQ + head) * kM;
  float ok[16], p[16], mean = 0;
#pragma unroll
  for (int i = 0; i < 16; ++i) p[i] = ok[i] = inside ? a.ok[base + at.slot(i)] : 0.0f;
  softmax_quarter(p);
#pragma unroll
  for (int i = 0; i < 16; ++i) mean += p[i] * x.slots[at.row * kLd + at.slot(i)];
  mean = quad_sum(mean);
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    const int slot = at.slot(i);
    const float dp = x.slots[at.row * kLd + slot], dok = p[i] * (dp - mean);
    x.slots[at.row * kLd + slot] = inside ? dok : 0.0f;
    x.scores[at.row * kLd + slot] = inside ? p[i] : 0.0f;
    if (!inside) continue;
    a.p[base + slot] = p[i];
    a.dok[base + slot] = dok;
    a.flow[base + slot] = ok[i] * dok + p[i] * dp;
  }
}

// A tile of shared memory to rows of global memory; kPlain: 64 consecutive rows as the tile lies, for
// load_plain.
__device__ __forceinline__ void store_tile(const bf16* tile, bf16* global, int64_t stride, int rows) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int part = threadIdx.x + i * kThreads, row = part / 8, column = part % 8 * 8;
    if (row < rows)
      *reinterpret_cast<uint4*>(global + row * stride + column) =
          *reinterpret_cast<const uint4*>(tile + tile_offset(row, column));
  }
}

template <bool kBackward>
__global__ void __launch_bounds__(kThreads, 2) rows_kernel(RowPass a) {
  extern __shared__ __align__(1024) char memory[];
  Shared& x = *reinterpret_cast<Shared*>(memory);
  const Chunk chunk = a.chunks.table[blockIdx.x / a.HQ];
  if (chunk.rows == 0) return;
  const int64_t c = blockIdx.x / a.HQ, head = blockIdx.x % a.HQ, h = head / (a.HQ / a.H);
  const int n_in = static_cast<int>(a.in_width / kTile), n_out = static_cast<int>(a.out_width / kTile);
  const int64_t query_row = chunk.row * a.HQ + head, key_row = chunk.row * a.H + h;
  const bf16* const tiles = a.tiles + (c * a.H + h) * (n_in + n_out) * kTileElements;
  const auto load = [&](int i) {
    bf16(*stage)[kTileElements] = x.stages[i % kRowStages];
    if (i < n_in) {
      load_tile<kC, kThreads>(stage[0], a.in_rows + query_row * a.in_width + i * kTile, a.HQ * a.in_width,
                              chunk.rows);
      load_tile<kC, kThreads>(stage[1], a.in_keys + key_row * a.in_width + i * kTile, a.H * a.in_width,
                              chunk.rows);
      load_tile<kC, kThreads>(stage[2], tiles + (a.in_first + i) * kTileElements, kTile, kTile);
    } else if (i < n_in + n_out) {
      const int j = i - n_in;
      load_tile<kC, kThreads>(stage[1], a.out_keys + key_row * a.out_width + j * kTile, a.H * a.out_width,
                              chunk.rows);
      load_tile<kC, kThreads>(stage[2], tiles + (a.out_first + j) * kTileElements, kTile, kTile);
    }
    copy_commit();
  };
  for (int i = 0; i < kRowStages - 1; ++i) load(i);
  load_gates(x.gates, chunk, a.s, a.g, a.H, h);

  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, I = warp % kBlocks;
  const bool with_state = warp >= kBlocks;  // half the warps contract with the state, half with the rows
  Between& y = *reinterpret_cast<Between*>(x.stages[(n_in - 1) % kRowStages]);
  const Strengths strengths{a.s + key_row * kM, a.H * kM, chunk.rows};
  {
    float acc[8][4] = {};
    for (int i = 0; i < n_in; ++i) {
      copy_wait<kRowStages - 2>();
      __syncthreads();
      load(i + kRowStages - 1);
      const bf16(*stage)[kTileElements] = x.stages[i % kRowStages];
#pragma unroll
      for (int k = 0; k < kTile; k += 16) {
        uint32_t fa[4], fb[4];
        load_a(fa, stage[0], I * kBlock, k);
#pragma unroll
        for (int t = 0; t < 4; ++t) {
          if (with_state)
            load_b_trans(fb, stage[2], t * 16, k);
          else if (t <= I)
            load_b(fb, stage[1], t * 16, k);
          else
            continue;
          mma(acc[2 * t], fa, fb[0], fb[1]);
          mma(acc[2 * t + 1], fa, fb[2], fb[3]);
        }
      }
    }
    __syncthreads();
    float* const to = with_state ? x.slots : x.scores;
#pragma unroll
    for (int t = 0; t < 8; ++t)
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int row = I * kBlock + lane / 4 + i * 8, column = t * 8 + lane % 4 * 2;
        const float v0 = acc[t][2 * i] * a.in_scale, v1 = acc[t][2 * i + 1] * a.in_scale;
        *reinterpret_cast<float2*>(to + row * kLd + column) = make_float2(v0, v1);
        if (!with_state)
          *reinterpret_cast<uint32_t*>(y.scores_or_weights + tile_offset(row, column)) = pack_bf16(v0, v1);
      }
  }
  __syncthreads();
  receive_blocks(y.scores_or_weights, x.gates.past, x.gates.from_start, x.slots);
  __syncthreads();
  receive_rows(x.scores, strengths, x.gates.e, x.slots);
  __syncthreads();
  if constexpr (kBackward) {
    backward_slots(a, x, chunk, head);
    __syncthreads();
    const int64_t at = (c * a.HQ + head) * kTileElements;
    decayed_tiles(x.scores, x.gates.e, x.gates.from_start, y.from_block, y.from_chunk);
    __syncthreads();
    pair_weights(x.scores, y.from_block, x.gates.past, strengths, x.gates.e, y.scores_or_weights);
    store_tile(y.from_chunk, a.p_decayed + query_row * kM, a.HQ * kM, chunk.rows);
    __syncthreads();
    store_tile(y.scores_or_weights, a.value_weights + at, kTile, kTile);
    for (int i = threadIdx.x; i < kC * kLd; i += kThreads) x.slots[i] *= a.out_scale;
    __syncthreads();
  } else {
    forward_slots(a, x, chunk, head);
    __syncthreads();
  }
  decayed_tiles(x.slots, x.gates.e, x.gates.from_start, y.from_block, y.from_chunk);
  __syncthreads();
  pair_weights(x.slots, y.from_block, x.gates.past, strengths, x.gates.e, y.scores_or_weights);
  __syncthreads();
  if constexpr (kBackward) {
    store_tile(y.from_chunk, a.dok_decayed + query_row * kM, a.HQ * kM, chunk.rows);
    store_tile(y.scores_or_weights, a.key_weights + (c * a.HQ + head) * kTileElements, kTile, kTile);
  }

  uint32_t past[4][4], inside[4][4];
  const int half = warp / kBlocks * 32;
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    load_a(past[k], y.from_chunk, I * kBlock, k * 16);
    if (k <= I) load_a(inside[k], y.scores_or_weights, I * kBlock, k * 16);
  }
  bf16* const staging = reinterpret_cast<bf16*>(x.scores);
  for (int j = 0; j < n_out; ++j) {
    copy_wait<kRowStages - 2>();
    __syncthreads();
    load(n_in + j + kRowStages - 1);
    const bf16(*stage)[kTileElements] = x.stages[(n_in + j) % kRowStages];
    float acc[4][4] = {};
#pragma unroll
    for (int k = 0; k < 4; ++k)
#pragma unroll
      for (int t = 0; t < 2; ++t) {
        uint32_t fb[4];
        load_b(fb, stage[2], half + t * 16, k * 16);
        mma(acc[2 * t], past[k], fb[0], fb[1]);
        mma(acc[2 * t + 1], past[k], fb[2], fb[3]);
        if (k > I) continue;
        load_b_trans(fb, stage[1], half + t * 16, k * 16);
        mma(acc[2 * t], inside[k], fb[0], fb[1]);
        mma(acc[2 * t + 1], inside[k], fb[2], fb[3]);
      }
    // The warp's 16 rows of 32 columns through shared memory, so that the stores are 16 bytes wide.
#pragma unroll
    for (int t = 0; t < 4; ++t)
#pragma unroll
      for (int i = 0; i < 2; ++i)
        *reinterpret_cast<uint32_t*>(
            staging + tile_offset(I * kBlock + lane / 4 + i * 8, half + t * 8 + lane % 4 * 2)) =
            pack_bf16(acc[t][2 * i], acc[t][2 * i + 1]);
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = I * kBlock + i * 8 + lane / 4, column = half + lane % 4 * 8;
      if (row < chunk.rows)
        *reinterpret_cast<uint4*>(a.out + (query_row + row * a.HQ) * a.out_width + j * kTile + column) =
            *reinterpret_cast<const uint4*>(staging + tile_offset(row, column));
    }
    __syncwarp();
  }
}

}  // namespace

void launch_rows(gsa_device& device, const RowPass& pass, bool backward) {
  const int64_t blocks = pass.chunks.count * pass.HQ;
  if (blocks == 0) return;
  const auto kernel = backward ? rows_kernel<true> : rows_kernel<false>;
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(Shared));
  kernel<<<static_cast<unsigned>(blocks), kThreads, sizeof(Shared), device.stream>>>(pass);
}

}  // namespace gsa::sm90
