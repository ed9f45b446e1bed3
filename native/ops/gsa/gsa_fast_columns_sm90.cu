// One chunk of one head: dk, dv, ds, dg. Key and value side do the same: rows of the chunk read later rows
// and the gradient of the state after the chunk.
#include "columns_sm90.cuh"

namespace gsa::sm90 {
namespace {

// Of 64 slots, two blocks share a multiprocessor; what is used at different times shares its place. Of 128,
// one block with twice the threads has it, and a third stage. Exact, always one.
template <typename S>
constexpr int blocks_per_multiprocessor() {
  return S::kHalves == 1 && !S::kExact ? 2 : 1;
}

template <typename S>
struct Shared {
  static constexpr int kM = S::kPlaces, kHalves = S::kHalves, kStages = S::kExact ? 2 : kHalves + 1;
  union {
    bf16 stages[kStages][2 + S::kTiles][kTileElements];
    struct {  // after the loops over the channels
      float value_scores[kC * kScoreLd], slots[kC * Shape<S>::kLd];
    };
  };
  union {
    struct {
      bf16 to_end[S::kTiles * kTileElements];      // write strengths decayed to the end of the chunk
      bf16 weights[2][S::kParts * kTileElements];  // key, value side
    };
    // For block J: dok and p of later blocks' rows, decayed from the end of J. Exact, nobody needs it.
    bf16 later[2][S::kExact ? 8 : kHalves * kTableRows * kTile];
  };
  float e[kC][kM];
  float block_decay[kBlocks][kM], to_chunk_end[kBlocks][kM];  // to_chunk_end: from the end of a block
  float flow[kBlocks][kM];
  float key_scores[kC * kScoreLd];  // [j, i] = own_j . later_i
};
template <typename S>
constexpr bool fits() {
  const int blocks = blocks_per_multiprocessor<S>();
  return sizeof(Shared<S>) <= (228 * 1024 - blocks * 1024) / blocks;
}

template <typename S>
__device__ __forceinline__ void load_decays(Shared<S>& x, const ColumnPass& a, const Chunk& chunk, int64_t h,
                                            const S& slots) {
  const BlockSlot<S> at;
  const int rows = slots.rows(chunk.rows, at.slot);
  float decay = 1.0f;
#pragma unroll
  for (int i = 0; i < kBlock; ++i) {
    const int64_t source = ((chunk.row + at.row(i)) * a.H + h) * slots.pitch() + at.slot;
    const float step = at.row(i) < rows ? expf(a.g[source]) : 1.0f;
    x.e[at.row(i)][at.slot] = step;
    decay *= step;
  }
  x.block_decay[at.block][at.slot] = decay;
  __syncthreads();
  float end = 1.0f;
  for (int I = kBlocks - 1; I > at.block; --I) end *= x.block_decay[I][at.slot];
  x.to_chunk_end[at.block][at.slot] = end;
}

template <typename S>
__device__ __forceinline__ void tabulate_later(Shared<S>& x, const ColumnPass& a, const Chunk& chunk,
                                               int64_t head) {
  const BlockSlot<S> at;
  float r = 1.0f;
#pragma unroll 4
  for (int i = 0; i < kBlock; ++i) {
    const int64_t source = ((chunk.row + at.row(i)) * a.H * a.G + head) * S::kPlaces + at.slot;
    const bool inside = at.row(i) < chunk.rows;
    r *= x.e[at.row(i)][at.slot];
    float dok = inside ? a.dok[source] * r : 0.0f, p = inside ? a.p[source] * r : 0.0f;
    for (int J = at.block - 1; J >= 0; --J) {
      const int to = (rows_after(J) + (at.block - J - 1) * kBlock) * kTile +
                     slot_offset<S>(i, at.slot, kTableRows * kTile);
      x.later[0][to] = __float2bfloat16_rn(dok);
      x.later[1][to] = __float2bfloat16_rn(p);
      dok *= x.block_decay[J][at.slot];
      p *= x.block_decay[J][at.slot];
    }
  }
}

// Operand a of rows [row, row + 16) and k in [k, k + 16) from float32 scores.
__device__ __forceinline__ void load_a_scores(uint32_t (&fa)[4], const float* scores, int row, int k) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 v = *reinterpret_cast<const float2*>(scores + (row + lane / 4 + i % 2 * 8) * kScoreLd + k +
                                                      lane % 4 * 2 + i / 2 * 8);
    fa[i] = pack_bf16(v.x, v.y);
  }
}

