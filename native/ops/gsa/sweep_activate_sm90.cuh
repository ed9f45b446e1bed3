// The layer form of the forward sweep's inputs. Rows of raw projections come by TMA as those of q, k and v
// would; a fourth role makes silu of them where they lie, before the others read them, and stores what it
// made for the backward. It has a step's time for that, and registers that the other roles give up.
#pragma once

#include "../../sm90/math.cuh"
#include "sweep_sm90.cuh"

namespace gsa::sm90 {

struct Activation {
  bf16 *reading, *writing, *values;  // [rows, heads, width] written: silu of the rows; NULL: the plain form
  int64_t stride;                    // elements from one raw row to the next
};

constexpr int kActivateBarrier = 5;  // of the role's own threads
// Of a thread, so that those of four roles fill a multiprocessor.
constexpr int kActivateRegisters = 32, kOtherRegisters = 160;

// With the bits of ../gsa_inputs, which makes the same again where they are not kept.
__device__ __forceinline__ uint32_t silu_pair(uint32_t x) {
  return pack_bf16(silu_approx(__uint_as_float(x << 16)), silu_approx(__uint_as_float(x & 0xffff0000u)));
}

// 64 rows as load_step leaves them; the first `rows` of them also to `to`, where rows are `stride` apart.
template <int kWidth>
__device__ __forceinline__ void activate_step(bf16* tiles, bf16* to, int64_t stride, int rows, int thread) {
  constexpr int kParts = kWidth / 8, kRows = kRole / kParts;  // of 16 bytes in a row; rows at once
  static_assert(kRows % 8 == 0, "a thread's rows are swizzled alike");
  const int first = thread / kParts, part = thread % kParts;
  bf16* at = tiles + part / 8 * kStepTile + tile_offset(first, part % 8 * 8);
  to += first * stride + part * 8;
#pragma unroll 2
  for (int row = first; row < kStep; row += kRows) {
    uint4 x = *reinterpret_cast<const uint4*>(at);
    x = {silu_pair(x.x), silu_pair(x.y), silu_pair(x.z), silu_pair(x.w)};
    *reinterpret_cast<uint4*>(at) = x;
    if (row < rows) *reinterpret_cast<uint4*>(to) = x;
    at += kRows * kTile;
    to += kRows * stride;
  }
}

// What the role has made is there for all ways of reading it. All of its threads.
__device__ __forceinline__ void tell_active(uint64_t* barrier, int thread) {
  publish_shared();
  named_sync<kActivateBarrier, kRole>();
  if (thread == 0) expect_bytes(barrier, 0);
}

}  // namespace gsa::sm90
