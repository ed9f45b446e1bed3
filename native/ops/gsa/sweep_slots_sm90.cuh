// The `slot` role of the sweeps: matrices [slots, 16 rows] of one block of rows, in float32, as products of a
// warpgroup leave them.
//
// What a row i takes from a row j <= i of its own block is decayed by exp(g_{j+1} + ... + g_i). Where no slot
// forgets more than kSafeNats within the 16 rows, that is exp(G_i) exp(-G_j) with the running sums G, and the
// pairs are products on tensor cores. Else (`beyond`) they are summed one by one with decays that are
// products of exp(g) <= 1: exact for all gates.
#pragma once

#include "../../sm90/math.cuh"
#include "sweep_sm90.cuh"

namespace gsa::sm90 {

constexpr float kLog2E = 1.4426950408889634f;
constexpr float kSafeNats = 40.0f, kSafeStrength = 1e6f;

__device__ __forceinline__ void role_sync() { named_sync<kSlotBarrier, kRole>(); }

// Where a thread's values lie: x[n][i] is slot + i / 2 * 8 of row + 8 n + i % 2; a warp has 16 slots.
using Fragment = float[2][4];
struct FragmentPlace {
  int thread, warp, lane, slot, row;
  int first_rank;  // of the cluster's blocks with the same slots
  __device__ explicit FragmentPlace(int t, int first)
      : thread(t),
        warp(t / 32),
        lane(t % 32),
        slot(warp * 16 + lane / 4),
        row(lane % 4 * 2),
        first_rank(first) {}
};
template <class Body>
__device__ __forceinline__ void each(Body body) {
#pragma unroll
  for (int n = 0; n < 2; ++n)
#pragma unroll
    for (int i = 0; i < 4; ++i) body(n, i);
}

// 16 rows in global memory, [rows, heads, slots]: the block's part of the first of them, and how many exist.
struct RowBlock {
  int64_t first;
  unsigned stride;
  int rows;
  int slots;  // of a head
};
__device__ __forceinline__ void load_fragment(Fragment& x, const float* from, const RowBlock& rows,
                                              const FragmentPlace& at) {
  from += rows.first;
#pragma unroll
  for (int n = 0; n < 2; ++n)
#pragma unroll
    for (int b = 0; b < 2; ++b) {
      const int row = at.row + 8 * n + b;
      const float* p = from + (row * rows.stride + at.slot);
      x[n][b] = row < rows.rows ? p[0] : 0.0f;
      x[n][2 + b] = row < rows.rows ? p[8] : 0.0f;
    }
}
// The softmax's norms of the thread's rows (sweep_softmax_sm90.cuh). Past the end of the sequence p is 0.
__device__ __forceinline__ void load_norms(float (&norm)[2][2], const float* from, const RowBlock& rows,
                                           const FragmentPlace& at) {
#pragma unroll
  for (int n = 0; n < 2; ++n)
#pragma unroll
    for (int b = 0; b < 2; ++b) {
      const int row = at.row + 8 * n + b;
      norm[n][b] = row < rows.rows ? from[(rows.first + row * rows.stride) / rows.slots] : INFINITY;
    }
}
// Turned through shared memory into stores of 16 bytes this was slower (README-sweeps.md): the role waits for
// the turn.
__device__ __forceinline__ void store_fragment(const Fragment& x, float* to, const RowBlock& rows,
                                               const FragmentPlace& at) {
  to += rows.first;
#pragma unroll
  for (int n = 0; n < 2; ++n)
#pragma unroll
    for (int b = 0; b < 2; ++b) {
      const int row = at.row + 8 * n + b;
      float* p = to + (row * rows.stride + at.slot);
      if (row < rows.rows) p[0] = x[n][b], p[8] = x[n][2 + b];
    }
}

// Sums of the gates of 16 rows, by slot and in units of log 2: up to and including a row, after it, and of
// all of them. No sum is a difference, so that one gate of -1e4 leaves the others their digits.
struct GateSums {
  Fragment until, after;
  float total[2];
  __device__ __forceinline__ GateSums(const Fragment& gates, const FragmentPlace& at) {
    const int t = at.lane % 4;
    Fragment g;
    each([&](int n, int i) { g[n][i] = kLog2E * gates[n][i]; });
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float before[2], behind[2], sum[2];
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        const float pair = g[n][2 * h] + g[n][2 * h + 1], next = __shfl_xor_sync(~0u, pair, 1);
        const float four = pair + next, others = __shfl_xor_sync(~0u, four, 2);
        before[n] = (t & 1 ? next : 0.0f) + (t & 2 ? others : 0.0f);
        behind[n] = (t & 1 ? 0.0f : next) + (t & 2 ? 0.0f : others);
        sum[n] = four + others;
      }
      total[h] = sum[0] + sum[1];
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        const float start = before[n] + (n ? sum[0] : 0.0f), end = behind[n] + (n ? 0.0f : sum[1]);
        until[n][2 * h] = start + g[n][2 * h];
        until[n][2 * h + 1] = until[n][2 * h] + g[n][2 * h + 1];
        after[n][2 * h + 1] = end;
        after[n][2 * h] = end + g[n][2 * h + 1];
      }
    }
  }
};

