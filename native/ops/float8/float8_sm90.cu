// 8-bit copies of matrices, at the speed of memory, and their products through cuBLASLt.
#include <cuda_fp8.h>

#include "../../cuda/gemm.h"
#include "../../cuda/kernel.cuh"
#include "params.h"

namespace gsa::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kTile = 128;  // rows and columns of a block's part
constexpr int kSide = 8;    // a thread has 8 rows of 8 elements
constexpr int kAcross = kTile / kSide;

template <typename T, int N>
__global__ void __launch_bounds__(kThreads) absmax_kernel(const T* __restrict__ x, int64_t n, float* y) {
  float largest = 0;
  for (int64_t i = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x; i < n / N;
       i += static_cast<int64_t>(gridDim.x) * kThreads) {
    const Pack<T, N> v = reinterpret_cast<const Pack<T, N>*>(x)[i];
#pragma unroll
    for (int e = 0; e < N; ++e) largest = fmaxf(largest, fabsf(to_float(v.x[e])));
  }
  for (int64_t i = n / N * N + blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x; i < n;
       i += static_cast<int64_t>(gridDim.x) * kThreads)
    largest = fmaxf(largest, fabsf(to_float(x[i])));
  raise_absmax(y, largest);
}

// Four elements as bytes, the first lowest.
template <int kFormat>
__device__ __forceinline__ uint32_t four(float a, float b, float c, float d) {
  constexpr auto format = kFormat == GSA_FLOAT8_E4M3 ? __NV_E4M3 : __NV_E5M2;
  const uint32_t low = __nv_cvt_float2_to_fp8x2({a, b}, __NV_SATFINITE, format);
  const uint32_t high = __nv_cvt_float2_to_fp8x2({c, d}, __NV_SATFINITE, format);
  return low | high << 16;
}

// Bytes of a 4 x 4 square, a row a word, in place.
__device__ __forceinline__ void transpose(uint32_t (&w)[4]) {
  const uint32_t a = __byte_perm(w[0], w[1], 0x5140), b = __byte_perm(w[0], w[1], 0x7362);
  const uint32_t c = __byte_perm(w[2], w[3], 0x5140), d = __byte_perm(w[2], w[3], 0x7362);
  w[0] = __byte_perm(a, c, 0x5410);
  w[1] = __byte_perm(a, c, 0x7632);
  w[2] = __byte_perm(b, d, 0x5410);
  w[3] = __byte_perm(b, d, 0x7632);
}

// Where 16 rows of a column lie in shared memory: lanes that differ in the column's eight meet other banks.
__device__ __forceinline__ int place(int column, int sixteen) {
  return column * kTile + (sixteen ^ (column / kSide % 8)) * 16;
}

// One tile. A thread's square of 8 x 8 is turned in registers, the tile in shared memory, so that both copies
// leave in lines of 128 bytes. Rows and columns are multiples of 16.
template <typename T, int kFormat>
__global__ void __launch_bounds__(kThreads) quantize_kernel(const __grid_constant__ float8::Quantize p) {
  __shared__ __align__(16) uint8_t tile[kTile * kTile];
  const int across = threadIdx.x % kAcross, down = threadIdx.x / kAcross;
  const int64_t first_row = blockIdx.y * static_cast<int64_t>(kTile);
  const int64_t first_column = blockIdx.x * static_cast<int64_t>(kTile);
  const int64_t row = first_row + down * kSide, column = first_column + across * kSide;
  const float scale = __uint_as_float(float8::scale_bits(__float_as_uint(*p.absmax), kFormat));
  if (blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.x == 0) *p.scale = scale;
  if (row < p.rows && column < p.columns) {
    const float inverse = 1.0f / scale;
    const T* x = static_cast<const T*>(p.x) + row * p.columns + column;
    Pack<T, kSide> v[kSide];
#pragma unroll
    for (int i = 0; i < kSide; ++i) v[i] = *reinterpret_cast<const Pack<T, kSide>*>(x + i * p.columns);
    uint32_t words[2][2][4];  // [half of the columns][half of the rows][row]
#pragma unroll
    for (int i = 0; i < kSide; ++i) {
      float value[kSide];
#pragma unroll
      for (int e = 0; e < kSide; ++e) value[e] = to_float(v[i].x[e]) * inverse;
#pragma unroll
      for (int half = 0; half < 2; ++half)
        words[half][i / 4][i % 4] =
            four<kFormat>(value[half * 4], value[half * 4 + 1], value[half * 4 + 2], value[half * 4 + 3]);
      if (p.q)
        *reinterpret_cast<uint2*>(p.q + (row + i) * p.columns + column) =
            make_uint2(words[0][i / 4][i % 4], words[1][i / 4][i % 4]);
    }
    if (p.qt) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        transpose(words[half][0]);
        transpose(words[half][1]);
#pragma unroll
        for (int e = 0; e < 4; ++e)
          *reinterpret_cast<uint2*>(tile + place(across * kSide + half * 4 + e, down / 2) + down % 2 * 8) =
              make_uint2(words[half][0][e], words[half][1][e]);
      }
    }
  }
  if (!p.qt) return;
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kTile * kTile / 16 / kThreads; ++i) {
    const int at = i * kThreads + threadIdx.x, of_column = at / 8, sixteen = at % 8;
    const int64_t c = first_column + of_column, r = first_row + sixteen * 16;
    if (c < p.columns && r < p.rows)
      *reinterpret_cast<uint4*>(p.qt + c * p.rows + r) =
          *reinterpret_cast<const uint4*>(tile + place(of_column, sixteen));
  }
}

