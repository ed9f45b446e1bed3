// One chunk of one query head, all channels: the forward outputs, or backward dq with what the gradient of
// the states and of the keys and values needs. Both contract rows with a state and with earlier rows, pass
// through the slots, and contract the slots with the other state and the other rows.
#include "fast_sm90.h"
#include "rows_sm90.cuh"

namespace gsa::sm90 {
namespace {

// Of 64 slots, two blocks share a multiprocessor, so that one loads while the other is between its products;
// hence the thrift. Of 128, one block with twice the threads has it, and a third stage. Exact, always one.
template <typename S>
struct Shared {
  static constexpr int kStages = S::kExact ? 2 : S::kHalves + 1, kStageTiles = S::kTiles + 2;
  bf16 stages[kStages][kStageTiles][kTileElements];
  Gates<S> gates;
  float scores[kC * Shape<S>::kLd];  // later p (backward), then the staging of the output
  float slots[kC * Shape<S>::kLd];
};
template <typename S>
constexpr int blocks_per_multiprocessor() {
  return S::kHalves == 1 && !S::kExact ? 2 : 1;
}
template <typename S>
constexpr bool fits() {
  const int blocks = blocks_per_multiprocessor<S>();
  return sizeof(Shared<S>) <= (228 * 1024 - blocks * 1024) / blocks;
}

// Between the two loops one stage is idle; these live in it. Its tiles are few: of 64 slots the weights take
// the place of the scores; of 128 the scores that of from_block, p's weights that of from_chunk (which must
// be stored before) and the last weights that of the float32 scores or p, then spent. Exact, there are only
// weights: from_chunk takes the place of what it was made of.
template <typename S>
struct Between {
  bf16 *scores, *from_block, *from_chunk, *weights_of_p, *weights;
  __device__ Between(Shared<S>& x, int stage) {
    bf16(*const tiles)[kTileElements] = x.stages[stage];
    scores = tiles[0];
    from_block = tiles[S::kHalves == 1 ? 1 : 0];
    from_chunk = tiles[2];
    weights_of_p = S::kHalves == 1 ? scores : from_chunk;
    weights = S::kHalves == 1 || S::kExact ? scores : reinterpret_cast<bf16*>(x.scores);
  }
};

// A thread's 16 slots of a row, which it shares with the lanes beside it.
template <typename S>
struct RowPart {
  static constexpr int kShare = Shape<S>::kShare;
  int row = threadIdx.x / kShare, part = threadIdx.x % kShare;
  __device__ int slot(int i) const { return (i / 4 * kShare + part) * 4 + i % 4; }
};

template <typename S>
__device__ __forceinline__ float row_sum(float x) {
#pragma unroll
  for (int offset = 1; offset < Shape<S>::kShare; offset *= 2) x += __shfl_xor_sync(~0u, x, offset);
  return x;
}

// x = softmax(x) over each row.
template <typename S>
__device__ __forceinline__ void softmax_part(float (&x)[16]) {
  float largest = x[0], sum = 0;
#pragma unroll
  for (int i = 1; i < 16; ++i) largest = fmaxf(largest, x[i]);
#pragma unroll
  for (int offset = 1; offset < Shape<S>::kShare; offset *= 2)
    largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, offset));
#pragma unroll
  for (int i = 0; i < 16; ++i) sum += x[i] = expf(x[i] - largest);
  const float inverse = 1.0f / row_sum<S>(sum);
#pragma unroll
  for (int i = 0; i < 16; ++i) x[i] *= inverse;
}

