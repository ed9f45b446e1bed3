// Three kernels: the write strengths decayed to the cuts, the products of the pieces, and the states.
#include "sweep_segments_sm90.cuh"

#include "../../sm90/math.cuh"
#include "sweep_activate_sm90.cuh"
#include "sweep_pieces_sm90.cuh"

namespace gsa::sm90 {
namespace {

constexpr float kLog2E = 1.4426950408889634f;
constexpr float kGone = -126.0f;  // exp2_approx of less is 0

// What the kernels hand to one another.
struct Work {
  SegmentPass pass;
  int most;         // steps of a piece
  bf16* strengths;  // [cut, step from the cut on, tile of 64 rows x slots]
  float* decays;    // [cut, slots] of the whole piece
  int* used;        // [cut, group of slots] steps that are not forgotten
};

// The first piece of cluster `cut`, seen from the cut at its end.
struct CutPiece {
  int kv_head, state_head, sequence, start, steps;
  int row, rows;  // first row of the step next to the cut; rows from there to the end of the sequence
  bool cut;       // it ends in one
  template <bool kReverse>
  static __device__ __forceinline__ CutPiece of(const SegmentPass& a, int cut) {
    const Line line(a.line, cut);
    if (line.steps <= 0) return {};
    const Location x = line.locate<kReverse>(0);
    const int ahead = (x.stop - 1 - x.step) * (kReverse ? -kStep : kStep);
    return {x.kv_head,        kReverse ? x.head : x.kv_head,
            x.sequence,       x.start,
            x.stop - x.start, x.row + ahead,
            x.rows - ahead,   x.stop != x.steps};
  }
};

constexpr int kGroup = 16, kGroups = kSlots / kGroup;  // slots of a block: 32 bytes of a tile's row
constexpr int kSlotPairs = kGroup / 2, kPartRows = 8, kDecayThreads = 512,
              kParts = kDecayThreads / kSlotPairs;
constexpr int kTurn = kParts * kPartRows, kDecayWarps = kDecayThreads / 32;

__device__ __forceinline__ float2 operator+(float2 a, float2 b) { return {a.x + b.x, a.y + b.y}; }
__device__ __forceinline__ float2 from_lane(float2 x, int mask) {
  return {__shfl_xor_sync(~0u, x.x, mask), __shfl_xor_sync(~0u, x.y, mask)};
}

// Rows count from the cut on: forward those before it, each decayed by the gates after it; in reverse those
// after it, each decayed by the gates up to its own. A thread has two slots of 8 rows in every turn.
template <bool kReverse, bool kSoftmax>
__global__ void __launch_bounds__(kDecayThreads) decay_strengths_kernel(const Work w) {
  auto* const sums = reinterpret_cast<float2*>(block_memory());  // [2][warp][pair of slots]
  const SegmentPass& a = w.pass;
  const int cut = blockIdx.x / kGroups, group = blockIdx.x % kGroups;
  const CutPiece piece = CutPiece::of<kReverse>(a, cut);
  if (!piece.cut) return;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, pair = threadIdx.x % kSlotPairs;
  const int part = threadIdx.x / kSlotPairs, slot = group * kGroup + 2 * pair;
  const int all = piece.steps * kStep, rows = kReverse ? min(all, piece.rows) : all;
  const int64_t base = piece.row + (kReverse ? 0 : kStep - 1);
  bf16* const tiles = w.strengths + int64_t{cut} * w.most * kStepTile;
  struct Rows {
    float2 g[kPartRows], y[kPartRows];
    float norm[kSoftmax ? kPartRows : 1];
  };
  // Without a branch, so that all of a turn is on its way at once. Past the sequence's end nothing is
  // written: y is 0, or the softmax of what an infinite norm divides. Not as float2: tensors of the user need
  // not lie at a multiple of 8 bytes.
  const auto load = [&](int turn) {
    Rows x;
    const int first = turn * kTurn + part * kPartRows, left = rows - first;
    const int64_t row = kReverse ? base + first : base - first, to_next = kReverse ? 1 : -1;
    const float *g = a.g + (row * a.H + piece.kv_head) * kSlots + slot,
                *y = a.strength + (row * a.state_heads + piece.state_head) * kSlots + slot;
    const float* norm = kSoftmax ? a.norm + row * a.state_heads + piece.state_head : nullptr;
#pragma unroll
    for (int i = 0; i < kPartRows; ++i) {
      x.g[i].x = i < left ? g[0] : 0.0f;
      x.g[i].y = i < left ? g[1] : 0.0f;
      x.y[i].x = i < left ? y[0] : 0.0f;
      x.y[i].y = i < left ? y[1] : 0.0f;
      if constexpr (kSoftmax) x.norm[i] = i < left ? *norm : INFINITY;
      g += to_next * a.H * kSlots;
      y += to_next * a.state_heads * kSlots;
      if constexpr (kSoftmax) norm += to_next * a.state_heads;
    }
    return x;
  };
  const int turns = (all + kTurn - 1) / kTurn;
  float2 before = {0.0f, 0.0f};  // gates of the turns before, in units of log 2
  int turn = 0;
  Rows next = load(0);
  for (; turn < turns; ++turn) {
    float furthest = fmaxf(before.x, before.y);
#pragma unroll
    for (int o = 1; o < kSlotPairs; o *= 2) furthest = fmaxf(furthest, __shfl_xor_sync(~0u, furthest, o));
    if (furthest < kGone) break;
    Rows x = next;
    if (turn + 1 < turns) next = load(turn + 1);
    float2 mine = {0.0f, 0.0f};
#pragma unroll
    for (int i = 0; i < kPartRows; ++i) {
      x.g[i] = {kLog2E * x.g[i].x, kLog2E * x.g[i].y};
      if constexpr (kSoftmax)
        x.y[i] = {exp2_approx(kLog2E * x.y[i].x - x.norm[i]), exp2_approx(kLog2E * x.y[i].y - x.norm[i])};
      mine = mine + x.g[i];
    }
    // Of the four parts of the warp, then of the warps.
    const float2 neighbour = from_lane(mine, kSlotPairs), two = mine + neighbour;
    const float2 others = from_lane(two, 2 * kSlotPairs), none = {0.0f, 0.0f};
    float2* const of_turn = sums + turn % 2 * kDecayWarps * kSlotPairs;
    if (lane < kSlotPairs) of_turn[warp * kSlotPairs + pair] = two + others;
    __syncthreads();
    float2 sum = before;
#pragma unroll
    for (int i = 0; i < kDecayWarps; ++i) {
      const float2 of_warp = of_turn[i * kSlotPairs + pair];
      sum = sum + (i < warp ? of_warp : none);
      before = before + of_warp;
    }
    sum = sum + (part & 2 ? others : none) + (part & 1 ? neighbour : none);
#pragma unroll
    for (int i = 0; i < kPartRows; ++i) {
      const int r = turn * kTurn + part * kPartRows + i;
      if constexpr (kReverse) sum = sum + x.g[i];
      if (r < all)
        *reinterpret_cast<uint32_t*>(tiles + r / kStep * kStepTile +
                                     tile_offset(kReverse ? r % kStep : kStep - 1 - r % kStep, slot)) =
            pack_bf16(x.y[i].x * exp2_approx(sum.x), x.y[i].y * exp2_approx(sum.y));
      if constexpr (!kReverse) sum = sum + x.g[i];
    }
  }
  if (part == 0)
    *reinterpret_cast<float2*>(w.decays + cut * kSlots + slot) = {exp2_approx(before.x),
                                                                  exp2_approx(before.y)};
  // Of the steps after these nothing is written here, and the others' slots are read with them.
  if (threadIdx.x == 0) w.used[cut * kGroups + group] = min(turn * (kTurn / kStep), piece.steps);
}

template <int kWidth>
struct Stage {
  bf16 rows[kWidth / kTile * kStepTile];
  bf16 strengths[kStepTile];
};
constexpr int kStages = 4;
template <int kWidth>
struct Stages {
  Stage<kWidth> stage[kStages];
  uint64_t ready[kStages];
};

// state += rows^T strengths of a step.
template <int kWidth>
__device__ __forceinline__ void add_step(InState<kWidth>& state, const Stage<kWidth>& x, int thread) {
  uint32_t a[kSubs][4];
#pragma unroll
  for (int sub = 0; sub < kSubs; ++sub)
    load_a_trans(a[sub], x.strengths, thread / 32 * 16, sub * kSub, thread % 32);
  wgmma_begin();
#pragma unroll
  for (int sub = 0; sub < kSubs; ++sub)
    wgmma<true>(state.x, a[sub], column_operand(x.rows, sub * kSub, kStepTile));
  wgmma_commit();
  state.settle();
}
template <int kWidth>
__device__ __forceinline__ void add_step(OutState<kWidth>& state, const Stage<kWidth>& x, int thread) {
  uint32_t a[kWidth / 64][kSubs][4];
#pragma unroll
  for (int c = 0; c < kWidth / 64; ++c)
#pragma unroll
    for (int sub = 0; sub < kSubs; ++sub)
      load_a_trans(a[c][sub], x.rows + c * kStepTile, thread / 32 * 16, sub * kSub, thread % 32);
  wgmma_begin();
#pragma unroll
  for (int sub = 0; sub < kSubs; ++sub)
#pragma unroll
    for (int c = 0; c < kWidth / 64; ++c)
      wgmma<true>(state.x[c], a[c][sub], column_operand(x.strengths, sub * kSub, kStepTile));
  wgmma_commit();
  state.settle();
}

// One piece's product with one block's slice of the rows, as the first state, the second, or both.
template <bool kReverse, bool kIn, bool kOut, int kWidth>
__device__ __forceinline__ void sum_piece(const Work& w, const CutPiece& piece, int cut, const TensorMap& map,
                                          int64_t column, float* to) {
  auto& x = *reinterpret_cast<Stages<kWidth>*>(block_memory());
  const int thread = threadIdx.x;
  int used = 0, complete = w.most;  // steps of any slots, and of all
  int used_by[kGroups];
#pragma unroll
  for (int i = 0; i < kGroups; ++i) {
    used_by[i] = w.used[cut * kGroups + i];
    used = max(used, used_by[i]);
    complete = min(complete, used_by[i]);
  }
  used = uniform(used);
  const bf16* const tiles = w.strengths + int64_t{cut} * w.most * kStepTile;
  const auto load = [&](int i) {
    if (thread != 0 || i >= used) return;
    Stage<kWidth>& stage = x.stage[i % kStages];
    uint64_t* ready = &x.ready[i % kStages];
    expect_bytes(ready, (kWidth / kTile + 1) * kTileBytes);
    load_step<kWidth>(stage.rows, map, column, piece.row + i * (kReverse ? kStep : -kStep), ready);
    load_bytes(stage.strengths, tiles + int64_t{i} * kStepTile, kTileBytes, ready);
  };
  for (int i = 0; i < kStages - 1; ++i) load(i);
  InState<kWidth> in = {};
  OutState<kWidth> out = {};
  for (int i = 0; i < used; ++i) {
    if (i > 0) __syncthreads();  // nobody reads the stage of the step before
    load(i + kStages - 1);
    Stage<kWidth>& stage = x.stage[i % kStages];
    wait_barrier(&x.ready[i % kStages], i / kStages % 2);
    const int rows = kReverse ? piece.rows - i * kStep : kStep;
    const bool raw = w.pass.raw;
    if (raw) activate_step<kWidth>(stage.rows, thread);
    if (uniform(raw || rows < kStep || i >= complete)) {
      if (raw && rows < kStep) __syncthreads();  // others clear what this thread made
      if (rows < kStep) clear_rows<kWidth>(stage.rows, rows, thread);
#pragma unroll
      for (int group = 0; group < kGroups; ++group)
        if (i >= used_by[group])
          *reinterpret_cast<uint4*>(stage.strengths +
                                    tile_offset(thread / 2, group * kGroup + thread % 2 * 8)) = {};
      publish_shared();
      __syncthreads();
    }
    if constexpr (kIn) add_step(in, stage, thread);
    if constexpr (kOut) add_step(out, stage, thread);
  }
  if constexpr (kIn) store_state(in, to, thread);
  if constexpr (kOut) store_state(out, to + (kIn ? kWidth * kSlots : 0), thread);
}

// A block for a piece and a block of its cluster and, forward, for one of the two states.
template <bool kReverse, int kCluster, int kWidth>
__global__ void __launch_bounds__(kRole) sum_pieces_kernel(const __grid_constant__ Work w) {
  const SegmentPass& a = w.pass;
  constexpr int kStates = kReverse ? 1 : 2;
  const int part = blockIdx.x % kStates, block = blockIdx.x / kStates;  // of all clusters
  const CutPiece piece = CutPiece::of<kReverse>(a, block / kCluster);
  if (!piece.cut) return;
  auto& x = *reinterpret_cast<Stages<kWidth>*>(block_memory());
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) init_barrier(&x.ready[i]);
    publish_barriers();
  }
  __syncthreads();
  const int cut = block / kCluster, first = block % kCluster * kWidth;
  float* const to = a.states + int64_t{block} * 2 * kWidth * kSlots;
  if constexpr (kReverse) {
    sum_piece<true, true, true, kWidth>(w, piece, cut, a.in_map, piece.state_head * a.in_width + first, to);
  } else if (part == 0) {
    sum_piece<false, true, false, kWidth>(w, piece, cut, a.in_map, piece.state_head * a.in_width + first, to);
  } else {
    sum_piece<false, false, true, kWidth>(w, piece, cut, a.out_map, piece.state_head * a.out_width + first,
                                          to + kWidth * kSlots);
  }
}

