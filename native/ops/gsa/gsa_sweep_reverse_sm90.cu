// The sweep against time. Step i of a block: the slot role prepares the rows of step i, the `in` and `out`
// roles contract those of step i - 1, the slot role finishes ds of step i - 2; steps count from the
// sequence's end.
#include "sweep_reverse_sm90.cuh"
#include "sweep_slots_sm90.cuh"

namespace gsa::sm90 {
namespace {

template <int kWidth>
struct Shared {
  bf16 read[2][kWidth / kTile * kStepTile];
  bf16 write[2][kWidth / kTile * kStepTile];
  bf16 strengths[2][kStepTile];           // of what is written, decayed to the start of its 16 rows
  bf16 slots[2][kStepTile];               // write strengths s, decayed to the end of their 16 rows
  bf16 weights[2][kStep * kWeightPitch];  // pairs inside each 16 rows, [reading j][written i]
  float decay[2][kSubs][kSlots];
  float partial[2][kSubs][kSub * kPartialPitch];
  float pairs[2][kSubs][kSub * kSub];
  SlotWork work;
  bf16 stage[4][kSub * kStagePitch];  // of the warps that make the output
};

template <int kCluster>
struct Place {
  Line line;
  int cluster, rank;
  __device__ explicit Place(const ReverseSweep& a)
      : line(a.cu_seqlens, a.T, a.N, a.H, blockIdx.x / kCluster, a.clusters),
        cluster(blockIdx.x / kCluster),
        rank(cluster_rank<kCluster>()) {}
  __device__ Location locate(int i) const { return line.locate<true>(i); }
  __device__ int64_t block(int of_cluster) const {
    return static_cast<int64_t>(of_cluster) * kCluster + rank;
  }
  // Place of a stored state among those of all blocks.
  __device__ int64_t anchor(const ReverseSweep& a, const Location& x) const {
    const int64_t n = first_anchor(x.row - static_cast<int64_t>(x.chunk) * kStep, x.sequence) + x.chunk;
    return (n * a.H + x.head) * kCluster + rank;
  }
};

// The ends of a piece of a walk: from the user's gradient or the cluster before, to the user or the cluster
// after.
template <int kBarrier, int kCluster, class State>
__device__ __forceinline__ void begin_piece(State& state, const ReverseSweep& a, const Place<kCluster>& at,
                                            const Location& x, int64_t elements, int part, int first,
                                            int thread) {
  if (x.start == 0)
    load_state(state, a.state.start ? a.state.start + x.state(a.H, x.head, a.width, kSlots) : nullptr,
               a.state, first, thread / 32);
  else
    take_over<kBarrier>(state, a.hand_over.states + (at.block(at.cluster - 1) * 2 + part) * elements,
                        a.hand_over.ready + at.block(at.cluster - 1) * 2 + part, thread);
}
// `reports`: both roles hold the gradient, one of them tells the user.
template <int kBarrier, int kCluster, class State>
__device__ __forceinline__ void end_piece(State& state, const ReverseSweep& a, const Place<kCluster>& at,
                                          const Location& x, int64_t elements, int part, int first,
                                          int thread, bool reports) {
  if (x.stop != x.steps)
    hand_over<kBarrier>(state, a.hand_over.states + (at.block(at.cluster) * 2 + part) * elements,
                        a.hand_over.ready + at.block(at.cluster) * 2 + part, thread);
  else if (reports && a.state.end)
    store_state(state, a.state.end + x.state(a.H, x.head, a.width, kSlots), a.state, first, thread / 32);
}
template <int kCluster, class State>
__device__ __forceinline__ void pass_states(State& state, const ReverseSweep& a, const Place<kCluster>& at,
                                            int first, int thread) {
  if (at.line.n != 0 || !a.state.end) return;
  for (int64_t walk = at.cluster; walk < a.N * a.H; walk += a.cu_seqlens ? a.N * a.H : a.clusters) {
    const int64_t offset = walk * a.width * kSlots;
    load_state(state, a.state.start ? a.state.start + offset : nullptr, a.state, first, thread / 32);
    store_state(state, a.state.end + offset, a.state, first, thread / 32);
  }
}

// Sum over the channels of state * gradient, by slot. The `in` layout: four lanes share a slot.
template <int kWidth>
__device__ __forceinline__ void store_flow(const InState<kWidth>& state, const bf16* anchor, float* flow,
                                           int thread) {
  constexpr int kParts = sizeof(state) / 32;
  const float* x = reinterpret_cast<const float*>(&state);
  float sum[2] = {};
#pragma unroll
  for (int i = 0; i < kParts; ++i) {
    const uint4 v = reinterpret_cast<const uint4*>(anchor)[i * kRole + thread];
#pragma unroll
    for (int t = 0; t < 4; ++t) {
      const float2 pair = __bfloat1622float2(reinterpret_cast<const __nv_bfloat162*>(&v)[t]);
      sum[t % 2] += pair.x * x[8 * i + 2 * t] + pair.y * x[8 * i + 2 * t + 1];
    }
  }
#pragma unroll
  for (int t = 0; t < 2; ++t) {
    sum[t] += __shfl_xor_sync(~0u, sum[t], 1);
    sum[t] += __shfl_xor_sync(~0u, sum[t], 2);
    if (thread % 4 == 0) flow[thread / 32 * 16 + thread % 32 / 4 + t * 8] = sum[t];
  }
}
// The `out` layout: eight lanes and four warps share a slot; one row of `flow` a warp.
template <int kWidth>
__device__ __forceinline__ void store_flow(const OutState<kWidth>& state, const bf16* anchor, float* flow,
                                           int thread) {
  constexpr int kParts = sizeof(state) / 32;
  const float* x = reinterpret_cast<const float*>(&state);
  float sum[kSlots / 8][2] = {};
#pragma unroll
  for (int i = 0; i < kParts; ++i) {
    const uint4 v = reinterpret_cast<const uint4*>(anchor)[i * kRole + thread];
#pragma unroll
    for (int t = 0; t < 4; ++t) {
      const float2 pair = __bfloat1622float2(reinterpret_cast<const __nv_bfloat162*>(&v)[t]);
      float (&to)[2] = sum[(2 * i + t / 2) % (kSlots / 8)];
      to[0] += pair.x * x[8 * i + 2 * t];
      to[1] += pair.y * x[8 * i + 2 * t + 1];
    }
  }
#pragma unroll
  for (int n = 0; n < kSlots / 8; ++n)
#pragma unroll
    for (int t = 0; t < 2; ++t) {
#pragma unroll
      for (int o = 4; o < 32; o *= 2) sum[n][t] += __shfl_xor_sync(~0u, sum[n][t], o);
      if (thread % 32 < 4) flow[thread / 32 * kSlots + 8 * n + thread % 4 * 2 + t] = sum[n][t];
    }
}

template <bool kKeySide, int kCluster, int kWidth>
__device__ __forceinline__ void in_role(const ReverseSweep& a, Shared<kWidth>& x, const Place<kCluster>& at,
                                        int thread) {
  const int warp = thread / 32, first = at.rank * kWidth, n = at.line.total();
  const auto load = [&](int i) {
    const Location to = at.locate(i);
    load_step<kWidth>(x.read[i % 2], a.read + (to.row * a.H + to.head) * a.width + first, a.H * a.width,
                      to.rows, thread);
  };
  InState<kWidth> state;
  pass_states(state, a, at, first, thread);
  if (n > 0) load(0);
  copy_commit();
  for (int step = 0; step < n + 2; ++step) {
    const int i = step - 1;
    if (i >= 0 && i < n) {
      if (i + 1 < n) load(i + 1);
      copy_commit();
      const Location here = at.locate(i);
      if (here.step == here.start) begin_piece<2>(state, a, at, here, kWidth * kSlots, 0, first, thread);
      if constexpr (!kKeySide) {
        const int64_t to = at.anchor(a, here);
        store_flow(state, a.anchors + to * anchor_elements(a.anchor_slices[0], a.anchor_slices[1]),
                   a.flow + to * 5 * kSlots, thread);
      }
      const bf16 *v = x.read[i % 2], *d_o = x.write[i % 2];
#pragma unroll 1
      for (int sub = kSubs - 1; sub >= 0; --sub) {
        constexpr int kOwned = kSubs / kCluster;
        const int owner = sub / kOwned, place = sub % kOwned * kCluster + at.rank;
        float acc[2][4] = {};
        state.read(v, sub, acc);
        state.move(d_o, x.strengths[i % 2], x.decay[i % 2][sub], sub, warp);
        send_partial(acc, x.partial[i % 2][place], owner, warp);
        if (sub == warp) send_pairs<kWidth>(v, d_o, sub, x.pairs[i % 2][place], owner);
      }
      if (here.step + 1 == here.stop)
        end_piece<2>(state, a, at, here, kWidth * kSlots, 0, first, thread, true);
    }
    copy_wait<0>();
    cluster_sync<kCluster>();
  }
}

template <bool kKeySide, int kCluster, int kWidth>
__device__ __forceinline__ void out_role(const ReverseSweep& a, Shared<kWidth>& x, const Place<kCluster>& at,
                                         int thread) {
  constexpr int kGroups = OutState<kWidth>::kGroups;
  const int warp = thread / 32, first = at.rank * kWidth, n = at.line.total();
  const int64_t stride = a.H * a.width;
  const auto load = [&](int i) {
    const Location to = at.locate(i);
    load_step<kWidth>(x.write[i % 2], a.write + (to.row * a.H + to.head) * a.width + first, stride, to.rows,
                      thread);
  };
  OutState<kWidth> state;
  if (n > 0) load(0);
  copy_commit();
  for (int step = 0; step < n + 2; ++step) {
    const int i = step - 1;
    if (i >= 0 && i < n) {
      if (i + 1 < n) load(i + 1);
      copy_commit();
      const Location here = at.locate(i);
      if (here.step == here.start) begin_piece<3>(state, a, at, here, kWidth * kSlots, 1, first, thread);
      if constexpr (kKeySide) {
        const int64_t to = at.anchor(a, here);
        store_flow(state,
                   a.anchors + to * anchor_elements(a.anchor_slices[0], a.anchor_slices[1]) +
                       a.anchor_slices[0] * kSlots,
                   a.flow + (to * 5 + 1) * kSlots, thread);
      }
      bf16* const out =
          a.out + (here.row * a.H + here.head) * a.width + first + warp * OutState<kWidth>::kOwn;
      const int rows = static_cast<int>(min(here.rows, int64_t{kStep}));
      const bf16* d_o = x.write[i % 2];
#pragma unroll 1
      for (int sub = kSubs - 1; sub >= 0; --sub) {
        float acc[2 * kGroups][4] = {};
        state.read(x.slots[i % 2], x.weights[i % 2], d_o, sub, warp, acc);
        state.move(d_o, x.strengths[i % 2], x.decay[i % 2][sub], sub, warp);
        store_rows<kGroups>(acc, x.stage[warp], out + sub * kSub * stride, stride, rows - sub * kSub);
      }
      if (here.step + 1 == here.stop)
        end_piece<3>(state, a, at, here, kWidth * kSlots, 1, first, thread, false);
    }
    copy_wait<0>();
    cluster_arrive<kCluster, false>();
    cluster_wait<kCluster>();
  }
}

// Decays, read strengths s and write strengths p (or scale * dok) of 16 rows into shared memory. Ends with a
// barrier.
template <bool kKeySide>
__device__ __forceinline__ void load_rows(const ReverseSweep& a, int64_t first, int rows, SlotWork& w,
                                          int thread) {
  const RowEighth at(thread);
  const int64_t from = (first + at.row * a.H) * kSlots;
  const bool inside = at.row < rows;
  float e[8] = {}, s[8] = {}, p[8] = {};
  if (inside) {
    load_eight(e, a.g + from, at.part);
    load_eight(s, a.s + from, at.part);
    load_eight(p, a.strength + from, at.part);
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) e[i] = __expf(e[i]);
  if constexpr (!kKeySide) {
    softmax_eighth(p);
    if (!inside)
#pragma unroll
      for (int i = 0; i < 8; ++i) p[i] = 0.0f;
  }
  store_eight(e, w.e + at.row * kPitch, at.part);
  store_eight(s, w.s + at.row * kPitch, at.part);
  store_eight(p, w.x + at.row * kPitch, at.part);
  role_sync();
}

// What the other roles need of 16 rows, to the whole cluster.
template <int kCluster, int kWidth>
__device__ __forceinline__ void prepare_rows(Shared<kWidth>& x, const SlotHalf& at, int slot, int sub) {
  SlotWork& w = x.work;
  float e[kSub];
#pragma unroll
  for (int i = 0; i < kSub; ++i) e[i] = w.e[i * kPitch + at.slot];
  float from_start = 1.0f, tail = 1.0f;
#pragma unroll
  for (int i = 0; i < kSub; ++i) {
    from_start *= e[i];
    if (i / 8 == at.half)
      w.stage[1][tile_offset(i, at.slot)] = __float2bfloat16_rn(w.x[i * kPitch + at.slot] * from_start);
  }
#pragma unroll
  for (int i = kSub - 1; i >= 0; --i) {
    if (i / 8 == at.half)
      w.stage[0][tile_offset(i, at.slot)] = __float2bfloat16_rn(w.s[i * kPitch + at.slot] * tail);
    tail *= e[i];
  }
  if (at.half == 0)
#pragma unroll
    for (int rank = 0; rank < kCluster; ++rank)
      store_remote(remote_address(&x.decay[slot][sub][at.slot], rank), from_start);
  pair_weights_16<true>(w.x, w.s, w.e, at.thread, w.weights);
  role_sync();
  broadcast<kCluster>(w.stage[1], x.strengths[slot] + sub * kSubTile, sizeof(w.stage[1]), at.thread);
  broadcast<kCluster>(w.stage[0], x.slots[slot] + sub * kSubTile, sizeof(w.stage[0]), at.thread);
  broadcast<kCluster>(w.weights, x.weights[slot] + sub * kSub * kWeightPitch, sizeof(w.weights), at.thread);
}

// ds of 16 rows: what their slots give to later rows.
template <bool kKeySide, int kCluster>
__device__ __forceinline__ void finish_rows(const ReverseSweep& a, int64_t first, int rows, SlotWork& w,
                                            const SlotHalf& at, const float* partial, const float* pairs) {
  float e[kSub], p[8], sum[kSub], later[8];
#pragma unroll
  for (int i = 0; i < kSub; ++i) e[i] = w.e[i * kPitch + at.slot];
#pragma unroll
  for (int i = 0; i < 8; ++i) p[i] = w.x[(2 * i + at.half) * kPitch + at.slot];
  sum_partials<kCluster>(partial, at, 1.0f, later);
  sum_pairs<kCluster>(pairs, at.thread, 1.0f, w.pairs);
  float before[8] = {};
  if constexpr (kKeySide)
#pragma unroll
    for (int i = 0; i < 8; ++i)
      if (at.row(i) < rows) before[i] = a.ds[(first + at.row(i) * a.H) * kSlots + at.slot];
  role_sync();
  read_pairs<true>(w.pairs, e, p, at.half, sum);
  float own[8], tails[8], tail = 1.0f;
#pragma unroll
  for (int i = kSub - 1; i >= 0; --i) {
    if (i / 8 == at.half) {
      own[i % 8] = sum[i];
      tails[i % 8] = tail;
    } else {
      w.exchange[at.half][i % 8 * kSlots + at.slot] = sum[i];
    }
    tail *= e[i];
  }
  role_sync();
#pragma unroll
  for (int i = 0; i < 8; ++i)
    if (at.row(i) < rows)
      a.ds[(first + at.row(i) * a.H) * kSlots + at.slot] =
          before[i] + own[i] + w.exchange[1 - at.half][i * kSlots + at.slot] + tails[i] * later[i];
}

template <bool kKeySide, int kCluster, int kWidth>
__device__ __forceinline__ void slot_role(const ReverseSweep& a, Shared<kWidth>& x, const Place<kCluster>& at,
                                          int thread) {
  constexpr int kOwned = kSubs / kCluster;
  const SlotHalf half(thread);
  const int n = at.line.total();
  for (int step = 0; step < n + 2; ++step) {
#pragma unroll 1
    for (int own = 0; own < kOwned; ++own) {
      const int sub = at.rank * kOwned + own;
      const auto load = [&](int i, int64_t& first, int& rows) {
        const Location to = at.locate(i);
        first = (to.row + sub * kSub) * a.H + to.head;
        rows = static_cast<int>(min(max(to.rows - sub * kSub, int64_t{0}), int64_t{kSub}));
        load_rows<kKeySide>(a, first, rows, x.work, thread);
      };
      int64_t first;
      int rows;
      if (const int i = step - 2; i >= 0) {
        load(i, first, rows);
        finish_rows<kKeySide, kCluster>(a, first, rows, x.work, half, x.partial[i % 2][own * kCluster],
                                        x.pairs[i % 2][own * kCluster]);
        role_sync();
      }
      if (step < n) {
        load(step, first, rows);
        prepare_rows<kCluster>(x, half, step % 2, sub);
        role_sync();
      }
    }
    cluster_sync<kCluster>();
  }
}

template <bool kKeySide, int kCluster, int kWidth>
__global__ void __launch_bounds__(kSweepThreads, 1)
    reverse_sweep_kernel(const __grid_constant__ ReverseSweep a) {
  auto& x = *reinterpret_cast<Shared<kWidth>*>(block_memory());
  const Place<kCluster> at(a);
  const int role = threadIdx.x / kRole, thread = threadIdx.x % kRole;
  cluster_sync<kCluster>();  // every block runs before any stores into another
  if (role == 0) {
    give_registers<kStateRegisters>();
    in_role<kKeySide, kCluster, kWidth>(a, x, at, thread);
  } else if (role == 1) {
    give_registers<kStateRegisters>();
    out_role<kKeySide, kCluster, kWidth>(a, x, at, thread);
  } else {
    take_registers<kSlotRegisters>();
    slot_role<kKeySide, kCluster, kWidth>(a, x, at, thread);
  }
}

template <bool kKeySide, int kCluster, int kWidth>
void launch(gsa_device& device, const ReverseSweep& a) {
  launch_sweep<kCluster>(device, reverse_sweep_kernel<kKeySide, kCluster, kWidth>, sizeof(Shared<kWidth>),
                         a.N * a.H, 2 * kWidth * kSlots, a);
}

template <bool kKeySide>
void launch_side(gsa_device& device, const ReverseSweep& a, int cluster) {
  const int64_t slice = a.width / cluster;
  if (cluster == 4 && slice == 128) return launch<kKeySide, 4, 128>(device, a);
  if (cluster == 2 && slice == 128) return launch<kKeySide, 2, 128>(device, a);
  if (cluster == 1 && slice == 128) return launch<kKeySide, 1, 128>(device, a);
  if (cluster == 1 && slice == 64) return launch<kKeySide, 1, 64>(device, a);
  fail(GSA_INTERNAL, "No reverse sweep for width %lld in %d blocks", static_cast<long long>(a.width),
       cluster);
}

}  // namespace

void launch_reverse_sweep(gsa_device& device, const ReverseSweep& a, int cluster, bool key_side) {
  if (a.N == 0) return;
  key_side ? launch_side<true>(device, a, cluster) : launch_side<false>(device, a, cluster);
}

}  // namespace gsa::sm90
