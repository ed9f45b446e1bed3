// The layer form of the sweeps' inputs. Rows of raw projections come by TMA as those of q, k and v would; a
// fourth role makes silu of them where they lie, before the others read them: one that does nothing else, or
// the first of two slot roles (sweep_roles_sm90.cuh), last in a step, since the rows are on their way while
// it makes what needs none. Nothing of what it makes leaves the block: every pass makes it again.
#pragma once

#include "../../sm90/math.cuh"
#include "sweep_roles_sm90.cuh"

namespace gsa::sm90 {

constexpr int kActivateBarrier = 5;  // of the role's own threads

// With the bits of ../gsa_inputs, which makes the same for who asks for it.
__device__ __forceinline__ uint32_t silu_pair(uint32_t x) {
  return pack_bf16(silu_approx(__uint_as_float(x << 16)), silu_approx(__uint_as_float(x & 0xffff0000u)));
}

// Of 64 rows as load_step leaves them, in place. 128 threads.
// kTogether: accesses on their way at once, four registers each.
template <int kWidth, int kTogether = 2>
__device__ __forceinline__ void activate_step(bf16* tiles, int thread) {
  bf16* at = tiles + thread * 8;
#pragma unroll kTogether
  for (int i = 0; i < kWidth / kTile * kStepTile / (kRole * 8); ++i, at += kRole * 8) {
    const uint4 x = *reinterpret_cast<const uint4*>(at);
    *reinterpret_cast<uint4*>(at) = {silu_pair(x.x), silu_pair(x.y), silu_pair(x.z), silu_pair(x.w)};
  }
}

// What the role has made is there for all ways of reading it. All of its threads.
__device__ __forceinline__ void tell_active(uint64_t* barrier, int thread) {
  publish_shared();
  named_sync<kActivateBarrier, kRole>();
  if (thread == 0) expect_bytes(barrier, 0);
}

}  // namespace gsa::sm90
