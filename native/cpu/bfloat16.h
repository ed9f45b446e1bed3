// bfloat16 on the CPU: storage and conversion only, arithmetic is float.
#pragma once

#include <cstdint>
#include <cstring>

namespace gsa::cpu {

struct BFloat16 {
  uint16_t bits;
};

inline float widen(BFloat16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// Rounds to nearest, ties to even. NaN is kept apart: rounding could carry it away and make it infinite.
inline BFloat16 narrow(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((bits >> 16) | 0x40u)};
  return {static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

}  // namespace gsa::cpu
