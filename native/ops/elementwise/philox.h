// Philox4x32-10 (Salmon et al., SC 2011): four random 32-bit words from a 128-bit counter and a 64-bit key,
// and two normal numbers from two of them by Box and Muller. A pure function, so that every backend draws the
// same numbers.
#pragma once

#include <cmath>
#include <cstdint>

#ifdef __CUDACC__
#define GSA_HOST_DEVICE __host__ __device__
#else
#define GSA_HOST_DEVICE
#endif

namespace gsa::elementwise {

struct Words {
  uint32_t x[4];
};

GSA_HOST_DEVICE inline Words philox(uint64_t counter, uint64_t stream, uint64_t seed) {
  Words c{{static_cast<uint32_t>(counter), static_cast<uint32_t>(counter >> 32),
           static_cast<uint32_t>(stream), static_cast<uint32_t>(stream >> 32)}};
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = 0xD2511F53ull * c.x[0];
    const uint64_t p1 = 0xCD9E8D57ull * c.x[2];
    c = Words{{static_cast<uint32_t>(p1 >> 32) ^ c.x[1] ^ k0, static_cast<uint32_t>(p1),
               static_cast<uint32_t>(p0 >> 32) ^ c.x[3] ^ k1, static_cast<uint32_t>(p0)}};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c;
}

// Two independent standard normal numbers.
GSA_HOST_DEVICE inline void box_muller(uint32_t a, uint32_t b, float* z0, float* z1) {
  const float u = (static_cast<float>(a >> 8) + 0.5f) * (1.0f / 16777216.0f);  // (0, 1): never log 0
  const float angle = (static_cast<float>(b >> 8) + 0.5f) * (6.2831853071795864f / 16777216.0f);
  const float radius = sqrtf(-2.0f * logf(u));
  *z0 = radius * cosf(angle);
  *z1 = radius * sinf(angle);
}

}  // namespace gsa::elementwise
