// What the slot role of the sweep in the direction of time does with a block of rows.
#pragma once

#include "sweep_forward_sm90.cuh"
#include "sweep_halves_sm90.cuh"
#include "sweep_slots_sm90.cuh"

namespace gsa::sm90 {
namespace {

// The exponentials of a row over the largest of the warp's own slots, in place; that and their sum to
// `w.sums`.
__device__ __forceinline__ void softmax_warp(Fragment& logits, SlotWork& w, const FragmentPlace& at,
                                             float (&largest)[2][2]) {
#pragma unroll
  for (int n = 0; n < 2; ++n)
#pragma unroll
    for (int b = 0; b < 2; ++b) {
      float x = fmaxf(logits[n][b], logits[n][2 + b]) * kLog2E;
#pragma unroll
      for (int o = 4; o < 32; o *= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, o));
      largest[n][b] = x;
      float s = 0.0f;
#pragma unroll
      for (int h = 0; h < 2; ++h) s += logits[n][2 * h + b] = exp2_approx(kLog2E * logits[n][2 * h + b] - x);
#pragma unroll
      for (int o = 4; o < 32; o *= 2) s += __shfl_xor_sync(~0u, s, o);
      if (at.lane < 4) w.sums[at.row + 8 * n + b][at.warp] = make_float2(x, s);
    }
}

// Softmax over all slots of every row, in place. A warp's own slots first, then the four warps through
// `w.sums`. Ends after a barrier, from which on `beyond` of all warps can be read.
__device__ __forceinline__ void softmax_rows(Fragment& logits, SlotWork& w, const FragmentPlace& at) {
  float largest[2][2];
  softmax_warp(logits, w, at, largest);
  role_sync();
#pragma unroll
  for (int n = 0; n < 2; ++n)
#pragma unroll
    for (int b = 0; b < 2; ++b) {
      float2 of[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) of[i] = w.sums[at.row + 8 * n + b][i];
      const float most = fmaxf(fmaxf(of[0].x, of[1].x), fmaxf(of[2].x, of[3].x));
      float all = 0.0f;
#pragma unroll
      for (int i = 0; i < 4; ++i) all += exp2_approx(of[i].x - most) * of[i].y;
      const float factor = exp2_approx(largest[n][b] - most) * reciprocal_approx(all);
      logits[n][b] *= factor;
      logits[n][2 + b] *= factor;
    }
}

// The same for half of the slots: exponentials over the largest of the half.
__device__ __forceinline__ void softmax_half(Fragment& logits, SlotWork& w, const FragmentPlace& at,
                                             RowSums& sums) {
  float largest[2][2];
  softmax_warp(logits, w, at, largest);
  role_sync();
#pragma unroll
  for (int n = 0; n < 2; ++n)
#pragma unroll
    for (int b = 0; b < 2; ++b) {
      float2 of[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) of[i] = w.sums[at.row + 8 * n + b][i];
      const float most = fmaxf(fmaxf(of[0].x, of[1].x), fmaxf(of[2].x, of[3].x));
      float all = 0.0f;
#pragma unroll
      for (int i = 0; i < 4; ++i) all += exp2_approx(of[i].x - most) * of[i].y;
      const float factor = exp2_approx(largest[n][b] - most);
      logits[n][b] *= factor;
      logits[n][2 + b] *= factor;
      sums.most[n][b] = most;
      sums.all[n][b] = all;
    }
}

// Sum over all slots of p dp, by row: as softmax_rows, one sum instead of three.
template <int kHalves, int kOut, class Meanwhile>
__device__ __forceinline__ void mean_rows(const Fragment& p, const Fragment& dp, SlotWork& w,
                                          const FragmentPlace& at,
                                          const OtherMeans<kHalves, kOut, Meanwhile>& other,
                                          float (&mean)[2][2]) {
#pragma unroll
  for (int n = 0; n < 2; ++n)
#pragma unroll
    for (int b = 0; b < 2; ++b) {
      float x = p[n][b] * dp[n][b] + p[n][2 + b] * dp[n][2 + b];
#pragma unroll
      for (int o = 4; o < 32; o *= 2) x += __shfl_xor_sync(~0u, x, o);
      if (at.lane < 4) {
        w.means[at.row + 8 * n + b][at.warp] = x;
        if constexpr (kHalves == 2) other.send(at.row + 8 * n + b, at.warp, x);
      }
    }
  if constexpr (kHalves == 2) other.meanwhile();
  role_sync();
  if constexpr (kHalves == 2) other.wait(at.thread);
#pragma unroll
  for (int n = 0; n < 2; ++n)
#pragma unroll
    for (int b = 0; b < 2; ++b) {
      const float4 x = *reinterpret_cast<const float4*>(w.means[at.row + 8 * n + b]);
      mean[n][b] = (x.x + x.y) + (x.z + x.w);
      if constexpr (kHalves == 2) mean[n][b] += other.mean(at.row + 8 * n + b);
    }
}

// What the logits of a block of rows need of its gates: decay from the start of the block, and write
// strengths divided by it.
struct Decayed {
  Fragment late, early;
  bool beyond;
  Decayed() = default;
  __device__ __forceinline__ Decayed(const GateSums& sums, const Fragment& s) : beyond(is_beyond(sums, s)) {
    each([&](int n, int i) {
      late[n][i] = exp2_approx(sums.until[n][i]);
      early[n][i] = s[n][i] * exp2_approx(-sums.until[n][i]);
    });
  }
};

// Backward: what is left of the forward's softmax. Forward: of a softmax that is not finished, of two halves.
struct Saved {
  Fragment ok = {};
  float norm[2][2] = {};
  RowSums sums;
  __device__ __forceinline__ void load(const ForwardSweep& a, const RowBlock& rows, const FragmentPlace& at) {
    load_fragment(ok, a.ok, rows, at);
    load_norms(norm, a.norm, rows, at);
  }
};

// One block of rows in the hands of the slot role.
template <bool kBackward, int kHalves, int kCluster>
struct SlotBlock {
  const ForwardSweep& a;
  SlotWork& w;
  ExactWork& exact;
  const FragmentPlace& at;