// slots = softmax(slots), ok to global memory.
template <typename S>
__device__ __forceinline__ void forward_slots(const RowPass& a, Shared<S>& x, const Chunk& chunk,
                                              int64_t head, const S& slots) {
  constexpr int kLd = Shape<S>::kLd;
  const RowPart<S> at;
  float p[16];
#pragma unroll
  for (int i = 0; i < 16; ++i) p[i] = x.slots[at.row * kLd + at.slot(i)];
#pragma unroll
  for (int i = 0; i < 16; i += 4) {
    if (a.ok && at.row < slots.rows(chunk.rows, at.slot(i)))
      *reinterpret_cast<float4*>(a.ok + ((chunk.row + at.row) * a.HQ + head) * slots.pitch() + at.slot(i)) =
          make_float4(p[i], p[i + 1], p[i + 2], p[i + 3]);
    if (!slots.has(at.slot(i))) p[i] = p[i + 1] = p[i + 2] = p[i + 3] = -INFINITY;
  }
  softmax_part<S>(p);
#pragma unroll
  for (int i = 0; i < 16; ++i) x.slots[at.row * kLd + at.slot(i)] = p[i];
}

// slots holds dp: becomes dok; p goes to `scores`, whose scores are spent. Exact, slots holds the part of dp
// that earlier rows wrote: what a row wrote itself crosses no gate, and where slots forget nearly everything
// it is so large beside the rest that nothing would be left of dg in the difference.
template <typename S>
__device__ __forceinline__ void backward_slots(const RowPass& a, Shared<S>& x, const Chunk& chunk,
                                               int64_t head, const Strengths<S>& strengths, const S& slots) {
  constexpr int kLd = Shape<S>::kLd;
  const RowPart<S> at;
  const bool inside = at.row < chunk.rows;
  const int64_t row = (chunk.row + at.row) * a.HQ + head, base = row * S::kPlaces;
  float ok[16], p[16], dp[16], mean = 0;
  const float own = S::kExact ? x.scores[at.row * kScoreLd + at.row] : 0.0f;
  if constexpr (S::kExact) __syncthreads();  // p's rows lie where others' scores are
#pragma unroll
  for (int i = 0; i < 16; i += 4) {
    const bool has = slots.has(at.slot(i));
    const float4 four =
        inside && has ? *reinterpret_cast<const float4*>(a.ok + row * slots.pitch() + at.slot(i)) : float4{};
    ok[i] = four.x;
    ok[i + 1] = four.y;
    ok[i + 2] = four.z;
    ok[i + 3] = four.w;
#pragma unroll
    for (int j = i; j < i + 4; ++j) p[j] = has ? ok[j] : -INFINITY;
  }
  softmax_part<S>(p);
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    dp[i] = x.slots[at.row * kLd + at.slot(i)];
    if constexpr (S::kExact) dp[i] += own * strengths.at(at.row, at.slot(i));
    mean += p[i] * dp[i];
  }
  mean = row_sum<S>(mean);
#pragma unroll
  for (int i = 0; i < 16; i += 4) {
    float dok[4], flow[4];
    float4 past{};
    if (S::kExact && inside) past = *reinterpret_cast<const float4*>(a.flow + base + at.slot(i));
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int slot = at.slot(i + j);
      dok[j] = p[i + j] * (dp[i + j] - mean);
      if constexpr (S::kExact)
        flow[j] = (&past.x)[j] * dok[j] + p[i + j] * x.slots[at.row * kLd + slot];
      else
        flow[j] = ok[i + j] * dok[j] + p[i + j] * dp[i + j];
      x.slots[at.row * kLd + slot] = inside ? dok[j] : 0.0f;
      x.scores[at.row * kLd + slot] = inside ? p[i + j] : 0.0f;
    }
    if (!inside) continue;
    const auto store = [&](float* to, const float* from) {
      *reinterpret_cast<float4*>(to + base + at.slot(i)) = make_float4(from[0], from[1], from[2], from[3]);
    };
    store(a.p, p + i);
    store(a.dok, dok);
    store(a.flow, flow);
  }
}

// A tile of shared memory to rows of global memory.
template <int kThreads>
__device__ __forceinline__ void store_tile(const bf16* tile, bf16* global, int64_t stride, int rows) {
#pragma unroll
  for (int i = 0; i < kC * 8 / kThreads; ++i) {
    const int part = threadIdx.x + i * kThreads, row = part / 8, column = part % 8 * 8;
    if (row < rows)
      *reinterpret_cast<uint4*>(global + row * stride + column) =
          *reinterpret_cast<const uint4*>(tile + tile_offset(row, column));
  }
}

