// Functions of one instruction, of about 2 units in the last place; results below the smallest normal number
// are 0.
#pragma once

namespace gsa::sm90 {

__device__ __forceinline__ float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
// Within 2^-11 of the result.
__device__ __forceinline__ float tanh_approx(float x) {
  float y;
  asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
// x sigmoid(x), for results that are rounded to bfloat16: within 2^-12 of |x|.
__device__ __forceinline__ float silu_approx(float x) {
  const float half = 0.5f * x;
  return fmaf(half, tanh_approx(half), half);
}
__device__ __forceinline__ float reciprocal_approx(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace gsa::sm90
