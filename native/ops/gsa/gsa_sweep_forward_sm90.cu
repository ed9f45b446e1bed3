// The sweep in the direction of time. Step i of a block: the slot role prepares the gates of step i, the `in`
// role contracts the rows of step i - 1, the slot role finishes the logits of step i - 2, the `out` role
// makes the outputs of step i - 3.
#include "sweep_forward_sm90.cuh"
#include "sweep_slots_sm90.cuh"

namespace gsa::sm90 {
namespace {

template <int kIn, int kOut>
struct Shared {
  bf16 reading[2][kIn / kTile * kStepTile];
  bf16 writing[2][kIn / kTile * kStepTile];
  bf16 values[2][kOut / kTile * kStepTile];
  bf16 strengths[4][kStepTile];  // decayed to the end of their 16 rows
  bf16 slots[2][kStepTile];      // what reads the second state, decayed from the start of its 16 rows
  bf16 weights[2][kStep * kWeightPitch];          // pairs inside each 16 rows
  float decay[4][kSubs][kSlots];                  // of each 16 rows
  float partial[2][kSubs][kSub * kPartialPitch];  // [.., owned block * kCluster + source, ..]
  float pairs[2][kSubs][kSub * kSub];
  SlotWork work;
  bf16 stage[4][kSub * kStagePitch];  // of the warps that make the output
};

// The cluster's walks, and which block of the cluster this is.
template <int kCluster>
struct Place {
  Line line;
  int cluster, rank, group;  // query heads of a key/value head
  __device__ explicit Place(const ForwardSweep& a)
      : line(a.cu_seqlens, a.T, a.N, a.HQ, blockIdx.x / kCluster, a.clusters),
        cluster(blockIdx.x / kCluster),
        rank(cluster_rank<kCluster>()),
        group(static_cast<int>(a.HQ / a.H)) {}
  __device__ Location locate(int i) const { return line.locate<false>(i); }
  __device__ int64_t block(int of_cluster) const {
    return static_cast<int64_t>(of_cluster) * kCluster + rank;
  }
};

// The ends of a piece of a walk: from the user's state or the cluster before, to the user or the cluster
// after. Only one query head of a group reports the states, which all of them rebuild.
template <int kBarrier, int kCluster, class State>
__device__ __forceinline__ void begin_piece(State& state, const Place<kCluster>& at, const Location& x,
                                            const StateEnds& ends, const HandOver& over, int64_t from,
                                            int64_t elements, int part, int64_t heads, int64_t width,
                                            int first, int thread) {
  if (x.start == 0)
    load_state(state, ends.start ? ends.start + x.state(heads, x.head / at.group, width, kSlots) : nullptr,
               ends, first, thread / 32);
  else
    take_over<kBarrier>(state, over.states + at.block(at.cluster - 1) * elements + from,
                        over.ready + at.block(at.cluster - 1) * 2 + part, thread);
}
template <int kBarrier, int kCluster, class State>
__device__ __forceinline__ void end_piece(State& state, const Place<kCluster>& at, const Location& x,
                                          const StateEnds& ends, const HandOver& over, int64_t from,
                                          int64_t elements, int part, int64_t heads, int64_t width, int first,
                                          int thread) {
  if (x.stop != x.steps)
    hand_over<kBarrier>(state, over.states + at.block(at.cluster) * elements + from,
                        over.ready + at.block(at.cluster) * 2 + part, thread);
  else if (ends.end && x.head % at.group == 0)
    store_state(state, ends.end + x.state(heads, x.head / at.group, width, kSlots), ends, first, thread / 32);
}
// Sequences without rows hand their states through.
template <int kCluster, class State>
__device__ __forceinline__ void pass_states(State& state, const Place<kCluster>& at, const StateEnds& ends,
                                            int64_t N, int64_t HQ, int64_t heads, int64_t width, int first,
                                            int thread, bool varlen, int clusters) {
  if (at.line.n != 0 || !ends.end) return;
  for (int64_t walk = at.cluster; walk < N * HQ; walk += varlen ? N * HQ : clusters) {
    if (walk % HQ % at.group) continue;
    const int64_t offset = (walk / HQ * heads + walk % HQ / at.group) * width * kSlots;
    load_state(state, ends.start ? ends.start + offset : nullptr, ends, first, thread / 32);
    store_state(state, ends.end + offset, ends, first, thread / 32);
  }
}

template <int kCluster, int kIn, int kOut>
__device__ bf16* anchor(const ForwardSweep& a, const Place<kCluster>& at, const Location& x) {
  const int64_t n = first_anchor(x.row - static_cast<int64_t>(x.chunk) * kStep, x.sequence) + x.chunk;
  return a.anchors + ((n * a.HQ + x.head) * kCluster + at.rank) * anchor_elements(kIn, kOut);
}

template <bool kBackward, int kCluster, int kIn, int kOut>
__device__ __forceinline__ void in_role(const ForwardSweep& a, Shared<kIn, kOut>& x,
                                        const Place<kCluster>& at, int thread) {
  constexpr int kElements = (kIn + kOut) * kSlots;
  const int warp = thread / 32, first = at.rank * kIn, n = at.line.total();
  const auto load = [&](int i) {
    const Location to = at.locate(i);
    load_step<kIn>(x.reading[i % 2], a.in_read + (to.row * a.HQ + to.head) * a.in_width + first,
                   a.HQ * a.in_width, to.rows, thread);
    load_step<kIn>(x.writing[i % 2], a.in_write + (to.row * a.H + to.head / at.group) * a.in_width + first,
                   a.H * a.in_width, to.rows, thread);
  };
  InState<kIn> state;
  pass_states(state, at, a.in_state, a.N, a.HQ, a.H, a.in_width, first, thread, a.cu_seqlens, a.clusters);
  if (n > 0) load(0);
  copy_commit();
  for (int step = 0; step < n + 3; ++step) {
    const int i = step - 1;
    if (i >= 0 && i < n) {
      if (i + 1 < n) load(i + 1);
      copy_commit();
      const Location here = at.locate(i);
      if (here.step == here.start)
        begin_piece<2>(state, at, here, a.in_state, a.hand_over, 0, kElements, 0, a.H, a.in_width, first,
                       thread);
      const bf16 *q = x.reading[i % 2], *k = x.writing[i % 2];
#pragma unroll 1
      for (int sub = 0; sub < kSubs; ++sub) {
        constexpr int kOwned = kSubs / kCluster;
        const int owner = sub / kOwned, place = sub % kOwned * kCluster + at.rank;
        float acc[2][4] = {};
        state.read(q, sub, acc);
        state.move(k, x.strengths[i % 4], x.decay[i % 4][sub], sub, warp);
        send_partial(acc, x.partial[i % 2][place], owner, warp);
        if (sub == warp) send_pairs<kIn>(q, k, sub, x.pairs[i % 2][place], owner);
      }
      if constexpr (kBackward) store_anchor(state, anchor<kCluster, kIn, kOut>(a, at, here), thread);
      if (here.step + 1 == here.stop)
        end_piece<2>(state, at, here, a.in_state, a.hand_over, 0, kElements, 0, a.H, a.in_width, first,
                     thread);
    }
    copy_wait<0>();
    cluster_sync<kCluster>();
  }
}

template <bool kBackward, int kCluster, int kIn, int kOut>
__device__ __forceinline__ void out_role(const ForwardSweep& a, Shared<kIn, kOut>& x,
                                         const Place<kCluster>& at, int thread) {
  constexpr int kGroups = OutState<kOut>::kGroups, kElements = (kIn + kOut) * kSlots;
  const int warp = thread / 32, first = at.rank * kOut, n = at.line.total();
  const int64_t stride = a.HQ * a.out_width;
  const auto load = [&](int i) {
    const Location to = at.locate(i);
    load_step<kOut>(x.values[i % 2], a.values + (to.row * a.H + to.head / at.group) * a.out_width + first,
                    a.H * a.out_width, to.rows, thread);
  };
  OutState<kOut> state;
  pass_states(state, at, a.out_state, a.N, a.HQ, a.H, a.out_width, first, thread, a.cu_seqlens, a.clusters);
  for (int step = 0; step < n + 3; ++step) {
    const int i = step - 3;
    if (i >= -1 && i + 1 < n) load(i + 1);
    copy_commit();
    if (i >= 0 && i < n) {
      const Location here = at.locate(i);
      if (here.step == here.start)
        begin_piece<3>(state, at, here, a.out_state, a.hand_over, kIn * kSlots, kElements, 1, a.H,
                       a.out_width, first, thread);
      bf16* out = a.out + (here.row * a.HQ + here.head) * a.out_width + first + warp * OutState<kOut>::kOwn;
      int rows = static_cast<int>(min(here.rows, int64_t{kStep}));
      const bf16* v = x.values[i % 2];
#pragma unroll 1
      for (int sub = 0; sub < kSubs; ++sub) {
        float acc[2 * kGroups][4] = {};
        state.read(x.slots[i % 2], x.weights[i % 2], v, sub, warp, acc);
        state.move(v, x.strengths[i % 4], x.decay[i % 4][sub], sub, warp);
        store_rows<kGroups>(acc, x.stage[warp], out, stride, rows);
        out += kSub * stride;
        rows -= kSub;
      }
      if constexpr (kBackward)
        store_anchor(state, anchor<kCluster, kIn, kOut>(a, at, here) + kIn * kSlots, thread);
      if (here.step + 1 == here.stop)
        end_piece<3>(state, at, here, a.out_state, a.hand_over, kIn * kSlots, kElements, 1, a.H, a.out_width,
                     first, thread);
    }
    copy_wait<0>();
    cluster_arrive<kCluster, false>();
    cluster_wait<kCluster>();
  }
}

// One block of rows in the hands of the slot role: the gates of a new one, and the logits (or dp) of an
// earlier one.
template <bool kBackward, int kCluster>
struct SlotBlock {
  const ForwardSweep& a;
  SlotWork& w;
  const SlotHalf at;
  const RowEighth row;

