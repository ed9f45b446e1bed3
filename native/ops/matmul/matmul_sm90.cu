// Matrix products on CUDA: cuBLASLt (native/cuda/gemm.h), and what it does not take.
#include "../../cuda/gemm.h"
#include "../../cuda/kernel.cuh"
#include "params.h"

namespace gsa::cuda {

namespace {

constexpr int kThreads = 256;

// c = beta old (+ bias), old being c or what is added: the product when there is nothing to sum (k = 0).
template <typename T, typename B>
__global__ void empty_product_kernel(T* c, const T* old, const B* bias, int64_t m, int64_t n, int64_t ldc,
                                     int64_t stride_c, int64_t count, float beta) {
  for (int64_t i = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x; i < count;
       i += static_cast<int64_t>(gridDim.x) * kThreads) {
    const int64_t row = i / n, column = i % n;
    const int64_t at = row / m * stride_c + row % m * ldc + column;
    const float before = beta == 0.0f ? 0.0f : beta * to_float(old[at]);
    c[at] = from_float<T>(before + (bias ? to_float(bias[column]) : 0.0f));
  }
}

void empty_product(gsa_device& device, const product::Matmul& p) {
  const int64_t count = p.batch * p.m * p.n;
  with_float_type(p.c_dtype, "c", [&](auto c_type) {
    with_float_type(p.dtype, "bias", [&](auto bias_type) {
      using T = decltype(c_type);
      using B = decltype(bias_type);
      empty_product_kernel<T, B><<<grid_for(device, count, kThreads), kThreads, 0, device.stream>>>(
          static_cast<T*>(p.c), static_cast<const T*>(p.addend ? p.addend : p.c),
          static_cast<const B*>(p.bias), p.m, p.n, p.ldc, p.stride_c, count, p.beta);
    });
  });
}

}  // namespace

void matmul(gsa_device& device, const Args& args) {
  const product::Matmul p = product::read_matmul(args);
  if (p.batch * p.m * p.n == 0) return;
  if (p.k == 0) return empty_product(device, p);
  if (p.bias && p.c_dtype != p.dtype)
    fail(GSA_UNSUPPORTED, "Expected a bias of the result's dtype %s but received %s", dtype_name(p.c_dtype),
         dtype_name(p.dtype));
  Gemm g;
  g.dtype = p.dtype;
  g.c_dtype = p.c_dtype;
  g.trans_a = p.trans_a;
  g.trans_b = p.trans_b;
  g.m = p.m;
  g.n = p.n;
  g.k = p.k;
  g.batch = p.batch;
  g.alpha = p.alpha;
  g.beta = p.beta;
  g.a = p.a;
  g.lda = p.lda;
  g.stride_a = p.stride_a;
  g.b = p.b;
  g.ldb = p.ldb;
  g.stride_b = p.stride_b;
  g.c = p.c;
  g.ldc = p.ldc;
  g.stride_c = p.stride_c;
  g.bias = p.bias;
  g.addend = p.addend;
  gemm(device, g);
}

}  // namespace gsa::cuda
