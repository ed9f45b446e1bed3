// The `slot` role of the sweeps: matrices [16 rows, slots] of one block of rows, in float32.
#pragma once

#include "sweep_sm90.cuh"

namespace gsa::sm90 {

// 128 threads, one slot each and half of the rows (or of the columns).
struct SlotHalf {
  int thread, slot, half;
  __device__ explicit SlotHalf(int t) : thread(t), slot(t % kSlots), half(t / kSlots) {}
  __device__ int row(int i) const { return half * 8 + i; }
};
// Eight threads a row (or column), eight slots each: four at 4 part, four at 32 + 4 part.
struct RowEighth {
  int row, part;
  __device__ explicit RowEighth(int t) : row(t / 8), part(t % 8) {}
};

__device__ __forceinline__ void role_sync() { named_sync<1, kRole>(); }

__device__ __forceinline__ void load_eight(float (&x)[8], const float* row, int part) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const float4 v = *reinterpret_cast<const float4*>(row + h * 32 + part * 4);
    x[4 * h] = v.x, x[4 * h + 1] = v.y, x[4 * h + 2] = v.z, x[4 * h + 3] = v.w;
  }
}
__device__ __forceinline__ void store_eight(const float (&x)[8], float* row, int part) {
#pragma unroll
  for (int h = 0; h < 2; ++h)
    *reinterpret_cast<float4*>(row + h * 32 + part * 4) =
        make_float4(x[4 * h], x[4 * h + 1], x[4 * h + 2], x[4 * h + 3]);
}

__device__ __forceinline__ float eighth_sum(float x) {
#pragma unroll
  for (int o = 1; o < 8; o *= 2) x += __shfl_xor_sync(~0u, x, o);
  return x;
}
__device__ __forceinline__ void softmax_eighth(float (&x)[8]) {
  float largest = x[0], sum = 0;
#pragma unroll
  for (int i = 1; i < 8; ++i) largest = fmaxf(largest, x[i]);
#pragma unroll
  for (int o = 1; o < 8; o *= 2) largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, o));
#pragma unroll
  for (int i = 0; i < 8; ++i) sum += x[i] = expf(x[i] - largest);
  const float inverse = 1.0f / eighth_sum(sum);
#pragma unroll
  for (int i = 0; i < 8; ++i) x[i] *= inverse;
}

// Gates and write strengths of 16 rows, [rows, H, slots] in global memory. Past the sequence's end the gate
// is open and nothing is written.
struct GateRows {
  const float *s, *g;  // of the first row and the head
  int64_t stride;
  int rows;  // of the 16
};
// What a thread holds of them from one block of rows to the next, so that memory answers meanwhile.
struct SlotGates {  // the slot and the half of the rows of SlotHalf
  float g[8], s[8];
  __device__ __forceinline__ void load(const GateRows& from, const SlotHalf& at) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const bool inside = at.row(i) < from.rows;
      g[i] = inside ? from.g[at.row(i) * from.stride + at.slot] : 0.0f;
      s[i] = inside ? from.s[at.row(i) * from.stride + at.slot] : 0.0f;
    }
  }
};
struct RowGates {  // the row and the slots of RowEighth
  float g[8], s[8];
  __device__ __forceinline__ void load(const GateRows& from, const RowEighth& at) {
#pragma unroll
    for (int i = 0; i < 8; ++i) g[i] = s[i] = 0.0f;
    if (at.row < from.rows) {
      load_eight(g, from.g + at.row * from.stride, at.part);
      load_eight(s, from.s + at.row * from.stride, at.part);
    }
  }
};

// What a block of 16 rows keeps in shared memory while the slot role works on it.
struct SlotWork {
  float e[kSub * kPitch];         // exp(g)
  float s[kSub * kPitch];         // write strengths (in the reverse sweep: read strengths)
  float x[kSub * kPitch];         // logits, then what reads the second state
  float pairs[kSub * kSub];       // [written][reading] summed over the cluster
  float halves[2 * kSlots];       // product of the decays of each half
  float exchange[2][8 * kSlots];  // rows that the other half finishes
  bf16 stage[2][kSubTile];
  bf16 weights[kSub * kWeightPitch];
};

// The sum over the cluster of `partial` [block of rows, source][16, slots]: the thread's eight rows.
template <int kCluster>
__device__ __forceinline__ void sum_partials(const float* partial, const SlotHalf& at, float scale,
                                             float (&x)[8]) {
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    float sum = 0;
#pragma unroll
    for (int source = 0; source < kCluster; ++source)
      sum += partial[(source * kSub + at.row(i)) * kPartialPitch + at.slot];
    x[i] = sum * scale;
  }
}
template <int kCluster>
__device__ __forceinline__ void sum_pairs(const float* partial, int thread, float scale, float* pairs) {
#pragma unroll
  for (int i = thread; i < kSub * kSub; i += kRole) {
    float sum = 0;
#pragma unroll
    for (int source = 0; source < kCluster; ++source) sum += partial[source * kSub * kSub + i];
    pairs[i] = sum * scale;
  }
}