  // The new block: the decay of the thread's half.
  __device__ __forceinline__ void start_gates(const float (&e)[8]) const {
    float product = 1.0f;
#pragma unroll
    for (int i = 0; i < 8; ++i) product *= e[i];
    w.halves[at.half * kSlots + at.slot] = product;
  }
  // After a barrier: write strengths decayed to the end of the 16 rows, staged; the decay of all 16, sent.
  __device__ __forceinline__ void stage_gates(const float (&e)[8], const float (&s)[8], float* decay) const {
    float tail = at.half ? 1.0f : w.halves[kSlots + at.slot];
    if (at.half == 0)
#pragma unroll
      for (int rank = 0; rank < kCluster; ++rank)
        store_remote(remote_address(decay + at.slot, rank), w.halves[at.slot] * tail);
#pragma unroll
    for (int i = 7; i >= 0; --i) {
      w.stage[1][tile_offset(at.row(i), at.slot)] = __float2bfloat16_rn(s[i] * tail);
      tail *= e[i];
    }
  }

  // The earlier block: e, s and what the cluster gathered into shared memory. Before a barrier.
  __device__ __forceinline__ void start_rows(const RowGates& gates, const float* pairs) const {
    float e[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) e[i] = __expf(gates.g[i]);
    store_eight(e, w.e + row.row * kPitch, row.part);
    store_eight(gates.s, w.s + row.row * kPitch, row.part);
    sum_pairs<kCluster>(pairs, at.thread, a.in_scale, w.pairs);
  }
  // Logits into w.x, and the decays from the start of the 16 rows to the thread's eight.
  __device__ __forceinline__ void finish_logits(const float* partial, float (&r)[8]) const {
    float e[kSub], s[8], own[8], past[8], sum[kSub], from_start = 1.0f;
#pragma unroll
    for (int i = 0; i < kSub; ++i) e[i] = w.e[i * kPitch + at.slot];
#pragma unroll
    for (int i = 0; i < 8; ++i) s[i] = w.s[(2 * i + at.half) * kPitch + at.slot];
    read_pairs<false>(w.pairs, e, s, at.half, sum);
#pragma unroll
    for (int i = 0; i < kSub; ++i) {
      from_start *= e[i];
      if (i / 8 == at.half) {
        own[i % 8] = sum[i];
        r[i % 8] = from_start;
      } else {
        w.exchange[at.half][i % 8 * kSlots + at.slot] = sum[i];
      }
    }
    sum_partials<kCluster>(partial, at, a.in_scale, past);
    role_sync();
#pragma unroll
    for (int i = 0; i < 8; ++i)
      w.x[at.row(i) * kPitch + at.slot] =
          own[i] + w.exchange[1 - at.half][i * kSlots + at.slot] + r[i] * past[i];
  }
  // What reads the second state: softmax of the logits, or dok. `to`: the first row and head in [rows, HQ,
  // slots].
  __device__ __forceinline__ void softmax_rows(int64_t to, int rows, const float (&ok)[8]) const {
    const bool inside = row.row < rows;
    to += row.row * a.HQ * kSlots;
    float v[8];
    load_eight(v, w.x + row.row * kPitch, row.part);
    if constexpr (!kBackward) {
      if (a.ok && inside) store_eight(v, a.ok + to, row.part);
      softmax_eighth(v);
      store_eight(v, w.x + row.row * kPitch, row.part);
    } else {
      float p[8], dok[8], flow[8], mean = 0;
#pragma unroll
      for (int i = 0; i < 8; ++i) p[i] = ok[i];
      softmax_eighth(p);
#pragma unroll
      for (int i = 0; i < 8; ++i) mean += p[i] * v[i];
      mean = eighth_sum(mean);
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const float d = p[i] * (v[i] - mean);
        flow[i] = ok[i] * d + p[i] * v[i];
        dok[i] = a.out_scale * d;
      }
      if (inside) {
        store_eight(dok, a.dok + to, row.part);
        store_eight(flow, a.flow + to, row.part);
      }
      store_eight(dok, w.x + row.row * kPitch, row.part);
    }
  }
  __device__ __forceinline__ void stage_rows(const float (&r)[8]) const {
#pragma unroll
    for (int i = 0; i < 8; ++i)
      w.stage[0][tile_offset(at.row(i), at.slot)] =
          __float2bfloat16_rn(w.x[at.row(i) * kPitch + at.slot] * r[i]);
    pair_weights_16<false>(w.x, w.s, w.e, at.thread, w.weights);
  }
};

template <bool kBackward, int kCluster, int kIn, int kOut>
__device__ __forceinline__ void slot_role(const ForwardSweep& a, Shared<kIn, kOut>& x,
                                          const Place<kCluster>& at, int thread) {
  constexpr int kOwned = kSubs / kCluster;
  const SlotBlock<kBackward, kCluster> block{a, x.work, SlotHalf(thread), RowEighth(thread)};
  const int n = at.line.total();
  // Block of rows `i` of those that this block of threads has: where its 16 rows begin.
  const auto locate = [&](int i) {
    Location to = at.locate(i / kOwned);
    const int64_t past = (at.rank * kOwned + i % kOwned) * kSub;
    to.row += past;
    to.rows = min(max(to.rows - past, int64_t{0}), int64_t{kSub});
    return to;
  };
  const auto gate_rows = [&](const Location& to) {
    const int64_t from = (to.row * a.H + to.head / at.group) * kSlots;
    return GateRows{a.s + from, a.g + from, a.H * kSlots, static_cast<int>(to.rows)};
  };
  const auto load_ok = [&](const Location& to, float (&ok)[8]) {
#pragma unroll
    for (int t = 0; t < 8; ++t) ok[t] = 0.0f;
    if (block.row.row < to.rows)
      load_eight(ok, a.ok + ((to.row + block.row.row) * a.HQ + to.head) * kSlots, block.row.part);
  };
  const int blocks = n * kOwned;
  SlotGates ahead;
  RowGates behind;
  float ok[8];
  if (blocks > 0) ahead.load(gate_rows(locate(0)), block.at);
  for (int step = 0; step < n + 3; ++step) {
#pragma unroll 1
    for (int own = 0; own < kOwned; ++own) {
      const int sub = at.rank * kOwned + own, c = step - 2, next = step * kOwned + own,
                old = next - 2 * kOwned;
      const bool starts = next < blocks, ends = old >= 0 && old < blocks;
      float e[8], s[8], r[8], logits[8];
      if (starts) {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          e[i] = __expf(ahead.g[i]);
          s[i] = ahead.s[i];
        }
        block.start_gates(e);
      }
      if (ends) {
        block.start_rows(behind, x.pairs[c % 2][own * kCluster]);
        if constexpr (kBackward)
#pragma unroll
          for (int i = 0; i < 8; ++i) logits[i] = ok[i];
      }
      if (next + 1 < blocks) ahead.load(gate_rows(locate(next + 1)), block.at);
      if (old + 1 >= 0 && old + 1 < blocks) {
        const Location to = locate(old + 1);
        behind.load(gate_rows(to), block.row);
        if constexpr (kBackward) load_ok(to, ok);
      }
      role_sync();
      if (starts) block.stage_gates(e, s, x.decay[step % 4][sub]);
      if (ends) {
        const Location to = locate(old);
        block.finish_logits(x.partial[c % 2][own * kCluster], r);
        role_sync();
        block.softmax_rows((to.row * a.HQ + to.head) * kSlots, static_cast<int>(to.rows), logits);
        role_sync();
        block.stage_rows(r);
      }
      role_sync();
      if (starts)
        broadcast<kCluster>(x.work.stage[1], x.strengths[step % 4] + sub * kSubTile, kSubTile * sizeof(bf16),
                            thread);
      if (ends) {
        broadcast<kCluster>(x.work.stage[0], x.slots[c % 2] + sub * kSubTile, kSubTile * sizeof(bf16),
                            thread);
        broadcast<kCluster>(x.work.weights, x.weights[c % 2] + sub * kSub * kWeightPitch,
                            sizeof(x.work.weights), thread);
      }
    }
    cluster_sync<kCluster>();
  }
}

