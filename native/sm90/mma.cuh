// Tensor-core products of warps and the tiles in shared memory that feed them. Tiles are rows of 64 bfloat16
// (128 bytes) whose eight 16-byte parts are permuted by the row, so that neither ldmatrix nor the copies meet
// bank conflicts.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

namespace gsa::sm90 {

using bf16 = __nv_bfloat16;

constexpr int kTile = 64;  // width of a tile in elements

__device__ __forceinline__ uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// Element offset of (row, column) in a swizzled tile.
__device__ __forceinline__ int tile_offset(int row, int column) {
  return row * kTile + ((((column >> 3) ^ row) & 7) << 3) + (column & 7);
}

__device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], const bf16* p) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(p))
               : "memory");
}

__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&r)[4], const bf16* p) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(p))
               : "memory");
}

// Four 8 x 8 matrices as products leave them, each transposed on its way; lane l gives the address of row l %
// 8 of what is then matrix l / 8.
__device__ __forceinline__ void stmatrix_x4_trans(bf16* p, uint32_t r0, uint32_t r1, uint32_t r2,
                                                  uint32_t r3) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(shared_address(p)),
               "r"(r0), "r"(r1), "r"(r2), "r"(r3)
               : "memory");
}

// d [16, 8] += a [16, 8] b [8, 8] in TF32 (11 bits of mantissa, the range of float32). Of a, a thread holds
// row lane / 4 in a[0] (+ 8 in a[1]) at k = lane % 4, the same at k + 4 in a[2], a[3]; of b, column lane / 4
// at k = lane % 4 (+ 4).
__device__ __forceinline__ uint32_t to_tf32(float x) {
  uint32_t y;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ void mma_tf32(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// d [16, 8] += a [16, 16] b [16, 8]. Of d, a thread holds rows lane / 4 (+ 8) and columns lane % 4 * 2 (+ 1).
__device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// In what follows a kernel gives its `lane` where it keeps it in a register.
// Operand a: rows [row, row + 16), k in [k, k + 16) of a tile that stores [row][k], or [k][row] (transposed).
__device__ __forceinline__ void load_a(uint32_t (&a)[4], const bf16* tile, int row, int k,
                                       int lane = threadIdx.x & 31) {
  ldmatrix_x4(a, tile + tile_offset(row + (lane & 15), k + (lane >> 4) * 8));
}
__device__ __forceinline__ void load_a_trans(uint32_t (&a)[4], const bf16* tile, int row, int k,
                                             int lane = threadIdx.x & 31) {
  ldmatrix_x4_trans(a, tile + tile_offset(k + (lane & 7) + (lane >> 4) * 8, row + (lane & 8)));
}

// Operand b for columns [n, n + 16): b[0], b[1] belong to the first eight, b[2], b[3] to the others. The tile
// stores [n][k], or [k][n] (transposed).
__device__ __forceinline__ void load_b(uint32_t (&b)[4], const bf16* tile, int n, int k,
                                       int lane = threadIdx.x & 31) {
  ldmatrix_x4(b, tile + tile_offset(n + (lane & 7) + (lane >> 4) * 8, k + (lane & 8)));
}
__device__ __forceinline__ void load_b_trans(uint32_t (&b)[4], const bf16* tile, int n, int k,
                                             int lane = threadIdx.x & 31) {
  ldmatrix_x4_trans(b, tile + tile_offset(k + (lane & 15), n + (lane >> 4) * 8));
}

__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return reinterpret_cast<const uint32_t&>(pair);
}

// Four lanes hold a row of 32 columns as the products leave it, x[t] two columns of the t-th eight;
// afterwards lane q has all of the q-th eight, 16 bytes to store at once.
__device__ __forceinline__ uint4 gather_eight(const uint32_t (&x)[4]) {
  const int q = threadIdx.x & 3;
  const auto pick = [](const uint32_t (&v)[4], int i) {
    return i < 2 ? (i ? v[1] : v[0]) : (i == 2 ? v[2] : v[3]);
  };
  uint32_t r[4];
  r[0] = pick(x, q);
#pragma unroll
  for (int s = 1; s < 4; ++s) r[s] = __shfl_xor_sync(~0u, pick(x, q ^ s), s);
  return {pick(r, q), pick(r, q ^ 1), pick(r, q ^ 2), pick(r, q ^ 3)};
}

// 16 bytes from global to shared memory without a register in between; zeros where `valid` is false.
__device__ __forceinline__ void copy_async(void* shared, const void* global, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
               "r"(valid ? 16 : 0)
               : "memory");
}
__device__ __forceinline__ void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kPending>
__device__ __forceinline__ void copy_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// 64 columns of `rows` rows, `stride` elements apart in global memory, into a tile of kRows rows; the rest is
// zero.
template <int kRows, int kThreads>
__device__ __forceinline__ void load_tile(bf16* tile, const bf16* global, int64_t stride, int rows) {
#pragma unroll
  for (int i = 0; i < kRows * 8 / kThreads; ++i) {
    const int part = threadIdx.x + i * kThreads, row = part >> 3, column = (part & 7) * 8;
    copy_async(tile + tile_offset(row, column), row < rows ? global + row * stride + column : global,
               row < rows);
  }
}

}  // namespace gsa::sm90
