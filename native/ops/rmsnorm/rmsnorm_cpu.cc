#include <algorithm>
#include <vector>

#include "../../cpu/absmax.h"
#include "../../cpu/parallel.h"
#include "params.h"

#define GSA_SIMD_FILE "../../ops/rmsnorm/rmsnorm.inl"
#include "../../cpu/simd/foreach_isa.h"

namespace gsa::cpu {

namespace {

constexpr int64_t kRowGrain = 8;
constexpr int64_t kWeightBlocks = 32;  // partial sums of dweight, whatever the thread count

void expect_float32(int32_t dtype) {
  if (dtype != GSA_FLOAT32)
    fail(GSA_UNSUPPORTED, "Expected float32 rows on the CPU but received %s; convert them first",
         dtype_name(dtype));
}

template <typename T>
T* at(T* base, int64_t offset) {
  return base ? base + offset : nullptr;
}

}  // namespace

void rmsnorm_fwd(gsa_device&, const Args& args) {
  static const auto plain = GSA_SIMD_SELECT(rmsnorm_row<false>);
  static const auto with_silu = GSA_SIMD_SELECT(rmsnorm_row<true>);
  const norm::RmsNormFwd p = norm::read_rmsnorm_fwd(args);
  const auto kernel = p.silu ? with_silu : plain;
  expect_float32(p.dtype);
  const auto* x = static_cast<const float*>(p.x);
  const auto* residual = static_cast<const float*>(p.residual);
  auto* y = static_cast<float*>(p.y);
  auto* h = static_cast<float*>(p.h);
  parallel_for(p.R, kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t row = r * p.D;
      p.rstd[r] = kernel(x + row, at(residual, row), p.weight, y + row, at(h, row), p.D, p.eps);
    }
  });
  if (p.absmax) *p.absmax = absmax_of(y, 1, p.R * p.D, 0);
}

void rmsnorm_bwd(gsa_device&, const Args& args) {
  static const auto plain = GSA_SIMD_SELECT(rmsnorm_row_bwd<false>);
  static const auto with_silu = GSA_SIMD_SELECT(rmsnorm_row_bwd<true>);
  const norm::RmsNormBwd p = norm::read_rmsnorm_bwd(args);
  const auto kernel = p.silu ? with_silu : plain;
  expect_float32(p.dtype);
  const auto* dy = static_cast<const float*>(p.dy);
  const auto* dh = static_cast<const float*>(p.dh);
  const auto* h = static_cast<const float*>(p.h);
  auto* dx = static_cast<float*>(p.dx);
  float* dweight = p.dweight;
  const int64_t blocks = std::min(kWeightBlocks, p.R);
  std::vector<float> partial(static_cast<size_t>(dweight ? blocks * p.D : 0), 0.0f);
  parallel_for(blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      float* sums = dweight ? partial.data() + b * p.D : nullptr;
      for (int64_t r = p.R * b / blocks; r < p.R * (b + 1) / blocks; ++r) {
        const int64_t row = r * p.D;
        kernel(dy + row, at(dh, row), h + row, p.weight, p.rstd[r], dx + row, sums, p.D);
      }
    }
  });
  if (p.absmax) *p.absmax = absmax_of(dx, 1, p.R * p.D, 0);
  if (!dweight) return;
  std::fill(dweight, dweight + p.D, 0.0f);
  for (int64_t b = 0; b < blocks; ++b)
    for (int64_t d = 0; d < p.D; ++d) dweight[d] += partial[static_cast<size_t>(b * p.D + d)];
}

}  // namespace gsa::cpu