// The states one after another: a thread has 16 bytes of one block's.
constexpr int kAhead = 16, kMergeThreads = 128;
template <bool kReverse, int kCluster, int kWidth>
__global__ void __launch_bounds__(kMergeThreads) merge_pieces_kernel(const Work w) {
  auto* const starts = reinterpret_cast<int64_t*>(block_memory());  // [cut] elements of the user's states
  constexpr int64_t kNoCut = -1, kFromBefore = -2;
  constexpr int kElements = 2 * kWidth * kSlots, kBlocks = kElements / 4 / kMergeThreads;
  const SegmentPass& a = w.pass;
  const int cuts = a.clusters - 1, rank = blockIdx.x / kBlocks;
  const int at = blockIdx.x % kBlocks * kMergeThreads + threadIdx.x;  // among the block's 16 bytes
  for (int cut = threadIdx.x; cut < cuts; cut += kMergeThreads) {
    const CutPiece x = CutPiece::of<kReverse>(a, cut);
    starts[cut] = !x.cut        ? kNoCut
                  : x.start > 0 ? kFromBefore
                                : ((x.sequence * a.state_heads + x.state_head) * kCluster + rank) * kElements;
  }
  __syncthreads();
  // Slots of the four values, as InState and OutState hold them.
  const bool in = at < kElements / 8;
  const int i = at / kRole, thread = at % kRole, lane = thread % 32;
  const int slot = in ? thread / 32 * 16 + lane / 4 : i % (kSlots / 8) * 8 + lane % 4 * 2;
  const int other = in ? slot + 8 : slot + 1;
  float4 state = {};
  for (int first = 0; first < cuts; first += kAhead) {
    float4 sum[kAhead], start[kAhead];
    float2 decay[kAhead];
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      const int cut = first + j;
      if (cut >= cuts || starts[cut] == kNoCut) continue;
      sum[j] =
          *reinterpret_cast<const float4*>(a.states + (int64_t{cut} * kCluster + rank) * kElements + 4 * at);
      decay[j] = {w.decays[cut * kSlots + slot], w.decays[cut * kSlots + other]};
      start[j] = starts[cut] >= 0 && a.ends.start
                     ? *reinterpret_cast<const float4*>(a.ends.start + starts[cut] + 4 * at)
                     : make_float4(0, 0, 0, 0);
    }
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      const int cut = first + j;
      if (cut >= cuts || starts[cut] == kNoCut) continue;
      if (starts[cut] != kFromBefore) state = start[j];
      const float d[4] = {decay[j].x, in ? decay[j].x : decay[j].y, in ? decay[j].y : decay[j].x, decay[j].y};
      state = {d[0] * state.x + sum[j].x, d[1] * state.y + sum[j].y, d[2] * state.z + sum[j].z,
               d[3] * state.w + sum[j].w};
      *reinterpret_cast<float4*>(a.states + (int64_t{cut} * kCluster + rank) * kElements + 4 * at) = state;
    }
  }
}

