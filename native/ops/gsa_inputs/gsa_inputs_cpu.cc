#include "../../cpu/absmax.h"
#include "../../cpu/parallel.h"
#include "params.h"

#define GSA_SIMD_FILE "../../ops/gsa_inputs/gsa_inputs.inl"
#include "../../cpu/simd/foreach_isa.h"

namespace gsa::cpu {

namespace {

using layer_inputs::kActivated;

constexpr int64_t kRowGrain = 8;

void expect_float32(int32_t dtype) {
  if (dtype != GSA_FLOAT32)
    fail(GSA_UNSUPPORTED, "Expected float32 projections on the CPU but received %s; convert them first",
         dtype_name(dtype));
}

}  // namespace

void gsa_inputs_fwd(gsa_device&, const Args& args) {
  static const auto activate = GSA_SIMD_SELECT(silu_part);
  static const auto gate = GSA_SIMD_SELECT(gate_part);
  const layer_inputs::Forward p = layer_inputs::read_forward(args);
  expect_float32(p.dtype);
  parallel_for(p.rows, kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float* x = static_cast<const float*>(p.x) + row * p.row_width + p.first;
      for (int i = 0; i < kActivated; x += p.width[i++])
        activate(x, static_cast<float*>(p.y[i]) + row * p.width[i], p.width[i]);
      if (p.g) gate(x, p.g + row * p.slots, p.s + row * p.slots, p.slots, 1.0f / p.normalizer);
    }
  });
}

void gsa_inputs_bwd(gsa_device&, const Args& args) {
  static const auto activate = GSA_SIMD_SELECT(silu_part_bwd);
  static const auto gate = GSA_SIMD_SELECT(gate_part_bwd);
  const layer_inputs::Backward p = layer_inputs::read_backward(args);
  expect_float32(p.dtype);
  parallel_for(p.rows, kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float* x = static_cast<const float*>(p.x) + row * p.row_width;
      float* dx = static_cast<float*>(p.dx) + row * p.row_width;
      for (int i = 0; i < kActivated; ++i) {
        activate(static_cast<const float*>(p.dy[i]) + row * p.width[i], x, dx, p.width[i]);
        x += p.width[i];
        dx += p.width[i];
      }
      gate(p.dg + row * p.slots, p.ds + row * p.slots, x, dx, p.slots, 1.0f / p.normalizer);
    }
  });
  if (p.absmax) *p.absmax = absmax_of(static_cast<const float*>(p.dx), 1, p.rows * p.row_width, 0);
}

}  // namespace gsa::cpu