// slots [j, m] = to_chunk_end * slots + sum over later blocks of scores [j, i] later [i, m], relative to the
// end of j's block. A warp does 16 rows of 32 slots.
template <typename S>
__device__ __forceinline__ void receive_later_blocks(Shared<S>& x) {
  constexpr int kLd = Shape<S>::kLd;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, J = warp % kBlocks, first = warp / kBlocks * 32;
  const int half = S::kHalves == 1 ? first : first % kTile;
  const int table = S::kHalves == 1 ? 0 : first / kTile * (kTableRows * kTile);
  float acc[4][4] = {};
#pragma unroll
  for (int side = 0; side < 2; ++side)
#pragma unroll
    for (int I = 1; I < kBlocks; ++I) {
      if (I <= J) continue;
      uint32_t fa[4], fb[4];
      load_a_scores(fa, side ? x.value_scores : x.key_scores, J * kBlock, I * kBlock);
#pragma unroll
      for (int t = 0; t < 2; ++t) {
        load_b_trans(fb, x.later[side] + table + rows_after(J) * kTile, half + t * 16, (I - J - 1) * kBlock);
        mma(acc[2 * t], fa, fb[0], fb[1]);
        mma(acc[2 * t + 1], fa, fb[2], fb[3]);
      }
    }
#pragma unroll
  for (int t = 0; t < 4; ++t)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = J * kBlock + lane / 4 + i / 2 * 8, m = first + t * 8 + lane % 4 * 2 + i % 2;
      x.slots[row * kLd + m] = x.to_chunk_end[J][m] * x.slots[row * kLd + m] + acc[t][i];
    }
}

// Exact, what receive_later_blocks does, in float32.
template <typename S>
__device__ __forceinline__ void receive_later_rows(Shared<S>& x, const ColumnPass& a, const Chunk& chunk,
                                                   int64_t head) {
  const BlockSlot<S> at;
  float sum[kBlock], r = 1.0f;
#pragma unroll
  for (int j = 0; j < kBlock; ++j)
    sum[j] = x.to_chunk_end[at.block][at.slot] * x.slots[at.row(j) * Shape<S>::kLd + at.slot];
  for (int i = (at.block + 1) * kBlock; i < chunk.rows; ++i) {
    const int64_t source = ((chunk.row + i) * a.H * a.G + head) * S::kPlaces + at.slot;
    r *= x.e[i][at.slot];
    const float dok = a.dok[source] * r, p = a.p[source] * r;
#pragma unroll
    for (int j = 0; j < kBlock; ++j)
      sum[j] += x.key_scores[at.row(j) * kScoreLd + i] * dok + x.value_scores[at.row(j) * kScoreLd + i] * p;
  }
#pragma unroll
  for (int j = 0; j < kBlock; ++j) x.slots[at.row(j) * Shape<S>::kLd + at.slot] = sum[j];
}

// What one query head gives to ds; the first finds the state's part in slots and starts the sum, the last has
// it all. Exact, what later rows give is also summed by itself: a row's own part crosses no gate.
template <typename S, bool kFirst>
__device__ __forceinline__ void add_strengths(Shared<S>& x, const ColumnPass& a, const Chunk& chunk,
                                              int64_t h, int64_t member, const S& slots) {
  constexpr int kM = S::kPlaces;
  const BlockSlot<S> at;
  const int rows = slots.rows(chunk.rows, at.slot);
  const int pitch = slots.pitch();
  const auto key = [&](int i) { return ((chunk.row + at.row(i)) * a.H + h) * pitch + at.slot; };
  float ds[kBlock], step[kBlock], to_end = 1.0f;
#pragma unroll
  for (int j = kBlock - 1; j >= 0; --j) {
    step[j] = x.e[at.row(j)][at.slot];
    ds[j] = to_end * x.slots[at.row(j) * Shape<S>::kLd + at.slot];
    if (!kFirst && !S::kExact && at.row(j) < rows) ds[j] += a.ds[key(j)];
    to_end *= step[j];
  }
#pragma unroll
  for (int i = 0; i < kBlock; ++i) {
    const int64_t source = (((chunk.row + at.row(i)) * a.H + h) * a.G + member) * kM + at.slot;
    const bool inside = at.row(i) < chunk.rows;
    float dok = inside ? a.dok[source] : 0.0f, p = inside ? a.p[source] : 0.0f;
#pragma unroll
    for (int j = i; j >= 0; --j) {
      if (j < i || !S::kExact)
        ds[j] += x.key_scores[at.row(j) * kScoreLd + at.row(i)] * dok +
                 x.value_scores[at.row(j) * kScoreLd + at.row(i)] * p;
      dok *= step[j];
      p *= step[j];
    }
    if (i % 4 == 3) asm volatile("" ::: "memory");  // four rows' loads at a time: registers
  }
#pragma unroll
  for (int i = 0; i < kBlock; ++i) {
    if (at.row(i) >= rows) continue;
    if constexpr (S::kExact) {
      const int64_t own = (chunk.row + at.row(i)) * a.H + h, source = (own * a.G + member) * kM + at.slot;
      const int pair = at.row(i) * kScoreLd + at.row(i);
      float& later = a.later[own * kM + at.slot];
      later = (kFirst ? 0.0f : later) + ds[i];
      ds[i] += x.key_scores[pair] * a.dok[source] + x.value_scores[pair] * a.p[source];
      if (!kFirst) ds[i] += a.ds[key(i)];
      if (i % 4 == 3) asm volatile("" ::: "memory");
    }
    a.ds[key(i)] = ds[i];
  }
}