  // Gates of a new block: its write strengths decayed to its end, and its decay, to the cluster.
  __device__ __forceinline__ void send_gates(const GateSums& sums, const Fragment& s, bf16* strengths,
                                             float* decay, uint64_t* ready) const {
    Fragment y;
    each([&](int n, int i) { y[n][i] = s[n][i] * exp2_approx(sums.after[n][i]); });
    __syncwarp();
    stage_fragment(y, w.tail, at);
    __syncwarp();
    send_columns<kCluster>(w.tail, strengths, ready, at);
    send_decay<kCluster>(sums.total, decay, ready, at);
  }

  // Logits (or dp): what the first state and the block's own rows answer. `gates`: where its g and s lie.
  __device__ __forceinline__ void read_rows(const Decayed& d, const float* partial, const float* pair_sums,
                                            const RowBlock& gates, Fragment& z) const {
    Fragment past, pairs;
    sum_partials<kCluster>(partial, at, past);
    sum_pairs<kCluster>(pair_sums, at, pairs);
    if (at.lane == 0) w.beyond[at.warp] = d.beyond;
    if (!d.beyond) {
      contract_pairs<false>(d.early, pairs, at, z);
      each([&](int n, int i) { z[n][i] = a.in_scale * d.late[n][i] * (past[n][i] + z[n][i]); });
    } else {
      keep_gates(gates);
      contract_pairs_exactly<false>(exact, exact.early, pairs, at, z);
      each([&](int n, int i) { z[n][i] = a.in_scale * (d.late[n][i] * past[n][i] + z[n][i]); });
    }
  }
  __device__ __forceinline__ void keep_gates(const RowBlock& gates) const {
    Fragment g, s;
    load_fragment(g, a.g, gates, at);
    load_fragment(s, a.s, gates, at);
    keep_decays(g, exact, at);
    keep_exact(s, exact.early, at);
  }

  // What reads the second state, of logits or dp: softmax, or dok. Ends after a barrier. `rows`: of the
  // outputs.
  template <int kOut, class Meanwhile>
  __device__ __forceinline__ void answer_rows(Fragment& z, Saved& saved, const RowBlock& rows,
                                              const OtherMeans<kHalves, kOut, Meanwhile>& other) const {
    if constexpr (!kBackward) {
      if (a.ok) store_fragment(z, a.ok, rows, at);
      if constexpr (kHalves == 1)
        softmax_rows(z, w, at);
      else
        softmax_half(z, w, at, saved.sums);
    } else {
      Fragment p;
      each([&](int n, int i) { p[n][i] = exp2_approx(kLog2E * saved.ok[n][i] - saved.norm[n][i % 2]); });
      float mean[2][2];
      mean_rows(p, z, w, at, other, mean);
      each([&](int n, int i) {
        const float d = p[n][i] * (z[n][i] - mean[n][i % 2]);
        saved.ok[n][i] = saved.ok[n][i] * d + p[n][i] * z[n][i];  // from here on the flow
        z[n][i] = a.out_scale * d;
      });
    }
  }

  // To the `out` roles of the cluster: what reads, decayed from the start of the block, and the weights of
  // its pairs.
  __device__ __forceinline__ void send_rows(const Decayed& d, const Fragment& z, const RowBlock& gates,
                                            bf16* slots, bf16* weights, uint64_t* ready) const {
    const bool beyond = any_beyond(w);
    if (beyond) {
      keep_gates(gates);
      keep_exact(z, exact.late, at);
    }
    Fragment late;
    each([&](int n, int i) { late[n][i] = d.late[n][i] * z[n][i]; });
    stage_fragment(late, w.late, at);
    stage_fragment(d.early, w.early, at);
    __syncwarp();
    send_columns<kCluster>(w.late, slots, ready, at);
    role_sync();
    send_weights<false, kCluster>(w, exact, weights, ready, beyond, at);
    if (beyond) role_sync();  // the next block of rows may be one of these
  }
};

}  // namespace
}  // namespace gsa::sm90
