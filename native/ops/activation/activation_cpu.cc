#include "../../cpu/parallel.h"
#include "params.h"

#define GSA_SIMD_FILE "../../ops/activation/activation.inl"
#include "../../cpu/simd/foreach_isa.h"

namespace gsa::cpu {

namespace {

constexpr int64_t kGrain = 8192;  // elements that are worth a thread; a multiple of every vector width

activation::Activation read_float32(const Args& args, const char* const* names) {
  const activation::Activation p = activation::read_activation(args, names);
  if (p.dtype != GSA_FLOAT32)
    fail(GSA_UNSUPPORTED, "Expected float32 tensors on the CPU but received %s; convert them first",
         dtype_name(p.dtype));
  return p;
}

const float* in(const activation::Activation& p, int i) { return static_cast<const float*>(p.in[i]); }
float* out(const activation::Activation& p, int i) { return static_cast<float*>(p.out[i]); }

}  // namespace

void silu_fwd(gsa_device&, const Args& args) {
  static const auto kernel = GSA_SIMD_SELECT(silu_fwd_range);
  const auto p = read_float32(args, activation::kSiluFwd);
  parallel_for(p.n, kGrain, [&](int64_t b, int64_t e) { kernel(in(p, 0) + b, out(p, 0) + b, e - b); });
}

void silu_bwd(gsa_device&, const Args& args) {
  static const auto kernel = GSA_SIMD_SELECT(silu_bwd_range);
  const auto p = read_float32(args, activation::kSiluBwd);
  parallel_for(p.n, kGrain,
               [&](int64_t b, int64_t e) { kernel(in(p, 0) + b, in(p, 1) + b, out(p, 0) + b, e - b); });
}

void swiglu_fwd(gsa_device&, const Args& args) {
  static const auto kernel = GSA_SIMD_SELECT(swiglu_fwd_range);
  const auto p = read_float32(args, activation::kSwigluFwd);
  parallel_for(p.n, kGrain,
               [&](int64_t b, int64_t e) { kernel(in(p, 0) + b, in(p, 1) + b, out(p, 0) + b, e - b); });
}

void swiglu_bwd(gsa_device&, const Args& args) {
  static const auto kernel = GSA_SIMD_SELECT(swiglu_bwd_range);
  const auto p = read_float32(args, activation::kSwigluBwd);
  parallel_for(p.n, kGrain, [&](int64_t b, int64_t e) {
    kernel(in(p, 0) + b, in(p, 1) + b, in(p, 2) + b, out(p, 0) + b, out(p, 1) + b, e - b);
  });
}

}  // namespace gsa::cpu
