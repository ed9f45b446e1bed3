// Walks every schedule of the sweeps on the host: each step of each walk is done once, pieces run from their
// start to their stop, and whoever goes on with a walk takes it from the cluster before, which began with it.
// Prints the number of clusters looked at, or what is wrong.
#include "../../native/ops/gsa/sweep_line.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <utility>

using namespace gsa::sm90;

using Done = std::map<std::pair<int64_t, int>, int>;  // (walk, step) -> cluster

template <bool kReverse>
const char* check_cluster(const Line& line, int cluster, int64_t T, int64_t H, int group, int steps,
                          Done& done) {
  bool inside = false;
  for (int i = 0; i < line.total(); ++i) {
    const Location x = line.locate<kReverse>(i);
    const int64_t walk = x.sequence * H + x.head;
    if (x.steps != steps || x.step < x.start || x.step >= x.stop || x.stop > steps)
      return "a step outside its piece";
    if (x.chunk != (kReverse ? steps - 1 - x.step : x.step)) return "a wrong chunk";
    if (x.row != x.sequence * T + int64_t{x.chunk} * kStep || x.rows != (x.sequence + 1) * T - x.row ||
        x.rows < 1)
      return "wrong rows";
    if (x.kv_head != x.head / group) return "a head with another's keys and values";
    if (!done.insert({{walk, x.step}, cluster}).second) return "a step done twice";
    if (inside == (x.step == x.start)) return "a piece that does not run from its start to its stop";
    if (x.step == x.start && x.start > 0) {
      const auto giver = done.find({walk, x.start - 1});
      if (giver == done.end() || giver->second != cluster - 1)
        return "a walk taken over from another than the cluster before";
    }
    inside = x.step + 1 != x.stop;
  }
  return inside ? "a piece that does not end" : nullptr;
}

template <bool kReverse>
const char* check(int64_t N, int64_t H, int64_t T, int clusters) {
  const int steps = static_cast<int>((T + kStep - 1) / kStep), group = H % 2 == 0 ? 2 : 1;
  Done done;
  for (int cluster = 0; cluster < clusters; ++cluster)
    if (const char* wrong = check_cluster<kReverse>(Line(nullptr, T, N, H, group, cluster, clusters), cluster,
                                                    T, H, group, steps, done))
      return wrong;
  return static_cast<int64_t>(done.size()) == N * H * steps ? nullptr : "steps that nobody does";
}

int main() {
  long clusters_seen = 0;
  for (const int64_t N : {1, 2, 3, 8, 16})
    for (const int64_t H : {1, 3, 4, 5})
      for (const int64_t T : {1, 63, 64, 65, 130, 2048, 4096})
        for (int fit = 1; fit <= 33; ++fit) {
          const int clusters = static_cast<int>(std::min<int64_t>(fit, N * H));
          const char* wrong = check<false>(N, H, T, clusters);
          if (!wrong) wrong = check<true>(N, H, T, clusters);
          if (wrong) {
            std::printf("N %d H %d T %d in %d clusters: %s\n", static_cast<int>(N), static_cast<int>(H),
                        static_cast<int>(T), clusters, wrong);
            return 1;
          }
          clusters_seen += 2 * clusters;
        }
  std::printf("%ld\n", clusters_seen);
}