// sum over j <= i of pairs[j][i] s_j exp(g_{j+1} + ... + g_i), for the columns j of the thread's parity.
// kReverse: rows in falling order: sum over j >= i of pairs[j][i] s_j exp(g_{i+1} + ... + g_j). e: exp(g) of
// the slot, s: strengths of rows 2 jj + half.
template <bool kReverse>
__device__ __forceinline__ void read_pairs(const float* pairs, const float (&e)[kSub], const float (&s)[8],
                                           int half, float (&out)[kSub]) {
#pragma unroll
  for (int i = 0; i < kSub; ++i) out[i] = 0;
#pragma unroll
  for (int jj = 0; jj < 8; ++jj) {
    float a[kSub];
    const float* row = pairs + (2 * jj + half) * kSub;
#pragma unroll
    for (int i = 0; i < kSub; i += 4)
      if (kReverse ? i <= 2 * jj + 1 : i + 3 >= 2 * jj) {
        const float4 v = *reinterpret_cast<const float4*>(row + i);
        a[i] = v.x, a[i + 1] = v.y, a[i + 2] = v.z, a[i + 3] = v.w;
      }
    float w = s[jj];
    if constexpr (!kReverse) {
      // Row 2 jj meets itself in half 0 and is before the column in half 1; row 2 jj + 1 the other way round.
      out[2 * jj] += half ? 0.0f : a[2 * jj] * w;
      w *= half ? 1.0f : e[2 * jj + 1];
#pragma unroll
      for (int i = 2 * jj + 1; i < kSub; ++i) {
        if (i > 2 * jj + 1) w *= e[i];
        out[i] += a[i] * w;
      }
    } else {
      out[2 * jj + 1] += half ? a[2 * jj + 1] * w : 0.0f;
      w *= half ? e[2 * jj + 1] : 1.0f;
#pragma unroll
      for (int i = 2 * jj; i >= 0; --i) {
        if (i < 2 * jj) w *= e[i + 1];
        out[i] += a[i] * w;
      }
    }
  }
}

// weights [i, j] = sum over slots of x_i s_j exp(g_{j+1} + ... + g_i) for j <= i, else 0, in bfloat16; stored
// [i][j], kTransposed: [j][i].
template <bool kTransposed>
__device__ __forceinline__ void pair_weights_16(const float* x, const float* s, const float* e, int thread,
                                                bf16* weights) {
  const RowEighth at(thread);
  const int j = at.row, first = thread / 32 * 4, lane = thread % 32;
  float w[8], sum[kSub];
  load_eight(w, s + j * kPitch, at.part);
#pragma unroll
  for (int i = 0; i < kSub; ++i) {
    sum[i] = 0;
    if (i < first) continue;  // no column of the warp is that early
    float step[8], read[8];
    load_eight(step, e + i * kPitch, at.part);
    load_eight(read, x + i * kPitch, at.part);
#pragma unroll
    for (int t = 0; t < 8; ++t) {
      if (i > j) w[t] *= step[t];
      sum[i] += read[t] * w[t];
    }
    if (i < j) sum[i] = 0;
  }
  // Sums over the eight lanes; each ends with two rows.
  float four[8], two[4], one[2];
#pragma unroll
  for (int q = 0; q < 8; ++q) {
    const bool up = lane & 4;
    four[q] = (up ? sum[q + 8] : sum[q]) + __shfl_xor_sync(~0u, up ? sum[q] : sum[q + 8], 4);
  }
#pragma unroll
  for (int q = 0; q < 4; ++q) {
    const bool up = lane & 2;
    two[q] = (up ? four[q + 4] : four[q]) + __shfl_xor_sync(~0u, up ? four[q] : four[q + 4], 2);
  }
#pragma unroll
  for (int q = 0; q < 2; ++q) {
    const bool up = lane & 1;
    one[q] = (up ? two[q + 2] : two[q]) + __shfl_xor_sync(~0u, up ? two[q] : two[q + 2], 1);
  }
  const int i = (lane & 4) * 2 + (lane & 2) * 2 + (lane & 1) * 2;
#pragma unroll
  for (int q = 0; q < 2; ++q)
    weights[kTransposed ? j * kWeightPitch + i + q : (i + q) * kWeightPitch + j] =
        __float2bfloat16_rn(one[q]);
}

// 16 bytes a thread to the same place in every block of the cluster.
template <int kCluster>
__device__ __forceinline__ void broadcast(const bf16* from, bf16* to, int bytes, int thread) {
  for (int at = thread; at < bytes / 16; at += kRole) {
    const uint4 x = reinterpret_cast<const uint4*>(from)[at];
#pragma unroll
    for (int rank = 0; rank < kCluster; ++rank)
      store_remote(remote_address(reinterpret_cast<uint4*>(to) + at, rank), x);
  }
}

}  // namespace gsa::sm90