// What a block of 16 rows keeps in shared memory while the role works on it; two in turn where one barrier a
// block is all.
struct SlotWork {
  union {
    float2 sums[kSub][4];              // forward, of a row, by warp: largest logit, sum of exponentials
    alignas(16) float means[kSub][4];  // backward: sum of p dp
  };
  int beyond[4];         // by warp: some slot is past kSafeNats
  bf16 late[kSubTile];   // what reads (reverse: what was read), decayed from the start of the block
  bf16 early[kSubTile];  // write strengths, divided by their decay from the start of the block
  bf16 tail[kSubTile];   // write strengths, decayed to the end of the block
};
// Beside it, for blocks that are `beyond`: [row][slot].
struct ExactWork {
  float decay[kSub][kSlots + 1], late[kSub][kSlots + 1], early[kSub][kSlots + 1];
  float pairs[4][kSub][kSub];  // every warp its copy
};
__device__ __forceinline__ void keep_exact(const Fragment& x, float (&to)[kSub][kSlots + 1],
                                           const FragmentPlace& at) {
  each([&](int n, int i) { to[at.row + 8 * n + i % 2][at.slot + i / 2 * 8] = x[n][i]; });
}
__device__ __forceinline__ void keep_decays(const Fragment& g, ExactWork& w, const FragmentPlace& at) {
  each([&](int n, int i) {
    w.decay[at.row + 8 * n + i % 2][at.slot + i / 2 * 8] = exp2_approx(kLog2E * g[n][i]);
  });
}

// Into a swizzled tile [16 rows][slots], rounded.
__device__ __forceinline__ void stage_fragment(const Fragment& x, bf16* tile, const FragmentPlace& at) {
  stmatrix_x4_trans(tile + tile_offset(at.lane / 16 * 8 + at.lane % 8, at.warp * 16 + at.lane / 8 % 2 * 8),
                    pack_bf16(x[0][0], x[0][1]), pack_bf16(x[0][2], x[0][3]), pack_bf16(x[1][0], x[1][1]),
                    pack_bf16(x[1][2], x[1][3]));
}
// The warp's own columns of a staged tile to the same place in every block of the cluster. Between two
// __syncwarp.
template <int kCluster>
__device__ __forceinline__ void send_columns(const bf16* tile, bf16* to, uint64_t* ready,
                                             const FragmentPlace& at) {
  const int offset = tile_offset(at.lane / 2, at.warp * 16 + at.lane % 2 * 8);
  const uint4 x = *reinterpret_cast<const uint4*>(tile + offset);
#pragma unroll
  for (int rank = 0; rank < kCluster; ++rank)
    store_async(remote_address<kCluster>(to + offset, at.first_rank + rank),
                remote_address<kCluster>(ready, at.first_rank + rank), x);
}
// Decay of the whole block of rows, [slots], to every block of the cluster: a lane for each.
template <int kCluster>
__device__ __forceinline__ void send_decay(const float (&total)[2], float* to, uint64_t* ready,
                                           const FragmentPlace& at) {
  const int rank = at.lane % 4;
  if (rank >= kCluster) return;
#pragma unroll
  for (int h = 0; h < 2; ++h)
    store_async(remote_address<kCluster>(to + at.slot + h * 8, at.first_rank + rank),
                remote_address<kCluster>(ready, at.first_rank + rank),
                __float_as_uint(exp2_approx(total[h])));
}

