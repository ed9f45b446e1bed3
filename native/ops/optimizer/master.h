// A float32 master in 16 bits beside its bfloat16 weight, without loss. The weight is the master rounded to
// nearest, ties to even, and the remainder is what that took away from the master's bits, as an integer:
//   remainder = bits(master) - (bits(weight) << 16), from -32768 to 32768
// One number too many for 16 bits: both ends are ties, which go to the even weight between them. Both are
// kept as -32768, and the sign of the second moment, which has none of its own, is set at the upper end.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define GSA_MASTER __host__ __device__ __forceinline__
#else
#define GSA_MASTER inline
#endif

namespace gsa::optimizer {

GSA_MASTER uint32_t bits_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

GSA_MASTER float float_of(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

// NaN is kept apart: rounding could carry it away.
GSA_MASTER uint32_t weight_of(uint32_t master) {
  const uint32_t rounded = (master + 0x7fffu + ((master >> 16) & 1u)) >> 16;
  return (master & 0x7fffffffu) > 0x7f800000u ? (master >> 16) | 0x40u : rounded;
}

// The sign is taken off `v`. When something else has written the weight, its master is what was written and
// the old remainder: at most half a step of bfloat16 more or less. Where the two do not fit (below a zero
// that would be a NaN), it is the weight alone.
GSA_MASTER float join_master(uint16_t weight, int16_t remainder, float& v) {
  const uint32_t upper = bits_of(v) >> 31, own = static_cast<uint32_t>(weight) << 16;
  v = float_of(bits_of(v) & 0x7fffffffu);
  const uint32_t joined = own + static_cast<uint32_t>(static_cast<int32_t>(remainder)) + (upper << 16);
  return float_of(weight_of(joined) == weight ? joined : own);
}

GSA_MASTER void split_master(float master, uint16_t& weight, int16_t& remainder, float& v) {
  const uint32_t bits = bits_of(master), rounded = weight_of(bits), rest = bits - (rounded << 16);
  weight = static_cast<uint16_t>(rounded);
  remainder = static_cast<int16_t>(static_cast<uint16_t>(rest));
  v = float_of((bits_of(v) & 0x7fffffffu) | (rest == 0x8000u ? 0x80000000u : 0u));
}

}  // namespace gsa::optimizer
