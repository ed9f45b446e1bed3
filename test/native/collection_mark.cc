// When the addon asks for garbage collections (native/addon/collection_mark.h), over the memory of programs
// that are played back. Prints what it counted: collections at once and soon, and the most memory in use, in
// MiB.
#include "../../native/addon/collection_mark.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "../../native/addon/collection_mark.cc"

namespace {

using gsa::addon::CollectionMark;

constexpr int64_t kMiB = 1 << 20, kGiB = int64_t{1} << 30;

struct Program {
  CollectionMark mark;
  int64_t live = 0, garbage = 0, collected = 0, most = 0;
  int now = 0, soon = 0, wait = -1;

  void take(int64_t bytes, bool forget = false) {
    (forget ? garbage : live) += bytes;
    most = std::max(most, live + garbage);
    const auto collect = mark.passed(live + garbage, collected);
    if (collect == CollectionMark::Collect::kNow) ++now, wait = 4;
    if (collect == CollectionMark::Collect::kSoon) ++soon, wait = 40;
    // Finalizers come at a turn of the event loop.
    if (wait >= 0 && wait-- == 0) collected += garbage, garbage = 0;
  }
  void give_back(int64_t bytes) { live -= bytes; }

  // A training step: 8 GiB rise and fall, above 2 GiB that stay.
  void step() {
    for (int i = 0; i < 64; ++i) take(128 * kMiB);
    for (int i = 0; i < 64; ++i) give_back(128 * kMiB);
  }
  void report(const char* what) {
    std::printf("%s: %d now, %d soon, %lld MiB\n", what, now, soon, static_cast<long long>(most / kMiB));
    now = soon = 0;
    most = live + garbage;
  }
};

}  // namespace

int main() {
  Program training;
  training.take(2 * kGiB);
  for (int i = 0; i < 50; ++i) training.step();
  training.report("50 steps");
  for (int i = 0; i < 2000; ++i) training.step();
  training.report("2,000 more");

  Program forgetting;
  for (int i = 0; i < 10000; ++i) forgetting.take(64 * kMiB, true);
  forgetting.report("forgetting");

  Program after;
  for (int i = 0; i < 50; ++i) after.take(kGiB);
  for (int i = 0; i < 50; ++i) after.give_back(kGiB);
  after.report("50 GiB");
  for (int i = 0; i < 10000; ++i) after.take(64 * kMiB, true);
  after.report("forgetting after 50 GiB");
}