// dg is what crosses the gate of each row: at the chunk's start the state times its gradient, then row by row
// less what the row reads from before, plus what it wrote for after. Each thread reads what it wrote.
template <typename S>
__device__ __forceinline__ void run_gates(Shared<S>& x, const ColumnPass& a, const Chunk& chunk, int64_t c,
                                          int64_t h, const S& slots) {
  constexpr int kM = S::kPlaces;
  const BlockSlot<S> at;
  const int rows = slots.rows(chunk.rows, at.slot);
  const auto term = [&](int i) {
    if (at.row(i) >= rows) return 0.0f;
    const int64_t source = (chunk.row + at.row(i)) * a.H + h;
    const float given = S::kExact ? a.later[source * kM + at.slot] : a.ds[source * slots.pitch() + at.slot];
    float sum = -a.s[source * slots.pitch() + at.slot] * given;
    for (int64_t member = 0; member < a.G; ++member) sum += a.flow[(source * a.G + member) * kM + at.slot];
    return sum;
  };
  float sum = 0;
#pragma unroll 4
  for (int i = 0; i < kBlock; ++i) sum += term(i);
  x.flow[at.block][at.slot] = sum;
  __syncthreads();
  const int64_t n_slices = (a.key.width + a.value.width) / kTile;
  float flow = 0;
  for (int64_t slice = 0; slice < n_slices; ++slice)
    flow += a.start_flow[((c * a.H + h) * n_slices + slice) * kM + at.slot];
  for (int J = 0; J < at.block; ++J) flow -= x.flow[J][at.slot];
#pragma unroll 4
  for (int i = 0; i < kBlock; ++i) {
    if (at.row(i) < rows) a.dg[((chunk.row + at.row(i)) * a.H + h) * slots.pitch() + at.slot] = flow;
    flow -= term(i);
  }
}

__device__ __forceinline__ uint4 add_bf16(const uint4& a, const uint4& b) {
  uint4 sum;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 x = __bfloat1622float2(reinterpret_cast<const __nv_bfloat162*>(&a)[i]);
    const float2 y = __bfloat1622float2(reinterpret_cast<const __nv_bfloat162*>(&b)[i]);
    reinterpret_cast<uint32_t*>(&sum)[i] = pack_bf16(x.x + y.x, x.y + y.y);
  }
  return sum;
}

