// In place of native/sm90/wgmma.cuh. Products happen at once.
#pragma once

#include "mma.cuh"

namespace gsa::sm90 {

// What the instruction's descriptor says: where operand b starts and how far apart its groups of eight rows
// and its tiles are.
struct Operand {
  const bf16* start;
  int leading_bytes;
};
inline Operand row_operand(const bf16* tile, int row, int k) { return {tile + row * kTile + k, 16}; }
inline Operand column_operand(const bf16* tile, int row, int tile_elements) {
  return {tile + row * kTile, tile_elements * 2};
}

inline Operand advance(Operand x, int elements) { return {x.start + elements, x.leading_bytes}; }
inline Operand held(Operand x) { return x; }

inline void wgmma_begin() {}
inline void wgmma_commit() {}
template <int kPending>
void wgmma_wait() {}
template <int kTiles>
void wgmma_arrived(float (&)[kTiles][4]) {}

template <bool kTransposed, int kTiles>
void wgmma(float (&d)[kTiles][4], const uint32_t (&a)[4], const Operand& b) {
  struct Lane {
    float (*d)[4];
    const uint32_t* a;
  } mine{d, a};
  emulator::together(mine, [&](Lane** lanes) {
    const auto element = [&](int k, int n) {
      const int line = kTransposed ? k : n, across = kTransposed ? n : k;
      const char* address = reinterpret_cast<const char*>(b.start) + line / 8 * 1024 + line % 8 * 128 +
                            (kTransposed ? across / 64 * b.leading_bytes : 0) + across % 64 * 2;
      const uintptr_t bits = reinterpret_cast<uintptr_t>(address);
      return __bfloat162float(*reinterpret_cast<const bf16*>(bits ^ (bits >> 7 & 7) << 4));
    };
    float a_full[16][16];
    for (int lane = 0; lane < 32; ++lane)
      for (int t = 0; t < 2; ++t)
        for (int i = 0; i < 4; ++i)
          a_full[lane / 4 + i % 2 * 8][lane % 4 * 2 + t + i / 2 * 8] = half_of(lanes[lane]->a[i], t);
    for (int n = 0; n < kTiles * 8; ++n)
      for (int k = 0; k < 16; ++k) {
        const float x = element(k, n);
        for (int row = 0; row < 16; ++row)
          lanes[row % 8 * 4 + n % 8 / 2]->d[n / 8][row / 8 * 2 + n % 2] += a_full[row][k] * x;
      }
  });
}

template <int kRegisters>
void more_registers() {}
template <int kRegisters>
void fewer_registers() {}

}  // namespace gsa::sm90
