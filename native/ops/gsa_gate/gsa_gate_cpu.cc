#include <algorithm>
#include <cstring>
#include <limits>

#include "../../cpu/parallel.h"
#include "params.h"

#define GSA_SIMD_FILE "../../ops/gsa_gate/gate.inl"
#include "../../cpu/simd/foreach_isa.h"

namespace gsa::cpu {

namespace {

// Work is dealt out in blocks of a multiple of every vector width, so that an element is always computed in
// the same way.
constexpr int64_t kGateBlock = 64;
constexpr int64_t kBlocksPerThread = 128;  // worth waking a thread

template <typename Body>
void for_each_range(int64_t n, Body body) {
  parallel_for((n + kGateBlock - 1) / kGateBlock, kBlocksPerThread, [&](int64_t begin, int64_t end) {
    const int64_t first = begin * kGateBlock;
    body(first, std::min(n, end * kGateBlock) - first);
  });
}

void expect_float32(int32_t dtype) {
  if (dtype != GSA_FLOAT32)
    fail(GSA_UNSUPPORTED, "Expected a float32 gate projection on the CPU but received %s; convert it first",
         dtype_name(dtype));
}

}  // namespace

void gsa_gate_fwd(gsa_device&, const Args& args) {
  static const auto kernel = GSA_SIMD_SELECT(gate_fwd_range);
  const gate::GateFwd p = gate::read_gate_fwd(args);
  expect_float32(p.dtype);
  const float* f = static_cast<const float*>(p.f);
  for_each_range(p.n, [&](int64_t at, int64_t count) {
    kernel(f + at, p.g + at, p.s + at, count, 1.0f / p.normalizer);
  });
}

void gsa_gate_bwd(gsa_device&, const Args& args) {
  static const auto kernel = GSA_SIMD_SELECT(gate_bwd_range);
  const gate::GateBwd p = gate::read_gate_bwd(args);
  expect_float32(p.dtype);
  const float* f = static_cast<const float*>(p.f);
  float* df = static_cast<float*>(p.df);
  for_each_range(p.n, [&](int64_t at, int64_t count) {
    kernel(p.dg + at, p.ds + at, f + at, df + at, count, 1.0f / p.normalizer);
  });
}

}  // namespace gsa::cpu