template <typename S>
__device__ __forceinline__ void store_slots(const bf16* tiles, bf16* global, int64_t heads, int rows) {
#pragma unroll
  for (int tile = 0; tile < S::kTiles; ++tile)
    store_tile<Shape<S>::kThreads>(tiles + tile * kTileElements, global + tile * kTile, heads * S::kPitch,
                                   rows);
}

template <typename S>
__device__ __forceinline__ void store_weights(const bf16* tiles, bf16* global, int64_t pair) {
#pragma unroll
  for (int part = 0; part < S::kParts; ++part)
    store_tile<Shape<S>::kThreads>(tiles + part * kTileElements,
                                   global + (pair * S::kParts + part) * kTileElements, kTile, kTile);
}

template <typename S, Rows kKind>
__global__ void __launch_bounds__(Shape<S>::kThreads, blocks_per_multiprocessor<S>()) rows_kernel(RowPass a) {
  constexpr int kM = S::kPlaces, kHalves = S::kHalves, kParts = S::kParts, kThreads = Shape<S>::kThreads,
                kRowStages = Shared<S>::kStages;
  static_assert(fits<S>(), "the blocks of a multiprocessor must fit its shared memory");
  Shared<S>& x = *reinterpret_cast<Shared<S>*>(block_memory());
  const S slots{a.chunks.M};
  const Chunk chunk = a.chunks.table[blockIdx.x / a.HQ];
  if (chunk.rows == 0) return;
  const int64_t c = blockIdx.x / a.HQ, head = blockIdx.x % a.HQ, h = head / (a.HQ / a.H);
  const int n_in = static_cast<int>(a.in_width / kTile), n_out = static_cast<int>(a.out_width / kTile);
  const int64_t query_row = chunk.row * a.HQ + head, key_row = chunk.row * a.H + h;
  const bf16* const tiles = a.tiles + (c * a.H + h) * (n_in + n_out) * (S::kTiles * kTileElements);
  const auto load_state = [&](bf16(*stage)[kTileElements], int slice) {
#pragma unroll
    for (int tile = 0; tile < S::kTiles; ++tile)
      load_tile<kC, kThreads>(stage[2 + tile], tiles + (slice * S::kTiles + tile) * kTileElements, kTile,
                              kTile);
  };
  const auto load = [&](int i) {
    bf16(*stage)[kTileElements] = x.stages[i % kRowStages];
    if (i < n_in) {
      load_tile<kC, kThreads>(stage[0], a.in_rows + query_row * a.in_width + i * kTile, a.HQ * a.in_width,
                              chunk.rows);
      load_tile<kC, kThreads>(stage[1], a.in_keys + key_row * a.in_width + i * kTile, a.H * a.in_width,
                              chunk.rows);
      load_state(stage, a.in_first + i);
    } else if (kKind != Rows::kPast && i < n_in + n_out) {
      const int j = i - n_in;
      load_tile<kC, kThreads>(stage[1], a.out_keys + key_row * a.out_width + j * kTile, a.H * a.out_width,
                              chunk.rows);
      load_state(stage, a.out_first + j);
    }
    copy_commit();
  };
  for (int i = 0; i < kRowStages - 1; ++i) load(i);
  load_gates(x.gates, chunk, a.s, a.g, a.H, h, slots);

  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, I = warp % kBlocks;
  // Half the warps contract with the state (64 slots each), half with the rows (64 / kHalves each).
  const bool with_state = warp >= kBlocks * kHalves;
  const int part = kHalves == 1 ? 0 : warp / kBlocks % kHalves;
  const Between<S> y(x, (n_in - 1) % kRowStages);
  const Strengths<S> strengths{a.s + key_row * slots.pitch(), a.H * slots.pitch(), chunk.rows, slots};
  {
    float acc[8][4] = {};
    const auto mine = [&](int t) { return kHalves == 1 || t % kHalves == part; };
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
            load_b_trans(fb, stage[2 + part * kParts], t * 16, k);
          else if (t <= I && mine(t))
            load_b(fb, stage[1], t * 16, k);
          else
            continue;
          mma(acc[2 * t], fa, fb[0], fb[1]);
          mma(acc[2 * t + 1], fa, fb[2], fb[3]);
          if (kParts == 1 || !with_state) continue;
          load_b_trans(fb, stage[2 + part * kParts + kParts - 1], t * 16, k);
          mma(acc[2 * t], fa, fb[0], fb[1]);
          mma(acc[2 * t + 1], fa, fb[2], fb[3]);
        }
      }
    }
    __syncthreads();
    float* const to = with_state ? x.slots + part * kTile : x.scores;
    const int ld = with_state ? Shape<S>::kLd : kScoreLd;