template <bool kBackward, int kCluster, int kIn, int kOut>
__global__ void __launch_bounds__(kSweepThreads, 1)
    forward_sweep_kernel(const __grid_constant__ ForwardSweep a) {
  auto& x = *reinterpret_cast<Shared<kIn, kOut>*>(block_memory());
  const Place<kCluster> at(a);
  const int role = threadIdx.x / kRole, thread = threadIdx.x % kRole;
  cluster_sync<kCluster>();  // every block runs before any stores into another
  if (role == 0) {
    give_registers<kStateRegisters>();
    in_role<kBackward, kCluster, kIn, kOut>(a, x, at, thread);
  } else if (role == 1) {
    give_registers<kStateRegisters>();
    out_role<kBackward, kCluster, kIn, kOut>(a, x, at, thread);
  } else {
    take_registers<kSlotRegisters>();
    slot_role<kBackward, kCluster, kIn, kOut>(a, x, at, thread);
  }
}

template <bool kBackward, int kCluster, int kIn, int kOut>
void launch(gsa_device& device, const ForwardSweep& a) {
  constexpr int kBytes = sizeof(Shared<kIn, kOut>);
  static_assert(kBytes <= 227 * 1024, "a block must fit a multiprocessor");
  launch_sweep<kCluster>(device, forward_sweep_kernel<kBackward, kCluster, kIn, kOut>, kBytes, a.N * a.HQ,
                         (kIn + kOut) * kSlots, a);
}

template <bool kBackward>
void launch_direction(gsa_device& device, const ForwardSweep& a) {
  const int64_t in = a.in_width, out = a.out_width;
  if (in == 512 && out == 512) return launch<kBackward, 4, 128, 128>(device, a);
  if (in == 256 && out == 256) return launch<kBackward, 2, 128, 128>(device, a);
  if (in == 128 && out == 128) return launch<kBackward, 1, 128, 128>(device, a);
  if (in == 64 && out == 64) return launch<kBackward, 1, 64, 64>(device, a);
  fail(GSA_INTERNAL, "No sweep for widths %lld and %lld", static_cast<long long>(in),
       static_cast<long long>(out));
}

}  // namespace

void launch_forward_sweep(gsa_device& device, const ForwardSweep& a, bool backward) {
  if (a.N == 0) return;
  backward ? launch_direction<true>(device, a) : launch_direction<false>(device, a);
}

}  // namespace gsa::sm90
