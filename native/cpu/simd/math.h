// The functions of math.inl on single floats, for code that is not compiled per instruction set. Loops over
// them vectorise only as far as the compiler's base options allow (SSE2 on x86-64): hot loops use
// foreach_isa.h instead.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>

#ifndef GSA_INLINE
#define GSA_INLINE static inline __attribute__((always_inline))
#endif

namespace gsa::cpu::simd {
#include "math.inl"
}  // namespace gsa::cpu::simd
