// What the slot role of the sweep against time does with a block of rows.
#pragma once

#include "sweep_reverse_sm90.cuh"
#include "sweep_slots_sm90.cuh"

namespace gsa::sm90 {
namespace {

// What writes: p, from ok and the softmax's norm, or scale * dok.
template <bool kKeySide>
struct Strength {
  Fragment x = {};
  float norm[2][2] = {};
  __device__ __forceinline__ void load(const ReverseSweep& a, const RowBlock& rows, const FragmentPlace& at) {
    load_fragment(x, a.strength, rows, at);
    if constexpr (!kKeySide) load_norms(norm, a.norm, rows, at);
  }
  __device__ __forceinline__ void get(Fragment& p) const {
    each(
        [&](int n, int i) { p[n][i] = kKeySide ? x[n][i] : exp2_approx(kLog2E * x[n][i] - norm[n][i % 2]); });
  }
};

// What a block of rows needs of its gates: what writes (p or scale * dok) decayed from the start of the
// block, the inverse of that decay, and the decay of the whole block.
struct Decayed {
  Fragment late, inverse;
  float total[2];
  bool beyond;
  Decayed() = default;
  __device__ __forceinline__ Decayed(const GateSums& sums, const Fragment& p, const Fragment& s)
      : beyond(is_beyond(sums, s)) {
    each([&](int n, int i) {
      late[n][i] = p[n][i] * exp2_approx(sums.until[n][i]);
      inverse[n][i] = exp2_approx(-sums.until[n][i]);
    });
    total[0] = exp2_approx(sums.total[0]);
    total[1] = exp2_approx(sums.total[1]);
  }
};

// One block of rows in the hands of the slot role.
template <bool kKeySide, int kCluster>
struct SlotBlock {
  const ReverseSweep& a;
  ExactWork& exact;
  const FragmentPlace& at;

  // What the other roles need of the rows, to the whole cluster. Ends after a barrier.
  __device__ __forceinline__ void prepare(const Decayed& d, const GateSums& sums, const Fragment& g,
                                          const Fragment& s, const Fragment& p, SlotWork& w, bf16* strengths,
                                          bf16* slots, float* decay, bf16* weights, uint64_t* ready) const {
    Fragment early, tail;
    each([&](int n, int i) {
      early[n][i] = s[n][i] * d.inverse[n][i];
      tail[n][i] = s[n][i] * exp2_approx(sums.after[n][i]);
    });
    if (at.lane == 0) w.beyond[at.warp] = d.beyond;
    stage_fragment(d.late, w.late, at);
    stage_fragment(early, w.early, at);
    stage_fragment(tail, w.tail, at);
    __syncwarp();
    send_columns<kCluster>(w.late, strengths, ready, at);
    send_columns<kCluster>(w.tail, slots, ready, at);
    send_decay<kCluster>(sums.total, decay, ready, at);
    role_sync();
    const bool beyond = any_beyond(w);
    if (beyond) {
      keep_decays(g, exact, at);
      keep_exact(s, exact.early, at);
      keep_exact(p, exact.late, at);
      role_sync();
    }
    send_weights<true, kCluster>(w, exact, weights, ready, beyond, at);
    if (beyond) role_sync();  // the next block of rows may be one of these
  }

  // ds of the rows: what their slots give to later rows.
  __device__ __forceinline__ void finish(const Decayed& d, const float* partial, const float* pair_sums,
                                         const Fragment& before, const RowBlock& gates,
                                         const RowBlock& rows) const {
    Fragment past, pairs, ds;
    sum_partials<kCluster>(partial, at, past);
    sum_pairs<kCluster>(pair_sums, at, pairs);
    if (!d.beyond) {
      contract_pairs<true>(d.late, pairs, at, ds);
      each([&](int n, int i) {
        ds[n][i] = before[n][i] + d.inverse[n][i] * (ds[n][i] + d.total[i / 2] * past[n][i]);
      });
    } else {
      Fragment g, p;
      Strength<kKeySide> strength;
      load_fragment(g, a.g, gates, at);
      strength.load(a, rows, at);
      strength.get(p);
      keep_decays(g, exact, at);
      keep_exact(p, exact.late, at);
      contract_pairs_exactly<true>(exact, exact.late, pairs, at, ds);
      const GateSums sums(g, at);
      each([&](int n, int i) { ds[n][i] += before[n][i] + exp2_approx(sums.after[n][i]) * past[n][i]; });
    }
    store_fragment(ds, a.ds, rows, at);
  }
};

}  // namespace
}  // namespace gsa::sm90