// The sum over the cluster of [block of rows, source] partial results.
template <int kCluster>
__device__ __forceinline__ void sum_partials(const float* partial, const FragmentPlace& at, Fragment& x) {
#pragma unroll
  for (int n = 0; n < 2; ++n) {
    float4 sum = reinterpret_cast<const float4*>(partial)[n * kRole + at.thread];
#pragma unroll
    for (int source = 1; source < kCluster; ++source) {
      const float4 v = reinterpret_cast<const float4*>(partial + source * kPartial)[n * kRole + at.thread];
      sum.x += v.x, sum.y += v.y, sum.z += v.z, sum.w += v.w;
    }
    x[n][0] = sum.x, x[n][1] = sum.y, x[n][2] = sum.z, x[n][3] = sum.w;
  }
}
// The same of products of rows: x[n][i] is reading row lane / 4 + i / 2 * 8, written row 8 n + lane % 4 * 2 +
// i % 2.
template <int kCluster>
__device__ __forceinline__ void sum_pairs(const float* pairs, const FragmentPlace& at, Fragment& x) {
#pragma unroll
  for (int n = 0; n < 2; ++n) {
    float4 sum = reinterpret_cast<const float4*>(pairs)[n * 32 + at.lane];
#pragma unroll
    for (int source = 1; source < kCluster; ++source) {
      const float4 v = reinterpret_cast<const float4*>(pairs + source * kPairs)[n * 32 + at.lane];
      sum.x += v.x, sum.y += v.y, sum.z += v.z, sum.w += v.w;
    }
    x[n][0] = sum.x, x[n][1] = sum.y, x[n][2] = sum.z, x[n][3] = sum.w;
  }
}

// own [slots, rows i] = sum over rows j of pairs[i][j] y [slots, rows j], for j <= i (kReverse: j >= i).
template <bool kReverse>
__device__ __forceinline__ void contract_pairs(const Fragment& y, const Fragment& pairs,
                                               const FragmentPlace& at, Fragment& own) {
  const int row = at.lane / 4, column = at.row;
  uint32_t a[2][4];
#pragma unroll
  for (int n = 0; n < 2; ++n) {
    // k counts rows in the order in which a thread has them: 2 t as k = t, 2 t + 1 as k = t + 4.
    a[n][0] = to_tf32(y[n][0]);
    a[n][1] = to_tf32(y[n][2]);
    a[n][2] = to_tf32(y[n][1]);
    a[n][3] = to_tf32(y[n][3]);
  }
  each([&](int n, int i) { own[n][i] = 0.0f; });
#pragma unroll
  for (int n = 0; n < 2; ++n) {  // of the rows j; h: of the rows i
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      if (kReverse ? n < h : n > h) continue;
      const auto inside = [&](int b) { return n != h || (kReverse ? column + b >= row : column + b <= row); };
      mma_tf32(own[h], a[n], inside(0) ? to_tf32(pairs[n][2 * h]) : 0u,
               inside(1) ? to_tf32(pairs[n][2 * h + 1]) : 0u);
    }
  }
}
// The same for any gates, decays included; the warp's columns of `w.decay` and of `y` [rows][slots] are kept.
template <bool kReverse>
__device__ __forceinline__ void contract_pairs_exactly(ExactWork& w, const float (&y)[kSub][kSlots + 1],
                                                       const Fragment& pairs, const FragmentPlace& at,
                                                       Fragment& own) {
  float (&p)[kSub][kSub] = w.pairs[at.warp];
  each([&](int n, int i) { p[at.lane / 4 + i / 2 * 8][8 * n + at.lane % 4 * 2 + i % 2] = pairs[n][i]; });
  __syncwarp();
  each([&](int n, int i) {
    const int row = at.row + 8 * n + i % 2, slot = at.slot + i / 2 * 8;
    float sum = 0.0f, decay = 1.0f;
#pragma unroll 1
    for (int j = row; kReverse ? j < kSub : j >= 0; j += kReverse ? 1 : -1) {
      if (kReverse && j > row) decay *= w.decay[j][slot];
      sum += p[row][j] * y[j][slot] * decay;
      if (!kReverse) decay *= w.decay[j][slot];
    }
    own[n][i] = sum;
  });
  __syncwarp();
}

