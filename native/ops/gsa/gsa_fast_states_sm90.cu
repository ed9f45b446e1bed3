// Chunk table, gates to the end of each chunk, and the states between chunks.
#include "chunks_sm90.cuh"

namespace gsa::sm90 {
namespace {

using slot_attention::Dims;

// first[n]: one block, a running sum over tiles of sequences.
__global__ void __launch_bounds__(1024)
    chunk_first_kernel(const int32_t* cu_seqlens, int64_t T, int64_t N, int32_t* first) {
  __shared__ int32_t counts[1024];
  int32_t before = 0;
  for (int64_t base = 0; base < N; base += 1024) {
    const int64_t n = base + threadIdx.x;
    int32_t count = 0;
    if (n < N) {
      const auto rows = device_rows(cu_seqlens, T, n);
      count = static_cast<int32_t>((rows.end - rows.begin + kC - 1) / kC);
    }
    counts[threadIdx.x] = count;
    __syncthreads();
    for (int offset = 1; offset < 1024; offset *= 2) {
      const int32_t add = threadIdx.x >= offset ? counts[threadIdx.x - offset] : 0;
      __syncthreads();
      counts[threadIdx.x] += add;
      __syncthreads();
    }
    if (n < N) first[n] = before + counts[threadIdx.x] - count;
    before += counts[1023];
    __syncthreads();
  }
  if (threadIdx.x == 0) first[N] = before;
}

__global__ void __launch_bounds__(256) chunk_table_kernel(const int32_t* cu_seqlens, int64_t T, int64_t N,
                                                          const int32_t* first, Chunk* table, int64_t count) {
  const int64_t c = blockIdx.x * int64_t{256} + threadIdx.x;
  if (c >= count) return;
  if (c >= first[N]) {
    table[c] = {0, 0, 0};
    return;
  }
  int64_t low = 0, high = N;  // first[low] <= c < first[high]
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (first[middle] <= c ? low : high) = middle;
  }
  const auto rows = device_rows(cu_seqlens, T, low);
  const int64_t row = rows.begin + (c - first[low]) * kC;
  table[c] = {row, static_cast<int32_t>(min(rows.end - row, int64_t{kC})), static_cast<int32_t>(low)};
}

// s_to_end and decay; one block a chunk, head and 64 places of the slots, a thread per slot and quarter of
// the rows.
template <typename S>
__global__ void __launch_bounds__(256) chunk_gates_kernel(const Chunk* table, const float* s, const float* g,
                                                          int64_t H, bf16* s_to_end, float* decay, S slots) {
  constexpr int kM = S::kPlaces, kFull = S::kParts * kTile;
  __shared__ float sums[4][kTile];
  const unsigned block = blockIdx.x / S::kHalves;
  const Chunk chunk = table[block / H];
  if (chunk.rows == 0) return;
  const int64_t h = block % H;
  const int place = threadIdx.x % kTile, part = threadIdx.x / kTile, first = part * (kC / 4),
            m = blockIdx.x % S::kHalves * kTile + place;
  const int rows = slots.rows(chunk.rows, m);
  float gate[kC / 4], strength[kC / 4], total = 0;
#pragma unroll
  for (int i = 0; i < kC / 4; ++i) {
    const int64_t at = ((chunk.row + first + i) * H + h) * slots.pitch() + m;
    const bool inside = first + i < rows;
    gate[i] = inside ? g[at] : 0.0f;
    strength[i] = inside ? s[at] : 0.0f;
    total += gate[i];
  }
  sums[part][place] = total;
  __syncthreads();
  float later = 0;
  for (int i = 3; i > part; --i) later += sums[i][place];
  if (part == 0) decay[block * int64_t{kM} + m] = expf(later + total);
#pragma unroll
  for (int i = kC / 4 - 1; i >= 0; --i) {
    if (first + i < chunk.rows)
      store_parts<S::kParts>(
          s_to_end + ((chunk.row + first + i) * H + h) * S::kPitch + m / kTile * kFull + place, kTile,
          strength[i] * expf(later));
    later += gate[i];
  }
}

// One block walks 64 channels and 64 places of the slots. Forward, four blocks fill a multiprocessor's shared
// memory to the last byte: 512 heads' slices run at once.
constexpr int kStateThreads = 128, kStateStages = 3;

template <typename S, bool kReverse>
constexpr int state_stage_tiles() {
  return 1 + S::kParts * (kReverse ? 2 : 1);
}
template <typename S, bool kReverse>
constexpr int state_shared_bytes() {
  return (kStateStages * state_stage_tiles<S, kReverse>() + 1) * kTileElements *
             static_cast<int>(sizeof(bf16)) +
         (kReverse ? 4 * kTile * static_cast<int>(sizeof(float)) : 0);
}
template <typename S, bool kReverse>
constexpr int state_blocks() {
  return S::kExact ? (kReverse ? 1 : 2) : kReverse ? 3 : 4;
}

template <typename S, bool kReverse, bool kGrouped>
__global__ void __launch_bounds__(kStateThreads, state_blocks<S, kReverse>())
    walk_states_kernel(StateWalk a) {
  bf16* const stages = reinterpret_cast<bf16*>(block_memory());
  constexpr int kStageTiles = state_stage_tiles<S, kReverse>(), kParts = S::kParts;
  bf16* const staging = stages + kStateStages * kStageTiles * kTileElements;
  float* const sums = reinterpret_cast<float*>(staging + kTileElements);
  constexpr int kM = S::kPlaces, kHalves = S::kHalves;
  const S slots{a.chunks.M};
  // Halves of the slots side by side: they read the same rows.
  const int64_t block = blockIdx.x / kHalves, half = blockIdx.x % kHalves;
  const int64_t n_slices = (a.key.width + a.value.width) / kTile, slice = block % n_slices;
  const int64_t h = block / n_slices % a.H, n = block / n_slices / a.H;
  const bool key = slice < a.key.width / kTile;
  const StateSide side = key ? a.key : a.value;
  const int64_t channel = (key ? slice : slice - a.key.width / kTile) * kTile;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, row = warp * 16 + lane / 4,
            column = lane % 4 * 2;
  const int32_t first = a.chunks.first[n], count = a.chunks.first[n + 1] - first;
  const auto chunk_at = [&](int32_t i) { return first + (kReverse ? count - 1 - i : i); };
  const auto tile_at = [&](int64_t c) {
    return (((c * a.H + h) * n_slices + slice) * kHalves + half) * (kParts * kTileElements);
  };
  const int32_t G = kGrouped ? static_cast<int32_t>(a.G) : 1, items = count * G;
  // The chunks of a sequence follow one another; all but the last are full.
  const int64_t first_row = count > 0 ? a.chunks.table[first].row : 0;
  const int last_rows = count > 0 ? a.chunks.table[first + count - 1].rows : 0;
  const auto load = [&](int32_t item) {
    if (item < items) {
      const int32_t c = chunk_at(item / G);
      const int rows = c == first + count - 1 ? last_rows : kC;
      bf16* const stage = stages + item % kStateStages * kStageTiles * kTileElements;
      const int64_t at = ((first_row + (c - first) * int64_t{kC}) * a.H + h) * G + item % G;
      load_tile<kC, kStateThreads>(stage, side.x + at * side.width + channel, a.H * G * side.width, rows);
#pragma unroll
      for (int part = 0; part < kParts; ++part)
        load_tile<kC, kStateThreads>(stage + (1 + part) * kTileElements,
                                     side.y + at * S::kPitch + (half * kParts + part) * kTile,
                                     a.H * G * S::kPitch, rows);
      if (kReverse && item % G == G - 1)
#pragma unroll
        for (int part = 0; part < kParts; ++part)
          load_tile<kTile, kStateThreads>(stage + (1 + kParts + part) * kTileElements,
                                          a.past + tile_at(c) + part * kTileElements, kTile, kTile);
    }
    copy_commit();
  };
  float X[8][4];
  // What comes before the first of a chunk's products: X goes to memory, then decays.
  const auto arrive = [&](int64_t c, const float2(&d)[8]) {
  // A warp's rows pass through shared memory, so that the stores are 16 bytes wide.
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
#pragma unroll
      for (int t = 0; t < 8; ++t)
#pragma unroll
        for (int r = 0; r < 2; ++r)
          *reinterpret_cast<uint32_t*>(staging + tile_offset(row + r * 8, t * 8 + column)) =
              pack_part(part, X[t][2 * r], X[t][2 * r + 1]);
      __syncwarp();
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int r = warp * 16 + j * 4 + lane / 8, x = lane % 8 * 8;
        *reinterpret_cast<uint4*>(a.tiles + tile_at(c) + part * kTileElements + r * kTile + x) =
            *reinterpret_cast<const uint4*>(staging + tile_offset(r, x));
      }
      __syncwarp();
    }
#pragma unroll
    for (int t = 0; t < 8; ++t) {
      X[t][0] *= d[t].x;
      X[t][1] *= d[t].y;
      X[t][2] *= d[t].x;
      X[t][3] *= d[t].y;
    }
  };
  const auto state_at = [&](int tile, int i) {
    return (n * a.H + h) * side.width * slots.pitch() + (channel + row + i / 2 * 8) * side.stride_channel +
           (half * kTile + tile * 8 + column + i % 2) * side.stride_slot;
  };
  const auto has = [&](int tile, int i) { return slots.has(half * kTile + tile * 8 + column + i % 2); };
