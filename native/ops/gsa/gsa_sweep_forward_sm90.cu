// The sweep in the direction of time. Step i of a block: the slot role prepares the gates of step i, the `in`
// role contracts the rows of step i - 1, the slot role finishes the logits of step i - 2, the `out` role
// makes the outputs of step i - 3.
//
// kHalves = 2: 128 slots, whose halves have kCluster blocks each (sweep_halves_sm90.cuh).
#include "sweep_forward_block_sm90.cuh"
#include "sweep_forward_slots_sm90.cuh"
#include "sweep_launch_sm90.cuh"

namespace gsa::sm90 {
namespace {

// Where the states of a block after a step are stored; the query heads of a group have the same.
template <bool kGrouped, int kIn, int kOut, int kHalves, int kCluster>
__device__ __forceinline__ bf16* anchor(const ForwardSweep& a, const Place<kHalves, kCluster>& at,
                                        const Location& x) {
  const int64_t n = first_anchor(x.row - x.chunk * kStep, x.sequence) + x.chunk;
  const int64_t place = kGrouped ? n * a.H + x.kv_head : n * a.HQ + x.head;
  return a.anchors + (place * at.kBlocks + at.half * kCluster + at.rank) * anchor_elements(kIn, kOut);
}

template <bool kBackward, bool kLayer, int kHalves>
constexpr Addresses kInAddresses = kBackward                ? Addresses::again
                                   : kLayer || kHalves == 2 ? Addresses::made
                                                            : Addresses::hoisted;
template <bool kBackward, bool kLayer, int kHalves>
constexpr Addresses kOutAddresses = kHalves == 2 ? Addresses::kept : kInAddresses<kBackward, kLayer, kHalves>;

template <bool kBackward, bool kGrouped, bool kLayer, int kHalves, int kCluster, int kIn, int kOut>
__device__ __forceinline__ void in_role(const ForwardSweep& a, Memory<kHalves, kIn, kOut>& x,
                                        const Place<kHalves, kCluster>& at, int thread) {
  constexpr int kElements = (kIn + kOut) * kSlots, kOwned = kSubs / kCluster;
  constexpr bool kPairs = !kPairsBeside<kLayer, kBackward, kHalves, kCluster>;
  constexpr Addresses kHow = kInAddresses<kBackward, kLayer, kHalves>;
  const int warp = thread / 32, first = at.rank * kIn, n = uniform(at.line.steps);
  const RolePlaces<kHow> places(thread);
  Cursor<false> next(at.line);
  const auto load = [&](int i) {
    if (thread != 0) return;
    uint64_t* ready = &x.rows_ready[i % 2];
    expect_bytes(ready, 2 * kIn / kTile * kTileBytes);
    load_step<kIn>(x.reading[i % 2], a.in_read_map, next.here.head * a.in_width + first, next.here.row,
                   ready);
    load_step<kIn>(x.writing[i % 2], a.in_write_map, next.here.kv_head * a.in_width + first, next.here.row,
                   ready);
  };
  InState<kIn> state;
  if (n > 0) load(0);
  const Steps<kHalves * kCluster> steps;
  for (int step = 0; step < n + 3; ++step) {
    const int i = step - 1;
    if (i >= 0 && i < n) {
      const Location here = next.here;
      next.advance();
      if (uniform(here.step == here.start))
        begin_piece<kInBarrier>(state, at.ends(a), here, kElements, 0, 0, thread);
      bf16 *q = x.reading[i % 2], *k = x.writing[i % 2];
      // In the backward do is as it came, and the raw rows beside it are not.
      if constexpr (!kLayer || kBackward) wait_barrier(&x.rows_ready[i % 2], i / 2 % 2);
      if constexpr (kLayer) wait_barrier(&x.rows_active[i % 2], i / 2 % 2);
      wait_barrier(&x.strengths_ready[i % 4], i / 4 % 2);
      if (thread == 0) expect_bytes(&x.strengths_ready[i % 4], kTileBytes + kDecayBytes);
      steps.free();
      if (i + 1 < n) load(i + 1);
      if (uniform(here.rows < kStep)) {
        if constexpr (kPairs) {
          clear_rows<kIn>(q, here.rows, thread);
          clear_rows<kIn>(k, here.rows, thread);
          publish_shared();
          named_sync<kInBarrier, kRole>();
        } else {
          named_sync<kRowsBarrier, 2 * kRole>();  // who makes the pairs clears them
        }
      }
      const StepRows<kHow, false> q_rows(q);
      const StepRows<kHow, true> k_rows(k);
      const bf16* strengths = x.strengths[i % 4];
      const float* decays = x.decay[i % 4][0];
      uint64_t* ready = &x.partial_ready[i % 2];
      Pairs<kIn> pairs;
#pragma unroll 1
      for (int sub = 0; sub < kSubs; ++sub) {
        float out[2][4];
        const RolePlace place = places.here();
        state.start(q_rows.block(sub), k_rows.block(sub), {strengths, decays, sub, place}, out);
        if constexpr (kPairs) pairs.add(q, k, pair_place<kHow>(place.warp, place.lane), sub);
        state.answered(out);
        send_partial<kCluster>(out, x.partial[i % 2][sub % kOwned * kCluster + at.rank], ready,
                               at.half * kCluster + sub / kOwned, thread);
        state.settle();
      }
      steps.read();
      if constexpr (kPairs)
        pairs.template send<kCluster>(x.pairs[i % 2][warp % kOwned * kCluster + at.rank], ready,
                                      at.half * kCluster + warp / kOwned, thread % 32);
      if (kBackward && (!kGrouped || uniform(here.head == here.kv_head * a.group)))
        store_anchor(state, anchor<kGrouped, kIn, kOut>(a, at, here), thread);
      if (uniform(here.step + 1 == here.stop))
        end_piece<kInBarrier>(state, at.ends(a), here, kElements, 0, 0, thread,
                              here.head == here.kv_head * a.group);
    } else {
      steps.free();
      steps.read();
    }
    steps.done();
  }
  steps.end();
}

template <bool kBackward, bool kGrouped, bool kLayer, int kHalves, int kCluster, int kIn, int kOut>
__device__ __forceinline__ void out_role(const ForwardSweep& a, Memory<kHalves, kIn, kOut>& x,
                                         const Place<kHalves, kCluster>& at, int thread) {
  constexpr int kGroups = OutState<kOut>::kGroups, kElements = (kIn + kOut) * kSlots;
  const int first = at.rank * kOut, n = uniform(at.line.steps);
  constexpr bool kSlopes = kLayer && kBackward;
  const int64_t stride = kSlopes ? a.slope.stride : a.HQ * a.out_width;
  constexpr Addresses kHow = kOutAddresses<kBackward, kLayer, kHalves>;
  const RolePlaces<kHow> places(thread);
  Cursor<false> next(at.line);
  const auto load = [&](int i) {
    if (thread != 0) return;
    uint64_t* ready = &x.values_ready[i % 2];
    wait_stores_read();  // outputs of the step before
    expect_bytes(ready, kOut / kTile * kTileBytes);
    load_step<kOut>(x.values[i % 2], a.values_map, next.here.kv_head * a.out_width + first, next.here.row,
                    ready);
  };
  const auto load_raw = [&] {
    if constexpr (kSlopes) {
      if (thread != 0) return;
      expect_bytes(&x.raw_ready, kOut / kTile * kTileBytes);
      load_step<kOut>(x.rare.raw, a.slope.map, next.here.head * a.out_width + first, next.here.row,
                      &x.raw_ready);
    }
  };
  // The outputs of step i leave. With two halves that is a step later, when the partner's share has come.
  const auto finish = [&](const Location& there, int i) {
    constexpr int kRows = kStep / kHalves;  // that the block finishes
    const int rows = min(there.rows, kStep), past = at.half * kRows;
    bf16* v = x.values[i % 2];
    if constexpr (kHalves == 2) add_outputs<kBackward, kGroups>(v, x.halves, at.half, i, thread);
    store_step<kOutBarrier, kGroups, kRows>(
        v + past * kTile, a.out_map, there.head * a.out_width + first, there.row + past,
        a.out + (there.row + past) * stride + there.head * a.out_width + first, stride,
        kHalves == 1 ? rows : min(rows - past, kRows), thread);
    // Rows that no box has stored have been read, too, before others are loaded over them.
    if (kHalves == 2 && uniform(rows - past < kRows)) named_sync<kOutBarrier, kRole>();
  };
  Location last;
  OutState<kOut> state;
  if (n > 0) load(0), load_raw();
  const Steps<kHalves * kCluster> steps;
  for (int step = 0; step < n + 3; ++step) {
    const int i = step - 3;
    if (i >= 0 && i < n) {
      const Location here = next.here;
      next.advance();
      if (uniform(here.step == here.start))
        begin_piece<kOutBarrier>(state, at.ends(a), here, kElements, kIn * kSlots, 1, thread);
      const int rows = min(here.rows, kStep);
      bf16* v = x.values[i % 2];
      wait_barrier(kLayer ? &x.values_active[i % 2] : &x.values_ready[i % 2], i / 2 % 2);
      wait_barrier(&x.slots_ready[i % 2], i / 2 % 2);
      if (thread == 0) expect_bytes(&x.slots_ready[i % 2], kTileBytes + kWeightBytes);
      wait_barrier(&x.strengths_ready[i % 4], i / 4 % 2);
      publish_shared();
      if constexpr (kSlopes) wait_barrier(&x.raw_ready, i % 2);
      steps.free();
      if (kHalves == 2 && i > 0) finish(last, i - 1);
      if (uniform(rows < kStep)) {
        clear_rows<kOut>(v, rows, thread);
        named_sync<kOutBarrier, kRole>();
      }
      const StepRows<kHow, false> slots(x.slots[i % 2]);
      const StepRows<kHow, true> strengths(x.strengths[i % 4]);
      const float* decays = x.decay[index<kHow>(i % 4)][0];
      const int turn = index<kHow>(i % 2);
      bf16* staged = x.values[turn];
#pragma unroll 1
      for (int sub = 0; sub < kSubs; ++sub) {
        float acc[kGroups][2][4];
        const RolePlace place = places.here();
        state.start(slots.block(sub), strengths.block(sub), decays, {staged, x.weights[turn], sub, place},
                    sub, place, acc);
        if (sub == kHalves && i + 1 < n) load(i + 1);
        state.answered(acc);
        if constexpr (kSlopes) scale_by_slopes<kGroups>(acc, x.rare.raw, sub, place);
        stage_rows<kGroups>(acc, staged, sub, place);
        if constexpr (kHalves == 2) send_outputs<kGroups>(v, x.halves, at.half, at.partner(), i, sub, thread);
        state.settle();
      }
      if constexpr (kHalves == 1) finish(here, i);
      if constexpr (kHalves == 2) last = here;
      if (i + 1 < n) load_raw();
      steps.read();
      if (kBackward && (!kGrouped || uniform(here.head == here.kv_head * a.group)))
        store_anchor(state, anchor<kGrouped, kIn, kOut>(a, at, here) + kIn * kSlots, thread);
      if (uniform(here.step + 1 == here.stop))
        end_piece<kOutBarrier>(state, at.ends(a), here, kElements, kIn * kSlots, 1, thread,
                               here.head == here.kv_head * a.group);
    } else {
      steps.free();
      steps.read();
    }
    steps.done();
  }
  if (kHalves == 2 && n > 0) finish(last, n - 1);
  steps.end();
  if (thread == 0) wait_stores();
}

// Makes the rows of a step while the in role reads those of the step before, and the values while the out
// role does.
template <int kTogether, bool kBackward, int kIn, int kOut>
__device__ __forceinline__ void activate_rows(Memory<1, kIn, kOut>& x, int step, int n, int thread) {
  if (step < n) {
    wait_barrier(&x.rows_ready[step % 2], step / 2 % 2);
    if constexpr (!kBackward) activate_step<kIn, kTogether>(x.reading[step % 2], thread);
    activate_step<kIn, kTogether>(x.writing[step % 2], thread);
    tell_active(&x.rows_active[step % 2], thread);
  }
  const int i = step - 2;
  if (i >= 0 && i < n) {
    wait_barrier(&x.values_ready[i % 2], i / 2 % 2);
    activate_step<kOut, kTogether>(x.values[i % 2], thread);
    tell_active(&x.values_active[i % 2], thread);
  }
}

template <SlotPart kPart, bool kBackward, bool kGrouped, bool kLayer, int kHalves, int kCluster, int kIn,
          int kOut>
__device__ __forceinline__ void slot_role(const ForwardSweep& a, Memory<kHalves, kIn, kOut>& x,
                                          const Place<kHalves, kCluster>& at, int thread) {
  constexpr int kOwned = kSubs / kCluster;
  // With one block of rows a step, its decays stay in registers until its logits come, two steps later; with
  // more, or in another role, they are made again.
  constexpr bool kStarts = kPart != SlotPart::ends, kEnds = kPart != SlotPart::starts,
                 kKeep = kOwned == 1 && kStarts && kEnds;
  const FragmentPlace place(thread, at.half * kCluster);
  ExactWork* exact;
  if constexpr (exact_is_away(kLayer, kBackward, kHalves))
    exact = a.slope.exact + blockIdx.x;
  else
    exact = &x.rare.exact;
  const SlotBlock<kBackward, kHalves, kCluster> block{a, x.work, *exact, place};
  const int n = uniform(at.line.steps);
  // The block of rows `own` of a step that this block of threads has.
  const auto rows_of_block = [&](const Location& to, int own, int64_t heads, int64_t head) {
    const int past = (at.rank * kOwned + own) * kSub;
    return RowBlock{(int64_t{to.row + past} * heads + head) * at.kSlotsOfHead + at.half * kSlots,
                    static_cast<unsigned>(heads) * at.kSlotsOfHead, min(max(to.rows - past, 0), kSub),
                    at.kSlotsOfHead};
  };
  // The first of two roles makes the pairs of the rows that the in role reads.
  constexpr bool kPairs = kStarts && kPairsBeside<kLayer, kBackward, kHalves, kCluster>,
                 kActivates = kLayer && kPart == SlotPart::starts;
  int rows_before = 0;
  Cursor<false, kGrouped || (kBackward && kHalves == 2)> starting(at.line), ending(at.line);
  Decayed newer, older;
  Fragment new_g = {}, new_s = {}, g = {}, s = {};
  Saved saved;
  const auto load_new = [&](int own) {
    const RowBlock rows = rows_of_block(starting.here, own, a.H, starting.here.kv_head);
    load_fragment(new_g, a.g, rows, place);
    load_fragment(new_s, a.s, rows, place);
  };
  const auto load_old = [&](int own) {
    const RowBlock rows = rows_of_block(ending.here, own, a.H, ending.here.kv_head);
    load_fragment(g, a.g, rows, place);
    load_fragment(s, a.s, rows, place);
  };
  const auto load_ok = [&](int own) {
    if constexpr (kBackward) saved.load(a, rows_of_block(ending.here, own, a.HQ, ending.here.head), place);
  };
  const Steps<kHalves * kCluster> steps;
  // What the next block of rows needs is loaded as soon as the registers are free.
  if (n > 0) {
    if constexpr (kStarts) load_new(0);
    if constexpr (kEnds && !kKeep) load_old(0);
    if constexpr (kEnds) load_ok(0);
  }
  for (int step = 0; step < n + 3; ++step) {
    const int c = step - 2;
    const bool starts = kStarts && step < n, ends = kEnds && c >= 0 && c < n;
    if (ends) {
      wait_barrier(&x.partial_ready[c % 2], c / 2 % 2);
      if (thread == 0) expect_bytes(&x.partial_ready[c % 2], kPartialBytes);
    }
    steps.free();
    if (!kPairs && !kActivates && !ends) steps.read();
    const int rows_here = starting.here.rows, read = step - 1;  // the step whose rows the in role reads
    const bool reads = kPairs && read >= 0 && read < n;
#pragma unroll 1
    for (int own = 0; own < kOwned; ++own) {
      const int sub = at.rank * kOwned + own;
      const auto send_gates = [&](const GateSums& sums) {
        block.send_gates(sums, new_s, x.strengths[step % 4] + sub * kSubTile, x.decay[step % 4][sub],
                         &x.strengths_ready[step % 4]);
      };
      if (ends) {
        const RowBlock gates = rows_of_block(ending.here, own, a.H, ending.here.kv_head),
                       rows = rows_of_block(ending.here, own, a.HQ, ending.here.head);
        if (own + 1 == kOwned) ending.advance();
        if constexpr (!kKeep) {
          older = Decayed(GateSums(g, place), s);
          if (ending.inside()) load_old((own + 1) % kOwned);
        }
        Fragment z;
        block.read_rows(older, x.partial[c % 2][own * kCluster], x.pairs[c % 2][own * kCluster], gates, z);
        if (own + 1 == kOwned) steps.read();
        const auto meanwhile = [&] {
          if (starts) send_gates(GateSums(new_g, place));
        };
        if constexpr (kHalves == 1)
          block.answer_rows(z, saved, rows, OtherMeans<1, kOut, int>());
        else
          block.answer_rows(
              z, saved, rows,
              OtherMeans<2, kOut, decltype(meanwhile)>{x.halves, at.partner(), c * kOwned + own, meanwhile});
        if constexpr (!kBackward && kHalves == 2)
          send_sums(saved.sums, x.halves, at.half, at.partner(), c, sub, place);
        if constexpr (kBackward) {
          store_fragment(z, a.dok, rows, place);
          store_fragment(saved.ok, a.flow, rows, place);
          if (ending.inside()) load_ok((own + 1) % kOwned);
        }
        block.send_rows(older, z, gates, x.slots[c % 2] + sub * kSubTile,
                        x.weights[c % 2] + sub * kSub * kWeightPitch, &x.slots_ready[c % 2]);
      }
      if constexpr (kKeep) older = newer;
      if (starts) {
        const GateSums sums(new_g, place);
        if (!kBackward || kHalves == 1 || !ends) send_gates(sums);
        if constexpr (kKeep) newer = Decayed(sums, new_s);
        if (own + 1 == kOwned) starting.advance();
      }
      // Last, so that nothing above waits for them.
      if (starts && starting.inside()) load_new((own + 1) % kOwned);
      if constexpr (!kBackward && kHalves == 2)
        if (ends && sub / (kSubs / 2) == at.half) send_factors<kCluster>(x.halves, c, sub, place);
    }
    if constexpr (kPairs || kActivates) {
      Pairs<kIn> pairs;
      if (reads) {
        if constexpr (!kLayer) wait_barrier(&x.rows_ready[read % 2], read / 2 % 2);
        if (uniform(rows_before < kStep)) {
          // By the warps that read them for the pairs, so that nobody else's ordinary accesses meet these.
          clear_block<kIn>(x.reading[read % 2], rows_before, place.warp, place.lane);
          clear_block<kIn>(x.writing[read % 2], rows_before, place.warp, place.lane);
          publish_shared();
          named_sync<kRowsBarrier, 2 * kRole>();
        }
        pairs.add(x.reading[read % 2], x.writing[read % 2],
                  pair_place<Addresses::hoisted>(place.warp, place.lane));
      }
      // Last, since rows of the step are on their way while the role makes what needs none.
      if constexpr (kActivates) activate_rows<4, kBackward, kIn, kOut>(x, step, n, thread);
      steps.read();
      if (reads)
        pairs.template send<kCluster>(x.pairs[read % 2][place.warp % kOwned * kCluster + at.rank],
                                      &x.partial_ready[read % 2], at.half * kCluster + place.warp / kOwned,
                                      place.lane);
      rows_before = rows_here;
    }
    steps.done();
  }
  steps.end();
}

template <bool kBackward, int kCluster, int kIn, int kOut>
__device__ __forceinline__ void activate_role(Memory<1, kIn, kOut>& x, const Place<1, kCluster>& at,
                                              int thread) {
  const int n = uniform(at.line.steps);
  const Steps<kCluster> steps;
  for (int step = 0; step < n + 3; ++step) {
    steps.free();
    activate_rows<2, kBackward, kIn, kOut>(x, step, n, thread);
    steps.read();
    steps.done();
  }
  steps.end();
}

template <bool kBackward, bool kGrouped, bool kLayer, int kHalves, int kCluster, int kIn, int kOut>
__global__ void __launch_bounds__(kThreadsOf<kLayer || kSplitForward<kLayer, kHalves, kCluster>>, 1)
    forward_sweep_kernel(const __grid_constant__ ForwardSweep a) {
  if (kHalves * kCluster == 1 && blockIdx.x >= a.clusters) return;
  auto& x = *reinterpret_cast<Memory<kHalves, kIn, kOut>*>(block_memory());
  const Place<kHalves, kCluster> at(a);
  // From one lane, so that the compiler sees whole warps take a branch: products of warpgroups need it.
  const int role = __shfl_sync(~0u, threadIdx.x / kRole, 0), thread = threadIdx.x % kRole;
  if (threadIdx.x == 0) start_barriers<kBackward, kHalves, kIn, kOut>(x);
  __syncthreads();  // the next line is enough, but racecheck has once not seen that
  cluster_sync<kHalves *
               kCluster>();  // every block runs, its barriers with it, before any stores into another
  constexpr bool kSplit = kSplitForward<kLayer, kHalves, kCluster>;
  if constexpr (kLayer && !kSplit) {
    if (role == 3) {
      take_registers<kActivateRegisters>();
      return activate_role<kBackward, kCluster, kIn, kOut>(x, at, thread);
    }
    take_registers<kBesideActivateRegisters>();
  }
  constexpr RoleRegisters kRegisters = forward_registers(kLayer, kBackward, kCluster);
  if (role == 0) {
    if constexpr (kSplit) take_registers<kRegisters.beside>();
    in_role<kBackward, kGrouped, kLayer, kHalves, kCluster, kIn, kOut>(a, x, at, thread);
  } else if (role == 1) {
    if constexpr (kSplit) take_registers<kRegisters.beside>();
    out_role<kBackward, kGrouped, kLayer, kHalves, kCluster, kIn, kOut>(a, x, at, thread);
  } else if constexpr (!kSplit) {
    slot_role<SlotPart::both, kBackward, kGrouped, kLayer, kHalves, kCluster, kIn, kOut>(a, x, at, thread);
  } else if (role == 2) {
    take_registers<kRegisters.starts>();
    slot_role<SlotPart::starts, kBackward, kGrouped, kLayer, kHalves, kCluster, kIn, kOut>(a, x, at, thread);
  } else {
    take_registers<kRegisters.ends>();
    slot_role<SlotPart::ends, kBackward, kGrouped, kLayer, kHalves, kCluster, kIn, kOut>(a, x, at, thread);
  }
}

template <bool kBackward, bool kGrouped, bool kLayer, int kHalves, int kCluster, int kIn, int kOut>
void launch(gsa_device& device, Lines& lines, ForwardSweep& a) {
  constexpr int kBytes = sizeof(Memory<kHalves, kIn, kOut>);
  static_assert(kBytes <= 227 * 1024, "a block must fit a multiprocessor");
  SegmentPass pass{{a.documents, a.T, a.N, a.HQ, a.group},
                   a.H,
                   a.H,
                   a.g,
                   a.s,
                   nullptr,
                   a.in_write_map,
                   a.values_map,
                   a.in_width,
                   a.out_width,
                   a.ends,
                   kLayer};
  constexpr bool kAway = exact_is_away(kLayer, kBackward, kHalves);
  const cuda::Scratch exact(device, kAway ? device.multiprocessors * sizeof(ExactWork) : 0);
  a.slope.exact = exact.as<ExactWork>();
  launch_sweep<false, kHalves * kCluster, kThreadsOf<kLayer || kSplitForward<kLayer, kHalves, kCluster>>>(
      device, lines, forward_sweep_kernel<kBackward, kGrouped, kLayer, kHalves, kCluster, kIn, kOut>, kBytes,
      (kIn + kOut) * kSlots, kHalves == 1, a, pass);
}

// `kGrouped`: backward, for fewer key/value heads than query heads. `kLayer`: for as many, of raw
// projections; backward: with dq the gradient of one. `kHalves`: 2 for 128 slots, without either.
template <bool kBackward, bool kGrouped, bool kLayer, int kHalves>
void launch_direction(gsa_device& device, Lines& lines, ForwardSweep& a) {
  const int64_t in = a.in_width, out = a.out_width;
  if (in == 512 && out == 512)
    return launch<kBackward, kGrouped, kLayer, kHalves, 4, 128, 128>(device, lines, a);
  if (in == 256 && out == 256)
    return launch<kBackward, kGrouped, kLayer, kHalves, 2, 128, 128>(device, lines, a);
  if (in == 128 && out == 128)
    return launch<kBackward, kGrouped, kLayer, kHalves, 1, 128, 128>(device, lines, a);
  if (in == 64 && out == 64) return launch<kBackward, kGrouped, kLayer, kHalves, 1, 64, 64>(device, lines, a);
  fail(GSA_INTERNAL, "No sweep for widths %lld and %lld", static_cast<long long>(in),
       static_cast<long long>(out));
}

}  // namespace

void launch_forward_sweep(gsa_device& device, Lines& lines, const ForwardSweep& sweep, bool backward) {
  if (sweep.N == 0 || sweep.rows == 0) return;
  ForwardSweep a = sweep;
  const int64_t raw = a.raw_stride;
  a.in_read_map = cuda::tensor_map(a.in_read, a.rows, a.HQ * a.in_width, kStep, backward ? 0 : raw);
  a.in_write_map = cuda::tensor_map(a.in_write, a.rows, a.H * a.in_width, kStep, raw);
  a.values_map = cuda::tensor_map(a.values, a.rows, a.H * a.out_width, kStep, raw);
  a.out_map = cuda::tensor_map(a.out, a.rows, a.HQ * a.out_width, kStep / a.halves, a.slope.stride);
  if (a.halves == 2)
    return backward ? launch_direction<true, false, false, 2>(device, lines, a)
                    : launch_direction<false, false, false, 2>(device, lines, a);
  if (!backward && raw) return launch_direction<false, false, true, 1>(device, lines, a);
  if (!backward) return launch_direction<false, false, false, 1>(device, lines, a);
  if (a.HQ != a.H) return launch_direction<true, true, false, 1>(device, lines, a);
  if (!raw) return launch_direction<true, false, false, 1>(device, lines, a);
  a.slope.map = cuda::tensor_map(a.slope.raw, a.rows, a.HQ * a.out_width, kStep, a.slope.stride);
  launch_direction<true, false, true, 1>(device, lines, a);
}

}  // namespace gsa::sm90
