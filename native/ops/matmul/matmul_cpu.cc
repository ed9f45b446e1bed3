#include <algorithm>

#include "../../cpu/gemm.h"
#include "../../cpu/parallel.h"
#include "params.h"

namespace gsa::cpu {

namespace {

constexpr int64_t kBiasGrain = 64;          // rows that are worth a thread
constexpr int64_t kSmallProduct = 1 << 20;  // multiply-adds below which a batch is spread by matrices

Gemm one(const product::Matmul& p, int64_t i) {
  Gemm g;
  g.trans_a = p.trans_a;
  g.trans_b = p.trans_b;
  g.m = p.m;
  g.n = p.n;
  g.k = p.k;
  g.alpha = p.alpha;
  g.beta = p.beta;
  g.a = static_cast<const float*>(p.a) + i * p.stride_a;
  g.b = static_cast<const float*>(p.b) + i * p.stride_b;
  g.c = static_cast<float*>(p.c) + i * p.stride_c;
  g.lda = p.lda;
  g.ldb = p.ldb;
  g.ldc = p.ldc;
  return g;
}

// The addend where the product is added to it.
void start_from_addend(const product::Matmul& p) {
  parallel_for(p.batch * p.m, kBiasGrain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t at = row / p.m * p.stride_c + row % p.m * p.ldc;
      std::copy_n(static_cast<const float*>(p.addend) + at, p.n, static_cast<float*>(p.c) + at);
    }
  });
}

void add_bias(const product::Matmul& p) {
  const float* bias = static_cast<const float*>(p.bias);
  parallel_for(p.batch * p.m, kBiasGrain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      float* c = static_cast<float*>(p.c) + row / p.m * p.stride_c + row % p.m * p.ldc;
      for (int64_t j = 0; j < p.n; ++j) c[j] += bias[j];
    }
  });
}

}  // namespace

void matmul(gsa_device&, const Args& args) {
  const product::Matmul p = product::read_matmul(args);
  if (p.dtype != GSA_FLOAT32)
    fail(GSA_UNSUPPORTED, "Expected float32 matrices on the CPU but received %s; convert them first",
         dtype_name(p.dtype));
  if (p.addend) start_from_addend(p);
  if (p.m * p.n * p.k < kSmallProduct) {
    parallel_for(p.batch, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) sgemm_serial(one(p, i));
    });
  } else {
    for (int64_t i = 0; i < p.batch; ++i) sgemm(one(p, i));
  }
  if (p.bias) add_bias(p);
}

}  // namespace gsa::cpu
