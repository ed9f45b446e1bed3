#include <algorithm>

#include "../../cpu/absmax.h"
#include "../../cpu/parallel.h"
#include "params.h"

#define GSA_SIMD_FILE "../../ops/activation/activation.inl"
#include "../../cpu/simd/foreach_isa.h"

namespace gsa::cpu {

namespace {

constexpr int64_t kGrain = 8192;  // elements that are worth a thread; a multiple of every vector width

activation::Activation read_float32(const Args& args, const char* const* names, int outputs) {
  const activation::Activation p = activation::read_activation(args, names, outputs);
  if (p.dtype != GSA_FLOAT32)
    fail(GSA_UNSUPPORTED, "Expected float32 tensors on the CPU but received %s; convert them first",
         dtype_name(p.dtype));
  return p;
}

// Calls body(in, out, count) with the operands' addresses at the start of each run of `count` elements.
template <typename Body>
void for_runs(const activation::Activation& p, Body body) {
  const auto run = [&](int64_t row, int64_t column, int64_t count) {
    const float* in[3];
    float* out[2];
    for (int i = 0; i < 3; ++i) in[i] = static_cast<const float*>(p.in[i]) + row * p.in_stride[i] + column;
    for (int i = 0; i < 2; ++i) out[i] = static_cast<float*>(p.out[i]) + row * p.out_stride[i] + column;
    body(in, out, count);
  };
  if (p.rows == 1)
    parallel_for(p.columns, kGrain, [&](int64_t b, int64_t e) { run(0, b, e - b); });
  else
    parallel_for(p.rows, std::max<int64_t>(1, kGrain / std::max<int64_t>(p.columns, 1)),
                 [&](int64_t b, int64_t e) {
                   for (int64_t row = b; row < e; ++row) run(row, 0, p.columns);
                 });
  if (!p.absmax) return;
  *p.absmax = 0.0f;
  for (int i = 0; i < 2; ++i)
    if (p.out[i]) {
      const float* out = static_cast<const float*>(p.out[i]);
      *p.absmax = std::max(*p.absmax, absmax_of(out, p.rows, p.columns, p.out_stride[i]));
    }
}

}  // namespace

void silu_fwd(gsa_device&, const Args& args) {
  static const auto kernel = GSA_SIMD_SELECT(silu_fwd_range);
  for_runs(read_float32(args, activation::kSiluFwd, 1),
           [&](const float** in, float** out, int64_t n) { kernel(in[0], out[0], n); });
}

void silu_bwd(gsa_device&, const Args& args) {
  static const auto kernel = GSA_SIMD_SELECT(silu_bwd_range);
  for_runs(read_float32(args, activation::kSiluBwd, 1),
           [&](const float** in, float** out, int64_t n) { kernel(in[0], in[1], out[0], n); });
}

void swiglu_fwd(gsa_device&, const Args& args) {
  static const auto kernel = GSA_SIMD_SELECT(swiglu_fwd_range);
  for_runs(read_float32(args, activation::kSwigluFwd, 1),
           [&](const float** in, float** out, int64_t n) { kernel(in[0], in[1], out[0], n); });
}

void swiglu_bwd(gsa_device&, const Args& args) {
  static const auto kernel = GSA_SIMD_SELECT(swiglu_bwd_range);
  for_runs(read_float32(args, activation::kSwigluBwd, 2),
           [&](const float** in, float** out, int64_t n) { kernel(in[0], in[1], in[2], out[0], out[1], n); });
}

}  // namespace gsa::cpu
