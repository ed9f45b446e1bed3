// Compiles one file of kernels once per instruction set, inside one translation unit, so that a portable
// binary carries all of them (the recipe is in README.md):
//
//   #include <everything the kernels use>          // first: standard inline functions must not be compiled
//   with AVX #define GSA_SIMD_FILE "../../ops/x/x.inl"      // relative to this folder #include
//   "../../cpu/simd/foreach_isa.h"
//   ... static const auto kernel = GSA_SIMD_SELECT(x_range);   // inside namespace gsa::cpu
//
// The file is included inside `namespace gsa::cpu::{anonymous}::<isa>`, after vec.inl and math.inl: it holds
// functions only, no #include. GSA_SIMD_BYTES is the width of a vector register. No include guard, by design.

#include <cstdint>
#include <cstring>
#include <limits>

#include "isa.h"

#ifndef GSA_SIMD_FILE
#error "Define GSA_SIMD_FILE before including foreach_isa.h"
#endif

#ifndef GSA_INLINE
#define GSA_INLINE static inline __attribute__((always_inline))
#endif
#define GSA_MEMBER inline __attribute__((always_inline))

#if defined(__x86_64__) || defined(__i386__)
#define GSA_SIMD_SELECT(name)                                   \
  (::gsa::cpu::isa() == ::gsa::cpu::Isa::avx512 ? &avx512::name \
   : ::gsa::cpu::isa() == ::gsa::cpu::Isa::avx2 ? &avx2::name   \
                                                : &generic::name)
#else
#define GSA_SIMD_SELECT(name) (&generic::name)
#endif

// Vectors wider than the base instruction set are passed between always-inlined functions only: no ABI is at
// stake.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpsabi"
#endif

namespace gsa::cpu {
namespace {

namespace generic {
#define GSA_SIMD_BYTES 16
#include "vec.inl"

#include "math.inl"

#include GSA_SIMD_FILE
#undef GSA_SIMD_BYTES
}  // namespace generic

#if defined(__x86_64__) || defined(__i386__)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
namespace avx2 {
#define GSA_SIMD_BYTES 32
#include "vec.inl"

#include "math.inl"

#include GSA_SIMD_FILE
#undef GSA_SIMD_BYTES
}  // namespace avx2
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma"))), \
                             apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,prefer-vector-width=512")
#endif
namespace avx512 {
#define GSA_SIMD_BYTES 64
#include "vec.inl"

#include "math.inl"

#include GSA_SIMD_FILE
#undef GSA_SIMD_BYTES
}  // namespace avx512
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif  // x86

}  // namespace
}  // namespace gsa::cpu

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#undef GSA_MEMBER
#undef GSA_SIMD_FILE