#pragma unroll
    for (int t = 0; t < 8; ++t)
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        if (!with_state && !mine(t / 2)) continue;
        const int row = I * kBlock + lane / 4 + i * 8, column = t * 8 + lane % 4 * 2;
        const float v0 = acc[t][2 * i] * a.in_scale, v1 = acc[t][2 * i + 1] * a.in_scale;
        *reinterpret_cast<float2*>(to + row * ld + column) = make_float2(v0, v1);
        if (!S::kExact && !with_state)
          *reinterpret_cast<uint32_t*>(y.scores + tile_offset(row, column)) = pack_bf16(v0, v1);
      }
  }
  __syncthreads();
  if constexpr (!S::kExact) {
    receive_blocks<S>(y.scores, x.gates.past, x.gates.from_start, x.slots);
    __syncthreads();
  }
  // Exact backward adds a row's own write later.
  receive_rows<S, kKind == Rows::kForward || !S::kExact>(x.scores, strengths, x.gates, x.slots);
  __syncthreads();
  if constexpr (kKind == Rows::kPast) {
    for (int i = threadIdx.x; i < chunk.rows * kM; i += kThreads)
      a.flow[(query_row + i / kM * a.HQ) * kM + i % kM] = x.slots[i / kM * Shape<S>::kLd + i % kM];
    return;
  }
  // Of p or dok: the weights of the pairs, and decayed from the chunk's start, which also goes to memory.
  const bf16* from_chunk = y.from_chunk;
  const auto weigh = [&](float* values, bf16* weights, bf16* global) {
    const auto store = [&] {
      if (kKind == Rows::kBackward)
        store_slots<S>(from_chunk, global + query_row * S::kPitch, a.HQ, chunk.rows);
    };
    if constexpr (S::kExact) {
      pair_weights(values, y.from_block, strengths, x.gates, weights);
      __syncthreads();
      decay_in_place(values, x.gates);
      __syncthreads();
      from_chunk = reinterpret_cast<const bf16*>(values);
      store();
    } else {
      decayed_tiles<S>(values, x.gates.e, x.gates.from_start, y.from_block, y.from_chunk);
      __syncthreads();
      if (kHalves > 1) {
        store();
        __syncthreads();
      }
      pair_weights(values, y.from_block, strengths, x.gates, weights);
      if (kHalves == 1) store();
      __syncthreads();
    }
  };
  const int64_t pair = c * a.HQ + head;
  if constexpr (kKind == Rows::kBackward) {
    backward_slots(a, x, chunk, head, strengths, slots);
    __syncthreads();
    weigh(x.scores, y.weights_of_p, a.p_decayed);
    store_weights<S>(y.weights_of_p, a.value_weights, pair);
    for (int i = threadIdx.x; i < kC * Shape<S>::kLd; i += kThreads) x.slots[i] *= a.out_scale;
    __syncthreads();
  } else {
    forward_slots(a, x, chunk, head, slots);
    __syncthreads();
  }
  weigh(x.slots, y.weights, a.dok_decayed);
  if constexpr (kKind == Rows::kBackward) store_weights<S>(y.weights, a.key_weights, pair);

  // A warp makes 16 rows of kColumns channels. Operands stay in registers; exact, what is M wide has no room.
  constexpr int kPast = kM / 16, kColumns = 32 / kHalves;
  uint32_t past[kPast][4], inside[kParts][4][4];
  const int half = warp / kBlocks * kColumns;
  const auto load_past = [&](uint32_t (&fa)[4], int k, int of) {
    load_a(fa, from_chunk + (k / 4 * kParts + of) * kTileElements, I * kBlock, k % 4 * 16);
  };
