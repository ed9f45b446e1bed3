// The tensor-core path of gated slot attention, emulated, against float64: as it is for large calls, within
// 1e-2; exact, with no error but that of storing in bfloat16 (1.7e-3) what the caller stores so. One line a
// case; exits with 1 where an error is past the bound.
#include "native/ops/gsa/fast_sm90.h"
#include "reference.h"

namespace {

struct Fast {
  gsa_device& device;
  bool exact;
  void operator()(const ChunkFwd& x) const { gsa::sm90::fast_fwd(device, x, exact); }
  void operator()(const ChunkBwd& x) const { gsa::sm90::fast_bwd(device, x, exact); }
};

bool run(const Case& c) {
  const Problem p(c);
  gsa_device device;
  if (!gsa::sm90::fast_takes(p.d, GSA_BFLOAT16))
    return std::printf("%s: not a shape of the tensor-core path\n", c.name.c_str()), false;
  return check(p, Verdict{2e-3, 3e-5}, Fast{device, true}) & check(p, Verdict{}, Fast{device, false});
}

}  // namespace

int main() {
  const std::vector<int32_t> ragged{0, 0, 1, 17, 17, 80, 144, 209, 209};
  const auto make = [](std::string name, int B, int T, int HQ, int H, int K, int V, int M, double gate,
                       std::vector<int32_t> cu = {}, int keeping = 0) {
    return Case{std::move(name), B, T, HQ, H, K, gate, std::move(cu), 0, 0.5, keeping, M, V};
  };
  std::vector<Case> cases{
      make("T 130 K 64 V 128 M 64", 2, 130, 1, 1, 64, 128, 64, NAN),
      make("T 70 K 128 V 64 M 20", 1, 70, 1, 1, 128, 64, 20, NAN),
      make("T 130 K=V=64 M 128", 1, 130, 2, 2, 64, 64, 128, NAN),
      make("grouped queries, T 100 HQ 3 H 1 K 64 V 128 M 64", 1, 100, 3, 1, 64, 128, 64, -0.5),
      make("grouped queries, T 66 HQ 4 H 2 K=V=64 M 128", 1, 66, 4, 2, 64, 64, 128, NAN),
      make("documents, some empty, HQ 2 H 1 K=V=64 M 32", 1, 209, 2, 1, 64, 64, 32, NAN, ragged),
      make("gates to 20 nats, T 100 K=V=64 M 64", 1, 100, 1, 1, 64, 64, 64, -20),
      make("gates to 10,000 nats but for 20 slots, T 70 K=V=64 M 128", 1, 70, 1, 1, 64, 64, 128, -1e4, {},
           20),
      make("gates to 1e-3 nats, T 100 K=V=64 M 16", 1, 100, 1, 1, 64, 64, 16, -1e-3),
  };
  for (const int T : {0, 1, 15, 16, 17, 63, 64, 65})
    cases.push_back(make("T " + std::to_string(T) + " K=V=64 M 64", 1, T, 1, 1, 64, 64, 64, NAN));
  bool pass = true;
  for (const Case& c : cases) pass &= run(c);
  return pass ? 0 : 1;
}
