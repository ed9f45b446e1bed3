// In place of native/sm90/math.cuh.
#pragma once

#include <cmath>

namespace gsa::sm90 {
inline float exp2_approx(float x) { return exp2f(x); }
inline float tanh_approx(float x) { return tanhf(x); }
inline float silu_approx(float x) { return fmaf(0.5f * x, tanhf(0.5f * x), 0.5f * x); }
inline float reciprocal_approx(float x) { return 1.0f / x; }
}  // namespace gsa::sm90
