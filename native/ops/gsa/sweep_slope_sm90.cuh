// The layer form of a sweep's outputs. What the sweeps read as q, k and v is silu of raw projections; a
// gradient with respect to one of them, times the slope of silu at the raw value, is the gradient of the
// projection. The raw rows come by TMA into the place of ExactWork, which lies in global memory meanwhile.
#pragma once

#include "../../sm90/math.cuh"
#include "sweep_sm90.cuh"

namespace gsa::sm90 {

struct ExactWork;  // sweep_slots_sm90.cuh

struct SiluSlope {
  const bf16* raw;   // [rows, stride], at the first channel of the outputs; NULL: the plain form
  int64_t stride;    // elements from row to row, of raw and of the outputs
  TensorMap map;     // this and what follows: filled in by the launch
  ExactWork* exact;  // one a block
};

// d/dx x sigmoid(x), from the float32 that a bfloat16 is the upper half of.
__device__ __forceinline__ float silu_slope(uint32_t bits) {
  const float x = __uint_as_float(bits),
              kept = reciprocal_approx(1.0f + exp2_approx(-1.4426950408889634f * x));
  return kept * (1.0f + x * (1.0f - kept));
}

// Of 16 rows: the role's outputs [channels, rows] times the slopes of the same places of `raw`, where
// stage_rows puts them afterwards.
template <int kGroups>
__device__ __forceinline__ void scale_by_slopes(float (&out)[kGroups][2][4], const bf16* raw, int sub,
                                                const RolePlace& at) {
  const bf16* from = raw + sub * kSubTile + at.tile;
#pragma unroll
  for (int c = 0; c < kGroups; ++c) {
    uint32_t x[4];
    ldmatrix_x4_trans(x, from + c * kStepTile);
#pragma unroll
    for (int n = 0; n < 2; ++n)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        out[c][n][2 * h] *= silu_slope(x[2 * n + h] << 16);
        out[c][n][2 * h + 1] *= silu_slope(x[2 * n + h] & 0xffff0000u);
      }
  }
}

}  // namespace gsa::sm90
