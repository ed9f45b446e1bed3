// Walks every schedule of the sweeps on the host: each step of each walk is done once, pieces run from their
// start to their stop, and whoever goes on with a walk takes it from the cluster before, which began with it.
// Prints the number of clusters looked at, or what is wrong.
#include "../../native/ops/gsa/sweep_line.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <random>
#include <utility>
#include <vector>

using namespace gsa::sm90;

using Done = std::map<std::pair<int64_t, int>, int>;  // (walk, step) -> cluster

struct Batch {
  std::vector<int64_t> begins;  // [sequences + 1]
  int64_t heads, group;
  int64_t sequences() const { return static_cast<int64_t>(begins.size()) - 1; }
  int64_t rows(int64_t n) const { return begins[n + 1] - begins[n]; }
  int64_t steps(int64_t n) const { return (rows(n) + kStep - 1) / kStep; }
};

struct Cut {
  std::vector<int> begins;
  std::vector<Piece> pieces;
  int64_t all = 0;
  // One cluster a walk at most, or as many as are worthwhile.
  Cut(const Batch& b, int launched, bool whole) {
    for (int64_t n = 0; n < b.sequences(); ++n) all += b.steps(n) * b.heads;
    const int64_t clusters =
        whole ? std::min<int64_t>(launched, b.sequences() * b.heads) : worthwhile(all, launched);
    pieces.assign(all, {-1, -1, -1, -1, -1, -1, -1, -1});
    for (int c = 0; c <= launched; ++c) begins.push_back(static_cast<int>(interval_begin(c, all, clusters)));
    int64_t first = 0;
    for (int64_t n = 0; n < b.sequences(); ++n)
      for (int64_t h = 0; h < b.heads && b.steps(n) > 0; ++h, first += b.steps(n))
        cut_walk({static_cast<int>(b.begins[n]), static_cast<int>(b.rows(n)), static_cast<int>(n),
                  static_cast<int>(h), static_cast<int>(h / b.group), 0, 0, static_cast<int>(b.steps(n))},
                 first, all, clusters, pieces.data());
  }
};

template <bool kReverse>
const char* check_cluster(const Line& line, int cluster, const Batch& b, Done& done) {
  bool inside = false;
  int i = 0;
  for (Cursor<kReverse> at(line); at.inside(); at.advance(), ++i) {
    const Location x = at.here;
    if (x.sequence < 0 || x.sequence >= b.sequences() || x.head < 0 || x.head >= b.heads) return "no walk";
    const int64_t walk = x.sequence * b.heads + x.head;
    const int steps = static_cast<int>(b.steps(x.sequence));
    if (x.steps != steps || x.step < x.start || x.step >= x.stop || x.stop > steps)
      return "a step outside its piece";
    if (x.chunk != (kReverse ? steps - 1 - x.step : x.step)) return "a wrong chunk";
    if (x.row != b.begins[x.sequence] + int64_t{x.chunk} * kStep ||
        x.rows != b.begins[x.sequence + 1] - x.row || x.rows < 1)
      return "wrong rows";
    if (x.kv_head != x.head / b.group) return "a head with another's keys and values";
    if (!done.insert({{walk, x.step}, cluster}).second) return "a step done twice";
    if (inside == (x.step == x.start)) return "a piece that does not run from its start to its stop";
    if (x.step == x.start && x.start > 0) {
      const auto giver = done.find({walk, x.start - 1});
      if (giver == done.end() || giver->second != cluster - 1)
        return "a walk taken over from another than the cluster before";
      // From its first piece: the state at a cut lies at the number of the cluster before it.
      if (i > 0 && x.stop != x.steps) return "two cuts in one piece that is not the whole interval";
    }
    if (x.stop != x.steps && i >= x.stop - x.start) return "a cut after another than the first piece";
    inside = x.step + 1 != x.stop;
  }
  return inside ? "a piece that does not end" : nullptr;
}

template <bool kReverse>
const char* check(const Batch& b, int clusters, bool whole) {
  const Cut cut(b, clusters, whole);
  Done done;
  for (int cluster = 0; cluster < clusters; ++cluster)
    if (const char* wrong =
            check_cluster<kReverse>(Line({cut.begins.data(), cut.pieces.data()}, cluster), cluster, b, done))
      return wrong;
  return static_cast<int64_t>(done.size()) == cut.all ? nullptr : "steps that nobody does";
}

long clusters_seen = 0;
bool check_both(const Batch& b, int clusters, bool whole, const char* what, int seed) {
  const char* wrong = check<false>(b, clusters, whole);
  if (!wrong) wrong = check<true>(b, clusters, whole);
  if (wrong)
    std::printf("%s %d: %d sequences, H %d, %d rows in %d clusters: %s\n", what, seed,
                static_cast<int>(b.sequences()), static_cast<int>(b.heads), static_cast<int>(b.begins.back()),
                clusters, wrong);
  clusters_seen += 2 * clusters;
  return !wrong;
}

int main() {
  for (const int64_t N : {1, 2, 3, 8, 16})
    for (const int64_t H : {1, 3, 4, 5})
      for (const int64_t T : {1, 63, 64, 65, 130, 2048, 4096}) {
        Batch b{{}, H, H % 2 == 0 ? 2 : 1};
        for (int64_t n = 0; n <= N; ++n) b.begins.push_back(n * T);
        for (int clusters = 1; clusters <= 33; ++clusters)
          for (const bool whole : {true, false})
            if (!check_both(b, clusters, whole, "T", static_cast<int>(T))) return 1;
      }
  // Documents, many of them empty or short; also more clusters than steps.
  for (int seed = 0; seed < 200; ++seed) {
    std::mt19937 engine(seed);
    const auto below = [&](int n) { return static_cast<int>(engine() % n); };
    Batch b{{0}, 1 + below(5), 1};
    for (int n = below(40); n >= 0; --n)
      b.begins.push_back(b.begins.back() + (below(3) == 0 ? 0 : below(below(4) == 0 ? 3000 : 200)));
    if (!check_both(b, 1 + below(132), false, "documents", seed)) return 1;
  }
  std::printf("%ld\n", clusters_seen);
}