#pragma unroll
  for (int t = 0; t < 8; ++t)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      X[t][i] = 0.0f;
      if (side.start && has(t, i)) X[t][i] = side.start[state_at(t, i)];
    }
  for (int i = 0; i < kStateStages - 1; ++i) load(i);
  for (int32_t i = 0; i < items; ++i) {
    const int32_t c = chunk_at(i / G);
    const float* decay = a.chunks.decay + (c * a.H + h) * kM + half * kTile + column;
    float2 d[8];
#pragma unroll
    for (int t = 0; t < 8; ++t) d[t] = *reinterpret_cast<const float2*>(decay + t * 8);
    copy_wait<kStateStages - 2>();
    __syncthreads();
    load(i + kStateStages - 1);
    if (i % G == 0) arrive(c, d);
    const bf16* const x = stages + i % kStateStages * kStageTiles * kTileElements;
    const bf16* const y = x + kTileElements;
#pragma unroll
    for (int k = 0; k < kC; k += 16) {
      uint32_t xa[4], yb[4];
      load_a_trans(xa, x, warp * 16, k);
#pragma unroll
      for (int t = 0; t < 4; ++t)
#pragma unroll
        for (int part = 0; part < kParts; ++part) {
          load_b_trans(yb, y + part * kTileElements, t * 16, k);
          mma(X[2 * t], xa, yb[0], yb[1]);
          mma(X[2 * t + 1], xa, yb[2], yb[3]);
        }
    }
    if (kReverse && i % G == G - 1) {
      const bf16* const past = y + kParts * kTileElements;
#pragma unroll
      for (int t = 0; t < 8; ++t) {
        float f0 = 0, f1 = 0;
#pragma unroll
        for (int part = kParts - 1; part >= 0; --part) {
          const bf16* const at = past + part * kTileElements;
          const auto p0 = *reinterpret_cast<const __nv_bfloat162*>(at + tile_offset(row, t * 8 + column));
          const auto p1 = *reinterpret_cast<const __nv_bfloat162*>(at + tile_offset(row + 8, t * 8 + column));
          f0 += X[t][0] * __low2float(p0) + X[t][2] * __low2float(p1);
          f1 += X[t][1] * __high2float(p0) + X[t][3] * __high2float(p1);
        }
#pragma unroll
        for (int offset = 4; offset < 32; offset *= 2) {
          f0 += __shfl_xor_sync(~0u, f0, offset);
          f1 += __shfl_xor_sync(~0u, f1, offset);
        }
        if (lane < 4) {
          sums[warp * kTile + t * 8 + column] = f0;
          sums[warp * kTile + t * 8 + column + 1] = f1;
        }
      }
      __syncthreads();
      if (threadIdx.x < kTile) {
        float flow = 0;
        for (int w = 0; w < 4; ++w) flow += sums[w * kTile + threadIdx.x];
        a.flow[((c * a.H + h) * n_slices + slice) * kM + half * kTile + threadIdx.x] = flow;
      }
    }
  }
  if (!side.end) return;
