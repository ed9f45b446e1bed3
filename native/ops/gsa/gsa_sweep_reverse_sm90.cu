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
  bf16 strengths[2][kStepTile];  // of what is written, decayed to the start of its 16 rows
  bf16 slots[2][kStepTile];      // write strengths s, decayed to the end of their 16 rows
  SlotWork work[2];
  bf16 weights[2][kStep * kWeightPitch];  // pairs inside each 16 rows, [reading j][written i]
  float decay[2][kSubs][kSlots];
  float partial[2][kSubs][kPartial];
  float pairs[2][kSubs][kPairs];
  bf16 stage[4][kSub * kStagePitch];  // of the warps that make the output
  ExactWork exact;
  uint64_t read_ready[2], write_ready[2], prepared[2], partial_ready[2];
};

constexpr int kPreparedBytes = 2 * kTileBytes + kDecayBytes + kWeightBytes;

template <int kWidth>
__device__ __forceinline__ void start_barriers(Shared<kWidth>& x) {
  for (int i = 0; i < 2; ++i) {
    init_barrier(&x.read_ready[i]);
    init_barrier(&x.write_ready[i]);
    init_barrier(&x.prepared[i]);
    init_barrier(&x.partial_ready[i]);
    expect_bytes(&x.prepared[i], kPreparedBytes);
    expect_bytes(&x.partial_ready[i], kPartialBytes);
  }
  publish_barriers();
}

template <int kCluster>
struct Place {
  Line line;
  int cluster, rank;
  __device__ explicit Place(const ReverseSweep& a)
      : line(a.cu_seqlens, a.T, a.N, a.H, 1, blockIdx.x / kCluster, a.clusters),
        cluster(blockIdx.x / kCluster),
        rank(cluster_rank<kCluster>()) {}
  __device__ Ends ends(const ReverseSweep& a) const { return {a.ends, a.hand_over, a.H, cluster, rank, kCluster}; }
  // Place of a stored state among those of all blocks.
  __device__ int64_t anchor(const ReverseSweep& a, const Location& x) const {
    const int64_t n = first_anchor(x.row - static_cast<int64_t>(x.chunk) * kStep, x.sequence) + x.chunk;
    return (n * a.H + x.head) * kCluster + rank;
  }
};

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
  constexpr int kOwned = kSubs / kCluster;
  constexpr int kElements = 2 * kWidth * kSlots;
  const int warp = thread / 32, first = at.rank * kWidth, n = uniform(at.line.total());
  Cursor<true> next(at.line);
  const auto load = [&](int i) {
    if (thread != 0) return;
    expect_bytes(&x.read_ready[i % 2], kWidth / kTile * kTileBytes);
    load_step<kWidth>(x.read[i % 2], a.read_map, next.here.head * a.width + first, next.here.row,
                      &x.read_ready[i % 2]);
    expect_bytes(&x.write_ready[i % 2], kWidth / kTile * kTileBytes);
    load_step<kWidth>(x.write[i % 2], a.write_map, next.here.head * a.width + first, next.here.row,
                      &x.write_ready[i % 2]);
  };
  InState<kWidth> state;
  if (n > 0) load(0);
  for (int step = 0; step < n + 2; ++step) {
    const int i = step - 1;
    if (i >= 0 && i < n) {
      const Location here = next.here;
      next.advance();
      if (i + 1 < n) load(i + 1);
      if (uniform(here.step == here.start))
        begin_piece<kInBarrier>(state, at.ends(a), here, kElements, 0, 0, thread);
      if constexpr (!kKeySide) {
        const int64_t to = at.anchor(a, here);
        store_flow(state, a.anchors + to * anchor_elements(a.anchor_slices[0], a.anchor_slices[1]),
                   a.flow + to * 5 * kSlots, thread);
      }
      bf16 *v = x.read[i % 2], *d_o = x.write[i % 2];
      wait_barrier(&x.read_ready[i % 2], i / 2 % 2);
      wait_barrier(&x.write_ready[i % 2], i / 2 % 2);
      if (uniform(here.rows < kStep)) {
        clear_rows<kWidth>(v, static_cast<int>(here.rows), thread);
        clear_rows<kWidth>(d_o, static_cast<int>(here.rows), thread);
        publish_shared();
        named_sync<kInBarrier, kRole>();
      }
      send_pairs<kWidth>(v, d_o, warp, x.pairs[i % 2][warp % kOwned * kCluster + at.rank],
                         &x.partial_ready[i % 2], warp / kOwned);
      wait_barrier(&x.prepared[i % 2], i / 2 % 2);
#pragma unroll 1
      for (int sub = kSubs - 1; sub >= 0; --sub) {
        float out[2][4];
        state.step(v, d_o, x.strengths[i % 2], x.decay[i % 2][sub], sub, warp, out);
        send_partial(out, x.partial[i % 2][sub % kOwned * kCluster + at.rank], &x.partial_ready[i % 2],
                     sub / kOwned, thread);
        state.settle();
      }
      if (uniform(here.step + 1 == here.stop))
        end_piece<kInBarrier>(state, at.ends(a), here, kElements, 0, 0, thread, true);
    }
    step_done<kCluster>();
  }
}

