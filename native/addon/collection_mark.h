// When forgotten tensors on a device are worth a garbage collection.
#pragma once

#include <cstdint>

namespace gsa::addon {

// When to ask for a garbage collection, since tensors that were forgotten on a device go only with their
// handles, and V8 does not see their size. A mark stands above the memory in use; where that passes it,
// garbage is collected. A collection that finds nothing costs time, so a program that disposes of what it
// makes must meet few of them, and one that forgets must not find the mark where an earlier, larger need has
// left it:
// - a collection moves the mark above what is in use then;
// - where it found much, the mark comes down to what is in use;
// - where use falls to half the mark, because a lot was disposed of, the mark follows too. If the collection
//   that this brings finds nothing, the mark goes back to where it was before the fall, and twice as many
//   falls as the last time pass before it follows again. A training step rises and falls once, so a million
//   steps meet some twenty such collections;
// - where the last few found nothing, V8 may take its time over the next: one that is made at once takes
//   10 to 20 ms, and shrinks its heap.
class CollectionMark {
 public:
  enum class Collect { kNo, kSoon, kNow };
  // Bytes `in_use` now, and `collected` as garbage so far.
  Collect passed(int64_t in_use, int64_t collected);

 private:
  static constexpr int64_t kSlack = int64_t{1} << 30;
  static constexpr int64_t kPatient = 8;
  static int64_t above(int64_t in_use);

  int64_t mark_ = kSlack;
  int64_t collected_ = 0;  // before the last collection
  bool high_ = false;      // use was above half the mark since the last fall
  int64_t peak_ = 0;       // of use since the mark last followed a fall
  int64_t before_ = 0;     // where the mark goes back to
  int64_t falls_left_ = 1, patience_ = 1;
};

}  // namespace gsa::addon