// weights [row, column] = sum over slots of late_i early_j exp(g_{j+1} + ... + g_i), j <= i: i the row and j
// the column (kReverse: the other way round), [.., kWeightPitch]; to every block of the cluster, a warp each.
template <bool kReverse, int kCluster>
__device__ __forceinline__ void send_weights(const SlotWork& w, const ExactWork& exact, bf16* to,
                                             uint64_t* ready, bool beyond, const FragmentPlace& at) {
  if (at.warp >= kCluster) return;
  Fragment x = {};
  const int row = at.lane / 4, column = at.lane % 4 * 2;
  if (!beyond) {
    const bf16 *a = kReverse ? w.early : w.late, *b = kReverse ? w.late : w.early;
#pragma unroll
    for (int k = 0; k < kSlots / 16; ++k) {
      uint32_t fa[4], fb[4];
      load_a(fa, a, 0, k * 16, at.lane);
      load_b(fb, b, 0, k * 16, at.lane);
      mma(x[0], fa, fb[0], fb[1]);
      mma(x[1], fa, fb[2], fb[3]);
    }
  }
  const auto value = [&](int n, int i) {
    const int r = row + i / 2 * 8, c = column + 8 * n + i % 2, late = kReverse ? c : r,
              early = kReverse ? r : c;
    if (early > late) return 0.0f;
    if (!beyond) return x[n][i];
    float sum = 0.0f;
#pragma unroll 1
    for (int m = 0; m < kSlots; ++m) {
      float term = exact.late[late][m] * exact.early[early][m];
#pragma unroll 1
      for (int l = early + 1; l <= late; ++l) term *= exact.decay[l][m];
      sum += term;
    }
    return sum;
  };
  const int rank = at.first_rank + at.warp;
  const uint32_t barrier = remote_address<kCluster>(ready, rank);
#pragma unroll
  for (int n = 0; n < 2; ++n)
#pragma unroll
    for (int h = 0; h < 2; ++h)
      store_async(remote_address<kCluster>(to + (row + h * 8) * kWeightPitch + column + 8 * n, rank), barrier,
                  pack_bf16(value(n, 2 * h), value(n, 2 * h + 1)));
}

// Whether the warp's slots need the exact pairs: the same for all of its lanes.
__device__ __forceinline__ bool is_beyond(const GateSums& sums, const Fragment& strength) {
  float largest = 0.0f;
  each([&](int n, int i) { largest = fmaxf(largest, fabsf(strength[n][i])); });
  // Written so that NaN is beyond.
  const bool safe = fminf(sums.total[0], sums.total[1]) >= -kSafeNats * kLog2E && largest <= kSafeStrength;
  return !__all_sync(~0u, safe);
}
__device__ __forceinline__ bool any_beyond(const SlotWork& w) {
  const int4 x = *reinterpret_cast<const int4*>(w.beyond);
  return (x.x | x.y | x.z | x.w) != 0;
}

}  // namespace gsa::sm90