void expect_aligned(std::initializer_list<const void*> addresses) {
  if (!aligned(addresses))
    fail(GSA_INVALID_ARGUMENT, "Expected matrices that start at multiples of 16 bytes; copy the views first");
}

}  // namespace

void absmax(gsa_device& device, const Args& args) {
  const float8::AbsMax p = float8::read_absmax_op(args);
  clear_absmax(device, p.y);
  if (p.n == 0) return;
  with_float_type(p.dtype, "x", [&](auto type) {
    using T = decltype(type);
    constexpr int N = 16 / sizeof(T);
    const auto kernel = aligned({p.x}) ? absmax_kernel<T, N> : absmax_kernel<T, 1>;
    kernel<<<grid_for(device, p.n / N, kThreads), kThreads, 0, device.stream>>>(static_cast<const T*>(p.x),
                                                                                p.n, p.y);
  });
}

void float8_quantize(gsa_device& device, const Args& args) {
  const float8::Quantize p = float8::read_quantize(args);
  expect_aligned({p.x, p.q, p.qt});
  // A block at least, which writes the scale.
  const int64_t across = std::max<int64_t>(1, (p.columns + kTile - 1) / kTile);
  const int64_t down = std::max<int64_t>(1, (p.rows + kTile - 1) / kTile);
  if (down > 65535)
    fail(GSA_UNSUPPORTED, "Expected at most %d rows for x but received %lld", 65535 * kTile,
         static_cast<long long>(p.rows));
  const dim3 grid(static_cast<unsigned>(across), static_cast<unsigned>(down));
  with_float_type(p.dtype, "x", [&](auto type) {
    using T = decltype(type);
    const auto kernel = p.format == GSA_FLOAT8_E4M3 ? quantize_kernel<T, GSA_FLOAT8_E4M3>
                                                    : quantize_kernel<T, GSA_FLOAT8_E5M2>;
    kernel<<<grid, kThreads, 0, device.stream>>>(p);
  });
}

void float8_matmul(gsa_device& device, const Args& args) {
  const float8::Product p = float8::read_product(args);
  expect_aligned({p.a, p.b, p.c});
  if (p.addend) expect_aligned({p.addend});
  if (p.k == 0 && p.m * p.n > 0)
    fail(GSA_UNSUPPORTED, "Expected at least 16 elements to sum over but received none");
  Gemm g;
  g.dtype = p.a_format;
  g.b_dtype = p.b_format;
  g.c_dtype = p.c_dtype;
  g.trans_b = true;
  g.m = p.m;
  g.n = p.n;
  g.k = p.k;
  g.beta = p.beta;
  g.addend = p.addend;
  g.a = p.a;
  g.b = p.b;
  g.c = p.c;
  g.lda = g.ldb = p.k;
  g.ldc = p.n;
  g.a_scale = p.a_scale;
  g.b_scale = p.b_scale;
  g.fast_sums = p.fast;
  gemm(device, g);
}

}  // namespace gsa::cuda