// One query head of the group. The first also takes what comes from the state; the others add to its dk, dv,
// ds.
template <typename S, bool kFirst>
__device__ __forceinline__ void column_head(Shared<S>& x, const ColumnPass& a, const Chunk& chunk, int64_t c,
                                            int64_t h, int64_t member) {
  constexpr int kM = S::kPlaces, kHalves = S::kHalves, kParts = S::kParts, kThreads = Shape<S>::kThreads,
                kStages = Shared<S>::kStages;
  const int n_key = static_cast<int>(a.key.width / kTile), n_value = static_cast<int>(a.value.width / kTile);
  const int64_t token = chunk.row * a.H + h, HQ = a.H * a.G, head = h * a.G + member,
                query = chunk.row * HQ + head;
  const bf16* const tiles = a.tiles + (c * a.H + h) * (n_key + n_value) * (S::kTiles * kTileElements);
  const auto load = [&](int i) {
    if (i < n_key + n_value) {
      const bool key = i < n_key;
      const ColumnSide& side = key ? a.key : a.value;
      const int j = key ? i : i - n_key;
      const int64_t width = side.width;
      bf16(*stage)[kTileElements] = x.stages[i % kStages];
      load_tile<kC, kThreads>(stage[0], side.later + query * width + j * kTile, HQ * width, chunk.rows);
      load_tile<kC, kThreads>(stage[1], side.own + token * width + j * kTile, a.H * width, chunk.rows);
      if constexpr (kFirst)
#pragma unroll
        for (int tile = 0; tile < S::kTiles; ++tile)
          load_tile<kC, kThreads>(stage[2 + tile],
                                  tiles + ((side.first_tile + j) * S::kTiles + tile) * kTileElements, kTile,
                                  kTile);
    }
    copy_commit();
  };
  if constexpr (kFirst)
#pragma unroll
    for (int tile = 0; tile < S::kTiles; ++tile)
      load_tile<kC, kThreads>(x.to_end + tile * kTileElements,
                              a.chunks.s_to_end + token * S::kPitch + tile * kTile, a.H * S::kPitch,
                              chunk.rows);
  for (int side = 0; side < 2; ++side)
#pragma unroll
    for (int of = 0; of < kParts; ++of)
      load_tile<kC, kThreads>(
          x.weights[side] + of * kTileElements,
          (side ? a.value : a.key).weights + ((c * HQ + head) * kParts + of) * kTileElements, kTile, kTile);
  for (int i = 0; i < kStages - 1; ++i) load(i);

  // A warp makes 16 rows of kColumns channels; it contracts own rows with the state of 64 slots, or with 64 /
  // kHalves of the later rows.
  constexpr int kColumns = 32 / kHalves;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, J = warp % kBlocks,
            half = warp / kBlocks * kColumns;
  const bool with_state = warp >= kBlocks * kHalves;
  const int share = kHalves == 1 ? 0 : warp / kBlocks % kHalves;
  const auto mine = [&](int t) { return kHalves == 1 || t % kHalves == share; };
  // Own rows times later rows, side by side; or times the state's gradient, both sides together.
  float acc[8][4] = {};
  for (int side = 0; side < 2; ++side) {
    const ColumnSide& part = side ? a.value : a.key;
    const int n = side ? n_value : n_key, first = side ? n_key : 0;
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
            if constexpr (kFirst)
#pragma unroll
              for (int of = 0; of < kParts; ++of) {
                load_b_trans(fb, stage[2 + share * kParts + of], t * 16, k);
                mma(acc[2 * t], fa, fb[0], fb[1]);
                mma(acc[2 * t + 1], fa, fb[2], fb[3]);
              }
          } else if (t >= J && mine(t)) {
            load_b(fb, stage[0], t * 16, k);
            mma(acc[2 * t], fa, fb[0], fb[1]);
            mma(acc[2 * t + 1], fa, fb[2], fb[3]);
          }
        }
      }
      float out[kColumns / 8][4] = {};
#pragma unroll
      for (int k = 0; k < kM / 16; ++k) {
        uint32_t fa[kParts][4], fb[4];
        const auto add = [&](int t, int of, const uint32_t (&fb)[4]) {
          mma(out[2 * t], fa[of], fb[0], fb[1]);
          mma(out[2 * t + 1], fa[of], fb[2], fb[3]);
        };
        if constexpr (kFirst) {
#pragma unroll
          for (int of = 0; of < kParts; ++of)
            load_a(fa[of], x.to_end + (k / 4 * kParts + of) * kTileElements, J * kBlock, k % 4 * 16);
#pragma unroll
          for (int t = 0; t < kColumns / 16; ++t) {
            load_b(fb, stage[2 + k / 4 * kParts], half + t * 16, k % 4 * 16);
            add(t, 0, fb);
            if constexpr (S::kExact) {
              add(t, 1, fb);
              load_b(fb, stage[2 + k / 4 * kParts + 1], half + t * 16, k % 4 * 16);
              add(t, 0, fb);
            }
          }
        }
        if (k >= 4 || k < J) continue;
#pragma unroll
        for (int of = 0; of < kParts; ++of)
          load_a_trans(fa[of], x.weights[side] + of * kTileElements, J * kBlock, k * 16);
#pragma unroll
        for (int t = 0; t < kColumns / 16; ++t) {
          load_b_trans(fb, stage[0], half + t * 16, k * 16);
#pragma unroll
          for (int of = 0; of < kParts; ++of) add(t, of, fb);
        }
      }
      // A group's sum stays in float32 until its last query head has added to it.
      if (S::kExact && part.sum)