template <bool kReverse, int kCluster, int kWidth>
void launch(gsa_device& device, const Work& w) {
  const int64_t cuts = w.pass.clusters - 1;
  const auto decay =
      w.pass.norm ? decay_strengths_kernel<kReverse, true> : decay_strengths_kernel<kReverse, false>;
  cuda::launch_clusters<1>(device, decay, cuts * kGroups, kDecayThreads,
                           static_cast<int>(2 * kDecayWarps * kSlotPairs * sizeof(float2)), w);
  cuda::launch_clusters<1>(device, sum_pieces_kernel<kReverse, kCluster, kWidth>,
                           cuts * kCluster * (kReverse ? 1 : 2), kRole,
                           static_cast<int>(sizeof(Stages<kWidth>)), w);
  constexpr int kBlocks = 2 * kWidth * kSlots / 4 / kMergeThreads;
  cuda::launch_clusters<1>(device, merge_pieces_kernel<kReverse, kCluster, kWidth>, kBlocks * kCluster,
                           kMergeThreads, static_cast<int>(cuts * sizeof(int64_t)), w);
}

}  // namespace

Cuts cut_line(const Walks& walks, int fit, bool segments) {
  const int64_t most = worthwhile(walks.steps(), std::max(fit, 1));
  if (walks.documents.cu_seqlens) return {static_cast<int>(most), segments && most > 1};
  // The states cost up to three quarters of what a forward sweep does, where gates keep everything.
  if (segments && 3 * walks.number() <= 2 * most) return {static_cast<int>(most), true};
  return {static_cast<int>(std::min<int64_t>(walks.number(), std::max(fit, 1))), false};
}

