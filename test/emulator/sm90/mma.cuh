// In place of native/sm90/mma.cuh: the same functions without its instructions.
#pragma once

#include "../../emulator.h"

namespace gsa::sm90 {

using bf16 = __nv_bfloat16;

constexpr int kTile = 64;

inline int tile_offset(int row, int column) {
  return row * kTile + ((((column >> 3) ^ row) & 7) << 3) + (column & 7);
}

template <bool kTransposed>
void load_matrices(uint32_t (&r)[4], const bf16* p) {
  struct Lane {
    const bf16* row;
    uint32_t* r;
  } mine{p, r};
  emulator::together(mine, [](Lane** lanes) {
    for (int matrix = 0; matrix < 4; ++matrix)
      for (int lane = 0; lane < 32; ++lane) {
        bf16 pair[2];
        for (int t = 0; t < 2; ++t) {
          const int row = lane / 4, column = lane % 4 * 2 + t;
          const bf16* from = lanes[matrix * 8 + (kTransposed ? column : row)]->row;
          if (reinterpret_cast<uintptr_t>(from) % 16) {
            std::printf("ldmatrix of a row that is not aligned to 16 bytes\n");
            std::exit(1);
          }
          pair[t] = from[kTransposed ? row : column];
        }
        std::memcpy(&lanes[lane]->r[matrix], pair, 4);
      }
  });
}
inline void ldmatrix_x4(uint32_t (&r)[4], const bf16* p) { load_matrices<false>(r, p); }
inline void ldmatrix_x4_trans(uint32_t (&r)[4], const bf16* p) { load_matrices<true>(r, p); }

inline void stmatrix_x4_trans(bf16* p, uint32_t r0, uint32_t r1, uint32_t r2, uint32_t r3) {
  struct Lane {
    bf16* row;
    uint32_t r[4];
  } mine{p, {r0, r1, r2, r3}};
  emulator::together(mine, [](Lane** lanes) {
    for (int matrix = 0; matrix < 4; ++matrix)
      for (int lane = 0; lane < 32; ++lane) {
        bf16 pair[2];
        std::memcpy(pair, &lanes[lane]->r[matrix], 4);
        for (int t = 0; t < 2; ++t) lanes[matrix * 8 + lane % 4 * 2 + t]->row[lane / 4] = pair[t];
      }
  });
}

inline uint32_t to_tf32(float x) { return (__float_as_uint(x) + 0x1000u) & ~0x1fffu; }
inline void mma_tf32(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  struct Lane {
    float* d;
    const uint32_t* a;
    uint32_t b[2];
  } mine{d, a, {b0, b1}};
  emulator::together(mine, [](Lane** lanes) {
    const auto value = [](const uint32_t& bits) {
      float x;
      std::memcpy(&x, &bits, 4);
      return x;
    };
    for (int lane = 0; lane < 32; ++lane)
      for (int i = 0; i < 4; ++i)
        for (int k = 0; k < 8; ++k) {
          const Lane &of_a = *lanes[lane / 4 * 4 + k % 4], &of_b = *lanes[(lane % 4 * 2 + i % 2) * 4 + k % 4];
          lanes[lane]->d[i] += value(of_a.a[i / 2 + k / 4 * 2]) * value(of_b.b[k / 4]);
        }
  });
}

inline float half_of(uint32_t pair, int high) {
  const uint32_t bits = high ? pair & 0xffff0000u : pair << 16;
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

inline void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  struct Lane {
    float* d;
    const uint32_t* a;
    uint32_t b[2];
  } mine{d, a, {b0, b1}};
  emulator::together(mine, [](Lane** lanes) {
    float a_full[16][16], b_full[16][8];
    for (int lane = 0; lane < 32; ++lane)
      for (int t = 0; t < 2; ++t) {
        const int k = lane % 4 * 2 + t;
        for (int i = 0; i < 4; ++i)
          a_full[lane / 4 + i % 2 * 8][k + i / 2 * 8] = half_of(lanes[lane]->a[i], t);
        for (int i = 0; i < 2; ++i) b_full[k + i * 8][lane / 4] = half_of(lanes[lane]->b[i], t);
      }
    for (int lane = 0; lane < 32; ++lane)
      for (int i = 0; i < 4; ++i) {
        float& sum = lanes[lane]->d[i];
        for (int k = 0; k < 16; ++k) sum += a_full[lane / 4 + i / 2 * 8][k] * b_full[k][lane % 4 * 2 + i % 2];
      }
  });
}

inline void load_a(uint32_t (&a)[4], const bf16* tile, int row, int k, int lane = threadIdx.x & 31) {
  ldmatrix_x4(a, tile + tile_offset(row + (lane & 15), k + (lane >> 4) * 8));
}
inline void load_a_trans(uint32_t (&a)[4], const bf16* tile, int row, int k, int lane = threadIdx.x & 31) {
  ldmatrix_x4_trans(a, tile + tile_offset(k + (lane & 7) + (lane >> 4) * 8, row + (lane & 8)));
}
inline void load_b(uint32_t (&b)[4], const bf16* tile, int n, int k, int lane = threadIdx.x & 31) {
  ldmatrix_x4(b, tile + tile_offset(n + (lane & 7) + (lane >> 4) * 8, k + (lane & 8)));
}
inline void load_b_trans(uint32_t (&b)[4], const bf16* tile, int n, int k, int lane = threadIdx.x & 31) {
  ldmatrix_x4_trans(b, tile + tile_offset(k + (lane & 15), n + (lane >> 4) * 8));
}

inline uint32_t pack_bf16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  uint32_t r;
  std::memcpy(&r, &pair, 4);
  return r;
}

inline void copy_async(void* shared, const void* global, bool valid) {
  valid ? std::memcpy(shared, global, 16) : std::memset(shared, 0, 16);
}
inline void copy_commit() {}
template <int kPending>
void copy_wait() {}

template <int kRows, int kThreads>
void load_tile(bf16* tile, const bf16* global, int64_t stride, int rows) {
  for (int i = 0; i < kRows * 8 / kThreads; ++i) {
    const int part = threadIdx.x + i * kThreads, row = part >> 3, column = (part & 7) * 8;
    copy_async(tile + tile_offset(row, column), row < rows ? global + row * stride + column : global,
               row < rows);
  }
}

inline uint4 gather_eight(const uint32_t (&x)[4]) {
  const int q = threadIdx.x & 3;
  uint32_t r[4];
  for (int s = 0; s < 4; ++s) r[s] = emulated_shuffle(x[q ^ s], s);
  return {r[q], r[q ^ 1], r[q ^ 2], r[q ^ 3]};
}

}  // namespace gsa::sm90