template <bool kKeySide, int kCluster, int kWidth>
__device__ __forceinline__ void out_role(const ReverseSweep& a, Shared<kWidth>& x, const Place<kCluster>& at,
                                         int thread) {
  constexpr int kGroups = OutState<kWidth>::kGroups;
  constexpr int kElements = 2 * kWidth * kSlots;
  const int warp = thread / 32, first = at.rank * kWidth, n = uniform(at.line.total());
  const int64_t stride = a.H * a.width;
  Cursor<true> next(at.line);
  OutState<kWidth> state;
  for (int step = 0; step < n + 2; ++step) {
    const int i = step - 1;
    if (i >= 0 && i < n) {
      const Location here = next.here;
      next.advance();
      if (uniform(here.step == here.start))
        begin_piece<kOutBarrier>(state, at.ends(a), here, kElements, kWidth * kSlots, 1, thread);
      if constexpr (kKeySide) {
        const int64_t to = at.anchor(a, here);
        store_flow(state,
                   a.anchors + to * anchor_elements(a.anchor_slices[0], a.anchor_slices[1]) +
                       a.anchor_slices[0] * kSlots,
                   a.flow + (to * 5 + 1) * kSlots, thread);
      }
      bf16* const out = a.out + (here.row * a.H + here.head) * a.width + first;
      const int rows = static_cast<int>(min(here.rows, int64_t{kStep}));
      bf16* d_o = x.write[i % 2];
      wait_barrier(&x.write_ready[i % 2], i / 2 % 2);
      if (uniform(rows < kStep)) {
        clear_rows<kWidth>(d_o, rows, thread);
        named_sync<kOutBarrier, kRole>();
      }
      wait_barrier(&x.prepared[i % 2], i / 2 % 2);
      if (thread == 0) expect_bytes(&x.prepared[i % 2], kPreparedBytes);
      publish_shared();
#pragma unroll 1
      for (int sub = kSubs - 1; sub >= 0; --sub) {
        float acc[kGroups][2][4];
        state.step(x.slots[i % 2], x.weights[i % 2], d_o, x.strengths[i % 2], x.decay[i % 2][sub], sub, warp,
                   acc);
        store_rows<kGroups>(acc, x.stage[warp], warp, out + sub * kSub * stride, stride, rows - sub * kSub);
        state.settle();
      }
      if (uniform(here.step + 1 == here.stop))
        end_piece<kOutBarrier>(state, at.ends(a), here, kElements, kWidth * kSlots, 1, thread, false);
    }
    step_done<kCluster>();
  }
}

