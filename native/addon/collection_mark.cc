#include "collection_mark.h"

#include <algorithm>

namespace gsa::addon {

int64_t CollectionMark::above(int64_t in_use) { return in_use + std::max(kSlack, in_use / 4); }

CollectionMark::Collect CollectionMark::passed(int64_t in_use, int64_t collected) {
  peak_ = std::max(peak_, in_use);
  if (collected - collected_ >= kSlack / 2) {
    collected_ = collected;
    mark_ = std::min(mark_, above(in_use));
    before_ = 0;
    falls_left_ = patience_ = 1;
  }
  if (in_use > mark_ / 2) {
    high_ = true;
  } else if (high_) {
    high_ = false;
    if (--falls_left_ == 0) {
      mark_ = above(in_use);
      before_ = above(peak_);
      peak_ = in_use;
      patience_ = std::min(patience_ * 2, int64_t{1} << 40);
      falls_left_ = patience_;
    }
  }
  if (in_use <= mark_) return Collect::kNo;
  const bool in_vain = before_ > 0 && patience_ >= kPatient;
  mark_ = std::max(above(in_use), before_);
  before_ = 0;
  collected_ = collected;
  return in_vain ? Collect::kSoon : Collect::kNow;
}

}  // namespace gsa::addon
