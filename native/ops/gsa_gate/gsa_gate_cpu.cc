#include <cstring>
#include <limits>

#include "../../cpu/parallel.h"
#include "params.h"

#define GSA_SIMD_FILE "../../ops/gsa_gate/gate.inl"
#include "../../cpu/simd/foreach_isa.h"

namespace gsa::cpu {

// Elements that are worth a thread. A multiple of every vector width: where a thread's part ends changes no
// bit.
constexpr int64_t kGateGrain = 8192;

void gsa_gate_fwd(gsa_device&, const Args& args) {
  static const auto kernel = GSA_SIMD_SELECT(gate_fwd_range);
  const gate::GateFwd p = gate::read_gate_fwd(args);
  parallel_for(p.n, kGateGrain, [&](int64_t begin, int64_t end) {
    kernel(p.f + begin, p.g + begin, p.s + begin, end - begin, 1.0f / p.normalizer);
  });
}

void gsa_gate_bwd(gsa_device&, const Args& args) {
  static const auto kernel = GSA_SIMD_SELECT(gate_bwd_range);
  const gate::GateBwd p = gate::read_gate_bwd(args);
  parallel_for(p.n, kGateGrain, [&](int64_t begin, int64_t end) {
    kernel(p.dg + begin, p.ds + begin, p.f + begin, p.df + begin, end - begin, 1.0f / p.normalizer);
  });
}

}  // namespace gsa::cpu
