// In place of native/sm90/math.cuh.
#pragma once

#include <cmath>

namespace gsa::sm90 {
inline float exp2_approx(float x) { return exp2f(x); }
inline float reciprocal_approx(float x) { return 1.0f / x; }
}  // namespace gsa::sm90
