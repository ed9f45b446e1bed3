#include "isa.h"

#include <cstdlib>

namespace gsa::cpu {
namespace {

constexpr const char* kNames[] = {"generic", "avx2", "avx512"};

Isa best_isa() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
  if (avx2 && avx512) return Isa::avx512;
  if (avx2) return Isa::avx2;
#endif
  return Isa::generic;
}

struct Choice {
  Isa isa;
  std::string problem;
};

Choice choose() {
  const Isa best = best_isa();
  const char* wanted = std::getenv("FLASH_GSA_ISA");
  if (!wanted || !*wanted) return {best, ""};
  const std::string name = wanted;
  const std::string using_instead = "; using " + std::string(kNames[static_cast<int>(best)]);
  for (int i = 0; i < 3; ++i) {
    if (name != kNames[i]) continue;
    if (i <= static_cast<int>(best)) return {static_cast<Isa>(i), ""};
    return {best, "FLASH_GSA_ISA=" + name + " is not supported by this processor" + using_instead};
  }
  return {best, "Expected generic, avx2 or avx512 for FLASH_GSA_ISA but received " + name + using_instead};
}

const Choice& choice() {
  static const Choice chosen = choose();
  return chosen;
}

}  // namespace

Isa isa() { return choice().isa; }
const char* isa_name() { return kNames[static_cast<int>(isa())]; }
const std::string& isa_problem() { return choice().problem; }

}  // namespace gsa::cpu