#pragma unroll
  for (int t = 0; t < 8; ++t)
#pragma unroll
    for (int i = 0; i < 4; ++i)
      if (has(t, i)) side.end[state_at(t, i)] = X[t][i];
}

template <typename S, bool kReverse, bool kGrouped>
void launch_walk(gsa_device& device, const StateWalk& a) {
  const int64_t blocks = a.N * a.H * (a.key.width + a.value.width) / kTile * S::kHalves;
  if (blocks == 0) return;
  cuda::launch_blocks(device, walk_states_kernel<S, kReverse, kGrouped>, blocks, kStateThreads,
                      state_shared_bytes<S, kReverse>(), a);
}

int64_t aligned(int64_t bytes) { return (bytes + 255) / 256 * 256; }

}  // namespace

ChunkScratch::ChunkScratch(gsa_device& device, const Dims& d, const slot_attention::Inputs& in, bool exact)
    : memory(device, aligned(table_places(d, in.cu_seqlens != nullptr) * sizeof(Chunk)) +
                         aligned((d.N + 1) * sizeof(int32_t)) +
                         aligned(d.B * d.T * d.H * slot_places(d.M) * (exact ? 2 : 1) * sizeof(bf16)) +
                         table_places(d, in.cu_seqlens != nullptr) * d.H * slot_places(d.M) * sizeof(float)) {
  const int64_t places = table_places(d, in.cu_seqlens != nullptr);
  char* next = memory.as<char>();
  table = reinterpret_cast<Chunk*>(next);
  next += aligned(places * sizeof(Chunk));
  first = reinterpret_cast<int32_t*>(next);
  next += aligned((d.N + 1) * sizeof(int32_t));
  s_to_end = reinterpret_cast<bf16*>(next);
  next += aligned(d.B * d.T * d.H * slot_places(d.M) * (exact ? 2 : 1) * sizeof(bf16));
  decay = reinterpret_cast<float*>(next);
  chunks = {table, first, places, s_to_end, decay, static_cast<int>(d.M), exact};
  cuda::launch_blocks(device, chunk_first_kernel, 1, 1024, 0, in.cu_seqlens, d.T, d.N, first);
  if (places == 0) return;
  cuda::launch_blocks(device, chunk_table_kernel, (places + 255) / 256, 256, 0, in.cu_seqlens, d.T, d.N,
                      first, table, places);
  with_slots(chunks, [&](auto slots) {
    using S = decltype(slots);
    cuda::launch_blocks(device, chunk_gates_kernel<S>, places * d.H * S::kHalves, 256, 0, table, in.s, in.g,
                        d.H, s_to_end, decay, slots);
  });
}

void walk_states(gsa_device& device, const StateWalk& walk, bool reverse) {
  with_slots(walk.chunks, [&](auto slots) {
    using S = decltype(slots);
    if (!reverse) return launch_walk<S, false, false>(device, walk);
    walk.G > 1 ? launch_walk<S, true, true>(device, walk) : launch_walk<S, true, false>(device, walk);
  });
}

}  // namespace gsa::sm90
