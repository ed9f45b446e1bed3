// The sweep against time. Step i of a block: the slot role prepares the rows of step i, the `in` and `out`
// roles contract those of step i - 1, the slot role finishes ds of step i - 2; steps count from the
// sequence's end.
//
// kHalf: 0, all 64 slots; of 128 slots 1, the first 64, or 2, the second: the halves are strangers, and the
// sweep over the second adds its outputs to those of the first.
#include "sweep_launch_sm90.cuh"
#include "sweep_reverse_block_sm90.cuh"
#include "sweep_reverse_slots_sm90.cuh"

namespace gsa::sm90 {
namespace {

constexpr Addresses kHow = Addresses::kept;

template <bool kKeySide, bool kGrouped, bool kLayer, int kHalf, int kCluster, int kWidth>
__device__ __forceinline__ void in_role(const ReverseSweep& a, Shared<kWidth>& x,
                                        const Place<kGrouped, kHalf, kCluster>& at, int thread) {
  constexpr int kOwned = kSubs / kCluster;
  constexpr int kElements = 2 * kWidth * kSlots;
  const int first = at.rank * kWidth, n = uniform(at.line.steps);
  const RolePlaces<kHow> places(thread);
  const RolePlace& place = places.first();
  const PairPlace rows_of_warp = pair_place<kHow>(place.warp, place.lane);
  Cursor<true> next(at.line);
  const auto load = [&](int i) {
    if (thread != 0) return;
    expect_bytes(&x.read_ready[i % 2], kWidth / kTile * kTileBytes);
    load_step<kWidth>(x.read[i % 2], a.read_map, next.here.kv_head * a.width + first, next.here.row,
                      &x.read_ready[i % 2]);
    expect_bytes(&x.write_ready[i % 2], kWidth / kTile * kTileBytes);
    load_step<kWidth>(x.write[i % 2], a.write_map, next.here.head * a.width + first, next.here.row,
                      &x.write_ready[i % 2]);
    expect_bytes(&x.anchor_ready[i % 2], sizeof(x.anchor[0]));
    load_bytes(x.anchor[i % 2],
               a.anchors +
                   at.anchor(next.here, at.kv_heads(a), next.here.kv_head) *
                       anchor_elements(a.anchor_slices[0], a.anchor_slices[1]) +
                   (kKeySide ? a.anchor_slices[0] * kSlots : 0),
               sizeof(x.anchor[0]), &x.anchor_ready[i % 2]);
  };
  InState<kWidth> state;
  const Steps<kCluster> steps;
  if (n > 0) load(0);
  for (int step = 0; step < n + 2; ++step) {
    const int i = step - 1;
    if (i >= 0 && i < n) {
      const Location here = next.here;
      next.advance();
      if (uniform(here.step == here.start))
        begin_piece<kInBarrier>(state, at.ends(a), at.own_states(here), kElements, 0, 0, thread);
      if constexpr (!kKeySide) {
        wait_barrier(&x.anchor_ready[i % 2], i / 2 % 2);
        store_flow(state, x.anchor[i % 2], a.flow + at.anchor(here, a.HQ, here.head) * 5 * kSlots, thread);
      }
      bf16 *v = x.read[i % 2], *d_o = x.write[i % 2];
      wait_barrier(&x.read_ready[i % 2], i / 2 % 2);
      wait_barrier(&x.write_ready[i % 2], i / 2 % 2);
      if constexpr (kLayer) wait_barrier(&x.active[i % 2], i / 2 % 2);
      wait_barrier(&x.prepared[i % 2], i / 2 % 2);
      steps.free();
      if (i + 1 < n) load(i + 1);
      if (uniform(here.rows < kStep)) {
        clear_rows<kWidth>(v, here.rows, thread);
        clear_rows<kWidth>(d_o, here.rows, thread);
        publish_shared();
        named_sync<kRowsBarrier, 2 * kRole>();
      }
      const StepRows<kHow, false> read(v);
      const StepRows<kHow, true> written(d_o);
      const int turn = index<kHow>(i % 2);
      const bf16* strengths = x.strengths[turn];
      const float* decays = x.decay[turn][0];
      uint64_t* ready = &x.partial_ready[i % 2];
      Pairs<kWidth> pairs;
#pragma unroll 1
      for (int sub = kSubs - 1; sub >= 0; --sub) {
        float out[2][4];
        state.start(read.block(sub), written.block(sub), {strengths, decays, sub, place}, out);
        pairs.add(x.read[turn], x.write[turn], rows_of_warp, sub);
        state.answered(out);
        send_partial<kCluster>(out, x.partial[i % 2][sub % kOwned * kCluster + at.rank], ready, sub / kOwned,
                               thread);
        state.settle();
      }
      steps.read();
      pairs.template send<kCluster>(x.pairs[i % 2][place.warp % kOwned * kCluster + at.rank], ready,
                                    place.warp / kOwned, place.lane);
      if (uniform(here.step + 1 == here.stop))
        end_piece<kInBarrier>(state, at.ends(a), at.own_states(here), kElements, 0, 0, thread, true);
    } else {
      steps.free();
      steps.read();
    }
    steps.done();
  }
  steps.end();
}

template <bool kKeySide, bool kGrouped, bool kLayer, int kHalf, int kCluster, int kWidth>
__device__ __forceinline__ void out_role(const ReverseSweep& a, Shared<kWidth>& x,
                                         const Place<kGrouped, kHalf, kCluster>& at, int thread) {
  constexpr int kGroups = OutState<kWidth>::kGroups;
  constexpr int kElements = 2 * kWidth * kSlots;
  const int first = at.rank * kWidth, n = uniform(at.line.steps);
  const int64_t stride = kLayer ? a.slope.stride : a.HQ * a.width;
  const RolePlaces<kHow> places(thread);
  const RolePlace& place = places.first();
  Cursor<true> next(at.line);
  const auto load_raw = [&] {
    if (!kLayer || thread != 0) return;
    expect_bytes(&x.raw_ready, kWidth / kTile * kTileBytes);
    load_step<kWidth>(x.raw, a.slope.map, next.here.head * a.width + first, next.here.row, &x.raw_ready);
  };
  OutState<kWidth> state;
  const Steps<kCluster> steps;
  if (n > 0) load_raw();
  for (int step = 0; step < n + 2; ++step) {
    const int i = step - 1;
    if (i >= 0 && i < n) {
      const Location here = next.here;
      next.advance();
      if (uniform(here.step == here.start))
        begin_piece<kOutBarrier>(state, at.ends(a), at.own_states(here), kElements, kWidth * kSlots, 1,
                                 thread);
      if constexpr (kKeySide) {
        wait_barrier(&x.anchor_ready[i % 2], i / 2 % 2);
        store_flow(state, x.anchor[i % 2], a.flow + (at.anchor(here, a.HQ, here.head) * 5 + 1) * kSlots,
                   thread);
      }
      const int rows = min(here.rows, kStep);
      bf16* d_o = x.write[i % 2];
      wait_barrier(&x.write_ready[i % 2], i / 2 % 2);
      if constexpr (kLayer && kKeySide) wait_barrier(&x.active[i % 2], i / 2 % 2);
      if (thread == 0) wait_stores_read();  // outputs of the step before
      named_sync<kOutBarrier, kRole>();
      wait_barrier(&x.prepared[i % 2], i / 2 % 2);
      if (thread == 0) expect_bytes(&x.prepared[i % 2], kPreparedBytes);
      publish_shared();
      if constexpr (kLayer) wait_barrier(&x.raw_ready, i % 2);
      steps.free();
      if (uniform(rows < kStep)) named_sync<kRowsBarrier, 2 * kRole>();  // the in role clears them
      const StepRows<kHow, false> slots(x.slots[i % 2]);
      const StepRows<kHow, true> strengths(x.strengths[i % 2]);
      const int turn = index<kHow>(i % 2);
      const float* decays = x.decay[turn][0];
#pragma unroll 1
      for (int sub = kSubs - 1; sub >= 0; --sub) {
        float acc[kGroups][2][4];
        state.start(slots.block(sub), strengths.block(sub), decays,
                    {x.write[turn], x.weights[turn], sub, place}, sub, place, acc);
        state.answered(acc);
        if constexpr (kLayer) scale_by_slopes<kGroups>(acc, x.raw, sub, place);
        stage_rows<kGroups>(acc, x.out, sub, place);
        state.settle();
      }
      steps.read();
      store_step<kOutBarrier, kGroups, kStep, kHalf == 2>(
          x.out, a.out_map, here.head * a.width + first, here.row,
          a.out + here.row * stride + here.head * a.width + first, stride, rows, thread);
      if (i + 1 < n) load_raw();
      if (uniform(here.step + 1 == here.stop))
        end_piece<kOutBarrier>(state, at.ends(a), at.own_states(here), kElements, kWidth * kSlots, 1, thread,
                               false);
    } else {
      steps.free();
      steps.read();
    }
    steps.done();
  }
  steps.end();
  if (thread == 0) wait_stores();
}

// Makes the rows of a step while the other roles read those of the step before.
template <int kTogether, bool kKeySide, int kWidth>
__device__ __forceinline__ void activate_rows(Shared<kWidth>& x, int step, int thread) {
  wait_barrier(&x.read_ready[step % 2], step / 2 % 2);
  activate_step<kWidth, kTogether>(x.read[step % 2], thread);
  if constexpr (kKeySide) {  // on the other side do is written
    wait_barrier(&x.write_ready[step % 2], step / 2 % 2);
    activate_step<kWidth, kTogether>(x.write[step % 2], thread);
  }
  tell_active(&x.active[step % 2], thread);
}

template <SlotPart kPart, bool kKeySide, bool kGrouped, bool kLayer, int kHalf, int kCluster, int kWidth>
__device__ __forceinline__ void slot_role(const ReverseSweep& a, Shared<kWidth>& x,
                                          const Place<kGrouped, kHalf, kCluster>& at, int thread) {
  constexpr int kOwned = kSubs / kCluster;
  constexpr bool kStarts = kPart != SlotPart::ends, kEnds = kPart != SlotPart::starts,
                 kKeep = kOwned == 1 && kStarts && kEnds,  // as in the forward sweep
      // Last in a step, since its rows are on their way while the role makes what needs none.
      kActivates = kLayer && kPart == SlotPart::starts;
  const FragmentPlace place(thread, 0);
  // In global memory where raw rows have its place, and for the second of two roles, since both may need it
  // at once: room for each.
  constexpr bool kAway = kLayer || kPart == SlotPart::ends;
  const SlotBlock<kKeySide, kCluster> block{
      a, kAway ? a.slope.exact[2 * blockIdx.x + (kPart == SlotPart::ends)] : x.exact, place};
  const int n = uniform(at.line.steps);
  const auto rows_of_block = [&](const Location& to, int own, int64_t heads, int64_t head) {
    const int past = (at.rank * kOwned + own) * kSub;
    return RowBlock{(int64_t{to.row + past} * heads + head) * at.kSlotsOfHead + at.half * kSlots,
                    static_cast<unsigned>(heads) * at.kSlotsOfHead, min(max(to.rows - past, 0), kSub),
                    at.kSlotsOfHead};
  };
  Cursor<true, kPart == SlotPart::both> starting(at.line), ending(at.line);
  Decayed newer, older;
  Fragment new_g = {}, new_s = {}, g = {}, before = {};
  Strength<kKeySide> new_strength, strength;
  const auto load_new = [&](int own) {
    const RowBlock gates = rows_of_block(starting.here, own, at.kv_heads(a), starting.here.kv_head);
    load_fragment(new_g, a.g, gates, place);
    load_fragment(new_s, a.s, gates, place);
    new_strength.load(a, rows_of_block(starting.here, own, a.HQ, starting.here.head), place);
  };
  const auto load_old = [&](int own) {
    load_fragment(g, a.g, rows_of_block(ending.here, own, at.kv_heads(a), ending.here.kv_head), place);
    strength.load(a, rows_of_block(ending.here, own, a.HQ, ending.here.head), place);
  };
  const auto load_before = [&](int own) {
    if constexpr (kKeySide)
      load_fragment(before, a.ds, rows_of_block(ending.here, own, a.HQ, ending.here.head), place);
  };
  const Steps<kCluster> steps;
  if (n > 0) {
    if constexpr (kStarts) load_new(0);
    if constexpr (kEnds && !kKeep) load_old(0);
    if constexpr (kEnds) load_before(0);
  }
  for (int step = 0; step < n + 2; ++step) {
    const int c = step - 2;
    const bool starts = kStarts && step < n, ends = kEnds && c >= 0;
    if (ends) {
      wait_barrier(&x.partial_ready[c % 2], c / 2 % 2);
      if (thread == 0) expect_bytes(&x.partial_ready[c % 2], kPartialBytes);
    }
    steps.free();
    if (!kActivates && !ends) steps.read();
#pragma unroll 1
    for (int own = 0; own < kOwned; ++own) {
      const int sub = at.rank * kOwned + own;
      if (ends) {
        const RowBlock gates = rows_of_block(ending.here, own, at.kv_heads(a), ending.here.kv_head),
                       rows = rows_of_block(ending.here, own, a.HQ, ending.here.head);
        if (own + 1 == kOwned) ending.advance();
        if constexpr (!kKeep) {
          const Fragment none = {};
          Fragment p;
          strength.get(p);
          older = Decayed(GateSums(g, place), p, none);
          if (ending.inside()) load_old((own + 1) % kOwned);
        }
        block.finish(older, x.partial[c % 2][own * kCluster], x.pairs[c % 2][own * kCluster], before, gates,
                     rows);
        if (own + 1 == kOwned) steps.read();
      }
      if constexpr (kKeep) older = newer;
      if (starts) {
        const GateSums sums(new_g, place);
        Fragment new_p;
        new_strength.get(new_p);
        newer = Decayed(sums, new_p, new_s);
        block.prepare(newer, sums, new_g, new_s, new_p, x.work[(step * kOwned + own) % 2],
                      x.strengths[step % 2] + sub * kSubTile, x.slots[step % 2] + sub * kSubTile,
                      x.decay[step % 2][sub], x.weights[step % 2] + sub * kSub * kWeightPitch,
                      &x.prepared[step % 2]);
        if (own + 1 == kOwned) starting.advance();
      }
      // Last, so that nothing above waits for them.
      if (ends && ending.inside()) load_before((own + 1) % kOwned);
      if (starts && starting.inside()) load_new((own + 1) % kOwned);
    }
    if constexpr (kActivates) {
      if (starts) activate_rows<4, kKeySide, kWidth>(x, step, thread);
      steps.read();
    }
    steps.done();
  }
  steps.end();
}

template <bool kKeySide, bool kGrouped, int kHalf, int kCluster, int kWidth>
__device__ __forceinline__ void activate_role(Shared<kWidth>& x, const Place<kGrouped, kHalf, kCluster>& at,
                                              int thread) {
  const int n = uniform(at.line.steps);
  const Steps<kCluster> steps;
  for (int step = 0; step < n + 2; ++step) {
    steps.free();
    if (step < n) activate_rows<2, kKeySide, kWidth>(x, step, thread);
    steps.read();
    steps.done();
  }
  steps.end();
}

template <bool kKeySide, bool kGrouped, bool kLayer, int kHalf, int kCluster, int kWidth>
__global__ void __launch_bounds__(kThreadsOf<kLayer || kSplitReverse<kLayer, kKeySide, kCluster>>, 1)
    reverse_sweep_kernel(const __grid_constant__ ReverseSweep a) {
  if (kCluster == 1 && blockIdx.x >= a.clusters) return;
  auto& x = *reinterpret_cast<Shared<kWidth>*>(block_memory());
  const Place<kGrouped, kHalf, kCluster> at(a);
  // From one lane, so that the compiler sees whole warps take a branch: products of warpgroups need it.
  const int role = __shfl_sync(~0u, threadIdx.x / kRole, 0), thread = threadIdx.x % kRole;
  if (threadIdx.x == 0) start_barriers(x);
  __syncthreads();           // the next line is enough, but racecheck has once not seen that
  cluster_sync<kCluster>();  // every block runs, its barriers with it, before any stores into another
  constexpr bool kSplit = kSplitReverse<kLayer, kKeySide, kCluster>;
  if constexpr (kLayer && !kSplit) {
    if (role == 3) {
      take_registers<kActivateRegisters>();
      return activate_role<kKeySide, kGrouped, kHalf, kCluster, kWidth>(x, at, thread);
    }
    take_registers<kBesideActivateRegisters>();
  }
  constexpr RoleRegisters kRegisters = reverse_registers(kLayer, kCluster);
  if (role == 0) {
    if constexpr (kSplit) take_registers<kRegisters.beside>();
    in_role<kKeySide, kGrouped, kLayer, kHalf, kCluster, kWidth>(a, x, at, thread);
  } else if (role == 1) {
    if constexpr (kSplit) take_registers<kRegisters.beside>();
    out_role<kKeySide, kGrouped, kLayer, kHalf, kCluster, kWidth>(a, x, at, thread);
  } else if constexpr (!kSplit) {
    slot_role<SlotPart::both, kKeySide, kGrouped, kLayer, kHalf, kCluster, kWidth>(a, x, at, thread);
  } else if (role == 2) {
    take_registers<kRegisters.starts>();
    slot_role<SlotPart::starts, kKeySide, kGrouped, kLayer, kHalf, kCluster, kWidth>(a, x, at, thread);
  } else {
    take_registers<kRegisters.ends>();
    slot_role<SlotPart::ends, kKeySide, kGrouped, kLayer, kHalf, kCluster, kWidth>(a, x, at, thread);
  }
}

template <bool kKeySide, bool kGrouped, bool kLayer, int kHalf, int kCluster, int kWidth>
void launch(gsa_device& device, Lines& lines, ReverseSweep& a) {
  constexpr int kBytes = sizeof(Shared<kWidth>);
  static_assert(kBytes <= 227 * 1024, "a block must fit a multiprocessor");
  SegmentPass pass{{a.documents, a.T, a.N, a.HQ, a.HQ / a.H},
                   a.H,
                   a.HQ,
                   a.g,
                   a.strength,
                   kKeySide ? nullptr : a.norm,
                   a.write_map,
                   a.write_map,
                   a.width,
                   a.width,
                   a.ends,
                   kLayer && kKeySide};
  constexpr bool kAway = kLayer || kSplitReverse<kLayer, kKeySide, kCluster>;  // as in slot_role
  const cuda::Scratch exact(device, kAway ? 2 * device.multiprocessors * sizeof(ExactWork) : 0);
  a.slope.exact = exact.as<ExactWork>();
  launch_sweep<true, kCluster, kThreadsOf<kLayer || kSplitReverse<kLayer, kKeySide, kCluster>>>(
      device, lines, reverse_sweep_kernel<kKeySide, kGrouped, kLayer, kHalf, kCluster, kWidth>, kBytes,
      2 * kWidth * kSlots, kHalf == 0, a, pass);
}

template <bool kKeySide, bool kGrouped, bool kLayer, int kHalf>
void launch_side(gsa_device& device, Lines& lines, ReverseSweep& a, int cluster) {
  const int64_t slice = a.width / cluster;
  if (cluster == 4 && slice == 128)
    return launch<kKeySide, kGrouped, kLayer, kHalf, 4, 128>(device, lines, a);
  if (cluster == 2 && slice == 128)
    return launch<kKeySide, kGrouped, kLayer, kHalf, 2, 128>(device, lines, a);
  if (cluster == 1 && slice == 128)
    return launch<kKeySide, kGrouped, kLayer, kHalf, 1, 128>(device, lines, a);
  if (cluster == 1 && slice == 64) return launch<kKeySide, kGrouped, kLayer, kHalf, 1, 64>(device, lines, a);
  fail(GSA_INTERNAL, "No reverse sweep for width %lld in %d blocks", static_cast<long long>(a.width),
       cluster);
}

}  // namespace

void launch_reverse_sweep(gsa_device& device, Lines& lines, const ReverseSweep& sweep, int cluster,
                          bool key_side) {
  if (sweep.N == 0 || sweep.rows == 0) return;
  ReverseSweep a = sweep;
  const int64_t raw = a.slope.stride;
  a.read_map = cuda::tensor_map(a.read, a.rows, a.H * a.width, kStep, raw);
  a.write_map = cuda::tensor_map(a.write, a.rows, a.HQ * a.width, kStep, key_side ? raw : 0);
  a.out_map = cuda::tensor_map(a.out, a.rows, a.HQ * a.width, kStep, a.slope.stride);
  const auto launch_for = [&](auto launch_key, auto launch_value) {
    key_side ? launch_key(device, lines, a, cluster) : launch_value(device, lines, a, cluster);
  };
  if (a.slope.raw) {
    a.slope.map = a.read_map;
    launch_for(launch_side<true, false, true, 0>, launch_side<false, false, true, 0>);
  } else if (a.halves == 2 && a.half == 0) {
    launch_for(launch_side<true, false, false, 1>, launch_side<false, false, false, 1>);
  } else if (a.halves == 2) {
    launch_for(launch_side<true, false, false, 2>, launch_side<false, false, false, 2>);
  } else if (a.HQ == a.H) {
    launch_for(launch_side<true, false, false, 0>, launch_side<false, false, false, 0>);
  } else {
    launch_for(launch_side<true, true, false, 0>, launch_side<false, true, false, 0>);
  }
}

}  // namespace gsa::sm90