#pragma unroll
  for (int k = 0; k < kPast && !S::kExact; ++k) load_past(past[k], k, 0);
#pragma unroll
  for (int of = 0; of < kParts; ++of)
#pragma unroll
    for (int k = 0; k < 4; ++k)
      if (k <= I) load_a(inside[of][k], y.weights + of * kTileElements, I * kBlock, k * 16);
  bf16* const staging = reinterpret_cast<bf16*>(x.scores);
  for (int j = 0; j < n_out; ++j) {
    copy_wait<kRowStages - 2>();
    __syncthreads();
    load(n_in + j + kRowStages - 1);
    const bf16(*stage)[kTileElements] = x.stages[(n_in + j) % kRowStages];
    float acc[kColumns / 8][4] = {};
#pragma unroll
    for (int k = 0; k < kPast; ++k) {
      uint32_t rest[4];
      if constexpr (S::kExact) {
        load_past(past[k], k, 0);
        load_past(rest, k, 1);
      }
#pragma unroll
      for (int t = 0; t < kColumns / 16; ++t) {
        uint32_t fb[4];
        const auto add = [&](const uint32_t (&fa)[4], const uint32_t (&fb)[4]) {
          mma(acc[2 * t], fa, fb[0], fb[1]);
          mma(acc[2 * t + 1], fa, fb[2], fb[3]);
        };
        load_b(fb, stage[2 + k / 4 * kParts], half + t * 16, k % 4 * 16);
        add(past[k], fb);
        if constexpr (S::kExact) {
          add(rest, fb);
          load_b(fb, stage[2 + k / 4 * kParts + 1], half + t * 16, k % 4 * 16);
          add(past[k], fb);
        }
        if (k >= 4 || k > I) continue;
        load_b_trans(fb, stage[1], half + t * 16, k * 16);
        add(inside[0][k], fb);
        if constexpr (S::kExact) add(inside[1][k], fb);
      }
    }
    // The warp's rows pass through shared memory, so that the stores are 16 bytes wide.
#pragma unroll
    for (int t = 0; t < kColumns / 8; ++t)
#pragma unroll
      for (int i = 0; i < 2; ++i)
        *reinterpret_cast<uint32_t*>(
            staging + tile_offset(I * kBlock + lane / 4 + i * 8, half + t * 8 + lane % 4 * 2)) =
            pack_bf16(acc[t][2 * i], acc[t][2 * i + 1]);
    __syncwarp();
    constexpr int kSpans = kColumns / 8;  // of 16 bytes in a row
#pragma unroll
    for (int i = 0; i < kSpans / 2; ++i) {
      const int row = I * kBlock + i * (32 / kSpans) + lane / kSpans, column = half + lane % kSpans * 8;
      if (row < chunk.rows)
        *reinterpret_cast<uint4*>(a.out + (query_row + row * a.HQ) * a.out_width + j * kTile + column) =
            *reinterpret_cast<const uint4*>(staging + tile_offset(row, column));
    }
    __syncwarp();
  }
}

}  // namespace

void launch_rows(gsa_device& device, const RowPass& pass, Rows kind) {
  const int64_t blocks = pass.chunks.count * pass.HQ;
  if (blocks == 0) return;
  with_slots(pass.chunks, [&](auto slots) {
    using S = decltype(slots);
    const auto launch = [&](void (*kernel)(RowPass)) {
      cuda::launch_blocks(device, kernel, blocks, Shape<S>::kThreads, sizeof(Shared<S>), pass);
    };
    if (kind == Rows::kForward) return launch(rows_kernel<S, Rows::kForward>);
    if (kind == Rows::kBackward) return launch(rows_kernel<S, Rows::kBackward>);
    if constexpr (S::kExact) launch(rows_kernel<S, Rows::kPast>);
  });
}

}  // namespace gsa::sm90
