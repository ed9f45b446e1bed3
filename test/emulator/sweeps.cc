// The sweeps of gated slot attention, emulated, against float64. One line a case; exits with 1 where an error
// is past 1e-2, the bound of bfloat16 everywhere in this project.
#include "layer.h"
#include "native/ops/gsa/sweeps_sm90.h"
#include "reference.h"

namespace {

bool run(const Case& c) {
  const Problem p(c, true);
  emulator::clusters_of_device = c.clusters;
  gsa_device device;
  if (!gsa::sm90::sweep_takes(p.d, GSA_BFLOAT16))
    return std::printf("%s: not a shape of the sweeps\n", c.name.c_str()), false;
  struct Sweeps {
    gsa_device& device;
    void operator()(const ChunkFwd& x) const { gsa::sm90::sweep_fwd(device, x); }
    void operator()(const ChunkBwd& x) const { gsa::sm90::sweep_bwd(device, x); }
  };
  return check(p, Verdict{}, Sweeps{device},
               [&](const Results& r, const ChunkBwd& backward, Verdict& verdict) {
                 if (c.HQ != c.H || c.M != 64) return;
                 check_layer_backward(device, p, r, backward, verdict);
                 check_layer_forward(device, p, backward.in, verdict);
               });
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<int32_t> ragged{0, 0, 1, 17, 17, 80, 144, 209, 209};
  std::vector<Case> cases{
      {"3 walks cut into 2 clusters, T 130 K=V=64", 3, 130, 1, 1, 64, NAN, {}, 2, 0.5},
      {"5 walks cut into 4 clusters, T 200 K=V=64", 5, 200, 1, 1, 64, NAN, {}, 4, 1},
      {"3 walks cut into 2 clusters of 4 blocks, T 130 K=V=512", 3, 130, 1, 1, 512, NAN, {}, 2, 0.2},
      {"clusters of 2 blocks, gates to 6 nats, T 200 K=V=256", 1, 200, 1, 1, 256, -6, {}, 9, 1},
      {"gates to 0.5 nats, T 300 K=V=128", 1, 300, 1, 1, 128, -0.5, {}, 4, 1},
      {"gates to 20 nats, T 100 K=V=128", 1, 100, 1, 1, 128, -20, {}, 4, 1},
      {"gates to 5 nats, about 40 in 16 rows, T 130 K=V=64", 1, 130, 1, 1, 64, -5, {}, 4, 1},
      {"gates to 10,000 nats, T 70 K=V=64", 1, 70, 1, 1, 64, -1e4, {}, 4, 1},
      {"documents, some empty, K=V=64", 1, 209, 2, 2, 64, NAN, ragged, 9, 1},
      {"grouped queries, T 100 HQ 4 H 2 K=V=128", 2, 100, 4, 2, 128, NAN, {}, 5, 0.5},
      {"grouped queries, walks cut, clusters of 2 blocks, T 130 HQ 3 H 1 K=V=256",
       1,
       130,
       3,
       1,
       256,
       -6,
       {},
       2,
       0.5},
      {"grouped queries, documents, some empty, HQ 8 H 2 K=V=64", 1, 209, 8, 2, 64, NAN, ragged, 9, 1},
  };
  // Fewer walks than clusters: the states at the cuts are there before the sweep.
  const std::vector<int32_t> few{0, 700, 700, 716, 1100, 1100};
  const std::vector<Case> long_ones{
      {"a walk in 4 clusters, T 1000 K=V=64", 1, 1000, 1, 1, 64, NAN, {}, 9, 0.5},
      {"a walk in 3 clusters, gates to 1e-3 nats, T 1000 K=V=128", 1, 1000, 1, 1, 128, -1e-3, {}, 3, 0.1},
      {"2 walks in 5 clusters, T 700 K=V=64", 1, 700, 2, 2, 64, NAN, {}, 5, 0.5},
      {"a walk in 2 clusters, 20 slots keep what the others forget, T 1500 K=V=64",
       1,
       1500,
       1,
       1,
       64,
       -1,
       {},
       2,
       0.2,
       20},
      {"a walk in 2 clusters, gates to 10,000 nats, T 600 K=V=64", 1, 600, 1, 1, 64, -1e4, {}, 2, 1},
      {"a walk in 3 clusters of 2 blocks, T 900 K=V=256", 1, 900, 1, 1, 256, NAN, {}, 3, 0.3},
      {"a walk in 3 clusters of 4 blocks, T 770 K=V=512", 1, 770, 1, 1, 512, NAN, {}, 3, 0.2},
      {"grouped queries in 7 clusters, T 700 HQ 4 H 2 K=V=128", 1, 700, 4, 2, 128, NAN, {}, 7, 0.3},
      {"a document in 3 of 4 clusters, gates to 1e-2 nats, T 960 K=V=64",
       1,
       960,
       1,
       1,
       64,
       -1e-2,
       {0, 960},
       4,
       0.1},
      {"documents cut into 7 clusters, T 1100 K=V=64", 1, 1100, 2, 2, 64, NAN, few, 7, 0.5},
      {"documents cut into 3 clusters of 2 blocks, T 1100 K=V=256", 1, 1100, 1, 1, 256, NAN, few, 3, 0.3},
  };
  cases.insert(cases.end(), long_ones.begin(), long_ones.end());
  for (const int T : {0, 1, 15, 16, 17, 63, 64, 65, 127})
    cases.push_back({"T " + std::to_string(T) + " K=V=64", 1, T, 1, 1, 64, NAN, {}, 9, 1});
  // 128 slots: two halves, in clusters of twice as many blocks forward.
  const std::vector<Case> slots{
      {"T 130 K=V=64", 2, 130, 2, 2, 64, NAN, {}, 9, 0.5},
      {"T 17 K=V=64", 1, 17, 1, 1, 64, NAN, {}, 9, 1},
      {"T 40 K=V=128", 1, 40, 1, 1, 128, NAN, {}, 9, 1},
      {"gates to 6 nats, T 200 K=V=128", 1, 200, 1, 1, 128, -6, {}, 9, 1},
      {"3 walks cut into 2 clusters, T 130 K=V=256", 3, 130, 1, 1, 256, NAN, {}, 2, 0.3},
      {"clusters of 8 blocks, T 200 K=V=512", 1, 200, 2, 2, 512, NAN, {}, 1, 0.2},
      {"gates to 10,000 nats, T 70 K=V=64", 1, 70, 1, 1, 64, -1e4, {}, 9, 1},
      {"documents, some empty, K=V=64", 1, 209, 2, 2, 64, NAN, ragged, 3, 1},
  };
  for (Case c : slots) {
    c.M = 128;
    c.name = "M 128, " + c.name;
    cases.push_back(c);
  }
  // What enters a row is a hundredth of what it writes itself.
  for (const int M : {64, 128})
    cases.push_back({"M " + std::to_string(M) + ", a document of one row, every gate of 4 to 5 nats, K=V=64",
                     1,
                     66,
                     2,
                     2,
                     64,
                     -5,
                     {0, 1, 1, 66},
                     9,
                     0.125,
                     0,
                     M,
                     0,
                     0.8,
                     0.6});
  // Last, since the cases draw from one engine: a gradient that all gates of 10,000 nats leave is what is
  // left when everything cancels, and how far it is from its sum depends on the draw (README-sweeps.md).
  cases.push_back(
      {"documents, some empty, clusters of 2 blocks, K=V=256", 1, 209, 1, 1, 256, NAN, ragged, 9, 1});
  cases.push_back(
      {"documents, some empty, clusters of 4 blocks, K=V=512", 1, 209, 1, 1, 512, NAN, ragged, 9, 0.3});
  // With an argument: those whose names it is part of.
  bool pass = true;
  for (const Case& c : cases)
    if (argc < 2 || c.name.find(argv[1]) != std::string::npos) pass &= run(c);
  return pass ? 0 : 1;
}