template <bool kKeySide, int kCluster, int kWidth>
__device__ __forceinline__ void slot_role(const ReverseSweep& a, Shared<kWidth>& x, const Place<kCluster>& at,
                                          int thread) {
  constexpr int kOwned = kSubs / kCluster;
  const FragmentPlace place(thread);
  const int n = uniform(at.line.total());
  const auto rows_of_block = [&](const Location& to, int own) {
    const int64_t past = (at.rank * kOwned + own) * kSub;
    return RowBlock{((to.row + past) * a.H + to.head) * kSlots, a.H * kSlots,
                    static_cast<int>(min(max(to.rows - past, int64_t{0}), int64_t{kSub}))};
  };
  Cursor<true> starting(at.line), ending(at.line);
  Fragment new_g = {}, new_s = {}, new_p = {}, g = {}, p = {}, before = {};
  const auto load_new = [&](int own) {
    const RowBlock rows = rows_of_block(starting.here, own);
    load_fragment(new_g, a.g, rows, place);
    load_fragment(new_s, a.s, rows, place);
    load_fragment(new_p, a.strength, rows, place);
  };
  const auto load_old = [&](int own) {
    const RowBlock rows = rows_of_block(ending.here, own);
    load_fragment(g, a.g, rows, place);
    load_fragment(p, a.strength, rows, place);
    if constexpr (kKeySide) load_fragment(before, a.ds, rows, place);
  };
  if (n > 0) {
    load_new(0);
    load_old(0);
  }
  for (int step = 0; step < n + 2; ++step) {
    const int c = step - 2;
    if (c >= 0) {
      wait_barrier(&x.partial_ready[c % 2], c / 2 % 2);
      if (thread == 0) expect_bytes(&x.partial_ready[c % 2], kPartialBytes);
    }
#pragma unroll 1
    for (int own = 0; own < kOwned; ++own) {
      const int sub = at.rank * kOwned + own;
      if (step < n) {
        SlotWork& w = x.work[(step * kOwned + own) % 2];
        uint64_t* ready = &x.prepared[step % 2];
        const GateSums sums(new_g);
        Fragment late, early, tail;
        each([&](int m, int i) {
          late[m][i] = new_p[m][i] * __expf(sums.until[m][i]);
          early[m][i] = new_s[m][i] * __expf(-sums.until[m][i]);
          tail[m][i] = new_s[m][i] * __expf(sums.after[m][i]);
        });
        const bool beyond = is_beyond(sums, new_s);
        if (place.lane == 0) w.beyond[place.warp] = beyond;
        stage_fragment(late, w.late, place);
        stage_fragment(early, w.early, place);
        stage_fragment(tail, w.tail, place);
        __syncwarp();
        send_columns<kCluster>(w.late, x.strengths[step % 2] + sub * kSubTile, ready, place);
        send_columns<kCluster>(w.tail, x.slots[step % 2] + sub * kSubTile, ready, place);
        send_decay<kCluster>(sums.total, x.decay[step % 2][sub], ready, place);
        role_sync();
        const bool all_beyond = any_beyond(w);
        if (all_beyond) {
          keep_decays(new_g, x.exact, place);
          keep_exact(new_s, x.exact.early, place);
          keep_exact(new_p, x.exact.late, place);
          role_sync();
        }
        send_weights<true, kCluster>(w, x.exact, x.weights[step % 2] + sub * kSub * kWeightPitch, ready,
                                     all_beyond, place);
        if (all_beyond) role_sync();  // what is kept is written again below or for the next block of rows
        if (own + 1 == kOwned) starting.advance();
        if (starting.inside()) load_new((own + 1) % kOwned);
      }
      if (c >= 0) {
        const GateSums sums(g);
        Fragment past, pairs, own_rows;
        sum_partials<kCluster>(x.partial[c % 2][own * kCluster], place, past);
        sum_pairs<kCluster>(x.pairs[c % 2][own * kCluster], place, pairs);
        const Fragment none = {};
        if (!is_beyond(sums, none)) {
          Fragment late;
          each([&](int m, int i) { late[m][i] = p[m][i] * __expf(sums.until[m][i]); });
          contract_pairs<true>(late, pairs, own_rows);
          each([&](int m, int i) { own_rows[m][i] *= __expf(-sums.until[m][i]); });
        } else {
          keep_decays(g, x.exact, place);
          keep_exact(p, x.exact.late, place);
          contract_pairs_exactly<true>(x.exact, x.exact.late, pairs, place, own_rows);
        }
        Fragment ds;
        each([&](int m, int i) {
          ds[m][i] = before[m][i] + own_rows[m][i] + __expf(sums.after[m][i]) * past[m][i];
        });
        store_fragment(ds, a.ds, rows_of_block(ending.here, own), place);
        if (own + 1 == kOwned) ending.advance();
        if (ending.inside()) load_old((own + 1) % kOwned);
      }
    }
    step_done<kCluster>();
  }
}

template <bool kKeySide, int kCluster, int kWidth>
__global__ void __launch_bounds__(kSweepThreads, 1)
    reverse_sweep_kernel(const __grid_constant__ ReverseSweep a) {
  auto& x = *reinterpret_cast<Shared<kWidth>*>(block_memory());
  const Place<kCluster> at(a);
  // From one lane, so that the compiler sees whole warps take a branch: products of warpgroups need it.
  const int role = __shfl_sync(~0u, threadIdx.x / kRole, 0), thread = threadIdx.x % kRole;
  if (threadIdx.x == 0) start_barriers(x);
  cluster_sync<kCluster>();  // every block runs, its barriers with it, before any stores into another
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
void launch(gsa_device& device, ReverseSweep& a) {
  constexpr int kBytes = sizeof(Shared<kWidth>);
  static_assert(kBytes <= 227 * 1024, "a block must fit a multiprocessor");
  launch_sweep<kCluster>(device, reverse_sweep_kernel<kKeySide, kCluster, kWidth>, kBytes, a.N * a.H,
                         2 * kWidth * kSlots, a);
}

template <bool kKeySide>
void launch_side(gsa_device& device, ReverseSweep& a, int cluster) {
  const int64_t slice = a.width / cluster;
  if (cluster == 4 && slice == 128) return launch<kKeySide, 4, 128>(device, a);
  if (cluster == 2 && slice == 128) return launch<kKeySide, 2, 128>(device, a);
  if (cluster == 1 && slice == 128) return launch<kKeySide, 1, 128>(device, a);
  if (cluster == 1 && slice == 64) return launch<kKeySide, 1, 64>(device, a);
  fail(GSA_INTERNAL, "No reverse sweep for width %lld in %d blocks", static_cast<long long>(a.width),
       cluster);
}

}  // namespace

void launch_reverse_sweep(gsa_device& device, const ReverseSweep& sweep, int cluster, bool key_side) {
  if (sweep.N == 0 || sweep.rows == 0) return;
  ReverseSweep a = sweep;
  a.read_map = cuda::tensor_map(a.read, a.rows, a.H * a.width, kStep);
  a.write_map = cuda::tensor_map(a.write, a.rows, a.H * a.width, kStep);
  key_side ? launch_side<true>(device, a, cluster) : launch_side<false>(device, a, cluster);
}

}  // namespace gsa::sm90