#pragma unroll
        for (int t = 0; t < kColumns / 8; ++t)
#pragma unroll
          for (int r = 0; r < 2; ++r) {
            const int row = J * kBlock + lane / 4 + r * 8;
            if (row >= chunk.rows) continue;
            float2& sum = *reinterpret_cast<float2*>(part.sum + (token + row * a.H) * part.width + i * kTile +
                                                     half + t * 8 + lane % 4 * 2);
            if (!kFirst) {
              out[t][2 * r] += sum.x;
              out[t][2 * r + 1] += sum.y;
            }
            sum = make_float2(out[t][2 * r], out[t][2 * r + 1]);
          }
      // Four pairs of columns a lane become eight columns of one row: of 16 columns, two rows' pairs.
#pragma unroll
      for (int r = 0; r < 2 / kHalves; ++r) {
        uint32_t pairs[4];
#pragma unroll
        for (int t = 0; t < 4; ++t) {
          const int tile = t % (kColumns / 8), low = r + t / (kColumns / 8);
          pairs[t] = pack_bf16(out[tile][2 * low], out[tile][2 * low + 1]);
        }
        const uint4 eight = gather_eight(pairs);
        const int lower = kHalves == 1 ? r : lane % 4 / 2, eighth = kHalves == 1 ? lane % 4 : lane % 2;
        const int row = J * kBlock + lower * 8 + lane / 4, column = half + eighth * 8;
        if (row >= chunk.rows) continue;
        uint4& to =
            *reinterpret_cast<uint4*>(part.out + (token + row * a.H) * part.width + i * kTile + column);
        to = kFirst || S::kExact ? eight : add_bf16(to, eight);
      }
    }
    if (side) __syncthreads();  // the stages are spent
    if (with_state && side == 0) continue;
    float* const to = with_state ? x.slots + share * kTile : side ? x.value_scores : x.key_scores;
    const float scale = with_state ? 1.0f : part.scale;
    const int ld = with_state ? Shape<S>::kLd : kScoreLd;
#pragma unroll
    for (int t = 0; t < 8; ++t)
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        if (!with_state && !mine(t / 2)) continue;
        const int row = J * kBlock + lane / 4 + r * 8, column = t * 8 + lane % 4 * 2;
        *reinterpret_cast<float2*>(to + row * ld + column) =
            make_float2(acc[t][2 * r] * scale, acc[t][2 * r + 1] * scale);
        acc[t][2 * r] = acc[t][2 * r + 1] = 0.0f;
      }
  }
  if constexpr (S::kExact) {
    __syncthreads();
    receive_later_rows(x, a, chunk, head);
  } else {
    tabulate_later(x, a, chunk, head);
    __syncthreads();
    receive_later_blocks(x);
  }
  __syncthreads();
  add_strengths<S, kFirst>(x, a, chunk, h, member, S{a.chunks.M});
}

// Query head `member` of each group. The first also takes what comes from the state, the last finishes dg.
template <typename S, bool kFirst>
__global__ void __launch_bounds__(Shape<S>::kThreads, blocks_per_multiprocessor<S>())
    columns_kernel(ColumnPass a, int64_t member) {
  static_assert(fits<S>(), "the blocks of a multiprocessor must fit its shared memory");
  Shared<S>& x = *reinterpret_cast<Shared<S>*>(block_memory());
  const S slots{a.chunks.M};
  const int64_t c = blockIdx.x / a.H, h = blockIdx.x % a.H;
  const Chunk chunk = a.chunks.table[c];
  if (chunk.rows == 0) return;
  load_decays(x, a, chunk, h, slots);
  column_head<S, kFirst>(x, a, chunk, c, h, member);
  if (member == a.G - 1) run_gates(x, a, chunk, c, h, slots);
}

}  // namespace

void launch_columns(gsa_device& device, const ColumnPass& pass) {
  const int64_t blocks = pass.chunks.count * pass.H;
  if (blocks == 0) return;
  with_slots(pass.chunks, [&](auto slots) {
    using S = decltype(slots);
    for (int64_t member = 0; member < pass.G; ++member)
      cuda::launch_blocks(device, member == 0 ? columns_kernel<S, true> : columns_kernel<S, false>, blocks,
                          Shape<S>::kThreads, sizeof(Shared<S>), pass, member);
  });
}

}  // namespace gsa::sm90
