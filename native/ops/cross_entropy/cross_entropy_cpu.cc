#include <algorithm>
#include <cmath>

#include "../../cpu/parallel.h"
#include "params.h"

#define GSA_SIMD_FILE "../../ops/cross_entropy/cross_entropy.inl"
#include "../../cpu/simd/foreach_isa.h"

namespace gsa::cpu {

namespace {

void expect_float32(int32_t dtype) {
  if (dtype != GSA_FLOAT32)
    fail(GSA_UNSUPPORTED, "Expected float32 logits on the CPU but received %s; convert them first",
         dtype_name(dtype));
}

}  // namespace

void cross_entropy_fwd(gsa_device&, const Args& args) {
  static const auto kernel = GSA_SIMD_SELECT(log_sum_exp);
  static const auto gradient = GSA_SIMD_SELECT(softmax_gradient);
  const loss::CrossEntropyFwd p = loss::read_cross_entropy_fwd(args);
  expect_float32(p.dtype);
  loss::check_labels(p.labels, p.R, p.C, p.ignore_index);
  const auto* logits = static_cast<const float*>(p.logits);
  parallel_for(p.R, 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* row = logits + r * p.C;
      p.lse[r] = kernel(row, p.C);
      const bool ignored = p.labels[r] == p.ignore_index;
      p.loss[r] = ignored ? 0.0f : p.lse[r] - row[p.labels[r]];
      if (!p.dlogits) continue;
      float* out = static_cast<float*>(p.dlogits) + r * p.C;
      if (ignored)
        std::fill(out, out + p.C, 0.0f);
      else
        gradient(row, out, p.C, p.lse[r], 1.0f, p.labels[r]);
    }
  });
}

void cross_entropy_bwd(gsa_device&, const Args& args) {
  static const auto kernel = GSA_SIMD_SELECT(softmax_gradient);
  const loss::CrossEntropyBwd p = loss::read_cross_entropy_bwd(args);
  expect_float32(p.dtype);
  loss::check_labels(p.labels, p.R, p.C, p.ignore_index);
  const auto* logits = static_cast<const float*>(p.logits);
  auto* dlogits = static_cast<float*>(p.dlogits);
  parallel_for(p.R, 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      float* out = dlogits + r * p.C;
      if (p.labels[r] == p.ignore_index)
        std::fill(out, out + p.C, 0.0f);
      else
        kernel(logits + r * p.C, out, p.C, p.lse[r], p.dloss[p.one_dloss ? 0 : r], p.labels[r]);
    }
  });
}

void log_softmax(gsa_device&, const Args& args) {
  static const auto sum_kernel = GSA_SIMD_SELECT(log_sum_exp);
  static const auto subtract_kernel = GSA_SIMD_SELECT(subtract_range);
  const loss::LogSoftmax p = loss::read_log_softmax(args);
  expect_float32(p.dtype);
  const auto* x = static_cast<const float*>(p.x);
  auto* y = static_cast<float*>(p.y);
  parallel_for(p.R, 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      subtract_kernel(x + r * p.C, y + r * p.C, p.C, sum_kernel(x + r * p.C, p.C));
  });
}

}  // namespace gsa::cpu