template <bool kReverse>
void launch_segments(gsa_device& device, const SegmentPass& a, int cluster) {
  const int64_t cuts = a.clusters - 1;
  // Of documents there may be fewer steps, for fewer clusters: as many as are worthwhile, of less than twice
  // the least.
  const int64_t each = (a.walks.steps() + a.clusters - 1) / a.clusters;
  const int64_t most = std::min(a.walks.steps_of_longest(), std::max(each, 2 * kLeastSteps));
  const cuda::Scratch memory(device,
                             cuts * (most * kTileBytes + kSlots * sizeof(float) + kGroups * sizeof(int)));
  Work w{a, static_cast<int>(most), memory.as<bf16>(), nullptr, nullptr};
  w.decays = reinterpret_cast<float*>(w.strengths + cuts * most * kStepTile);
  w.used = reinterpret_cast<int*>(w.decays + cuts * kSlots);
  const int64_t slice = a.in_width / cluster;
  if (cluster == 4 && slice == 128) return launch<kReverse, 4, 128>(device, w);
  if (cluster == 2 && slice == 128) return launch<kReverse, 2, 128>(device, w);
  if (cluster == 1 && slice == 128) return launch<kReverse, 1, 128>(device, w);
  if (cluster == 1 && slice == 64) return launch<kReverse, 1, 64>(device, w);
  fail(GSA_INTERNAL, "No segments for width %lld in %d blocks", static_cast<long long>(a.in_width), cluster);
}
template void launch_segments<false>(gsa_device&, const SegmentPass&, int);
template void launch_segments<true>(gsa_device&, const SegmentPass&, int);

}  // namespace gsa::sm90
