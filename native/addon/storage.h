// Allocations on devices, and what garbage collection is told of them.
#pragma once

#include <napi.h>

#include <cstdint>
#include <memory>

#include "backends.h"

namespace gsa::addon {

// When to ask for a garbage collection, since tensors that were forgotten on a device go only with their
// handles, and V8 does not see their size. A mark stands above the memory in use; where that passes it,
// garbage is collected. A collection that finds nothing costs time, so a program that disposes of what it
// makes must meet few of them, and one that forgets must not find the mark where an earlier, larger need has
// left it:
// - a collection moves the mark above what is in use then;
// - where it found much, the mark comes down to what is in use;
// - where use falls to half the mark, because a lot was disposed of, the mark follows too. If the collection
// that
//   this brings finds nothing, the mark goes back to where it was before the fall, and twice as many falls
//   as the last time pass before it follows again. A training step rises and falls once, so a million steps
//   meet some twenty such collections.
class CollectionMark {
 public:
  // Bytes `in_use` now, and `collected` as garbage so far. Whether to collect.
  bool passed(int64_t in_use, int64_t collected);

 private:
  static constexpr int64_t kSlack = int64_t{1} << 30;
  static int64_t above(int64_t in_use);

  int64_t mark_ = kSlack;
  int64_t collected_ = 0;  // before the last collection
  bool high_ = false;      // use was above half the mark since the last fall
  int64_t peak_ = 0;       // of use since the mark last followed a fall
  int64_t before_ = 0;     // where the mark goes back to
  int64_t falls_left_ = 1, patience_ = 1;
};

// Per Node.js thread; outlives it as long as a storage refers to it.
struct Counters {
  double finalized = 0;  // storages freed by garbage collection
  double alive = 0;
  int64_t host_bytes = 0;       // that live storages hold in host memory
  int64_t host_bytes_told = 0;  // that garbage collection knows of
  int64_t device_bytes = 0;     // that live storages hold elsewhere
  int64_t device_bytes_collected = 0;
  CollectionMark mark;
};

// One allocation on a device, shared by a tensor and its views. Used by one Node.js thread only.
class Storage {
 public:
  Storage(Napi::Env env, Device device, uint64_t bytes, std::shared_ptr<Counters> counters);
  ~Storage();
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  void count_as_garbage();  // when garbage collection is about to free it

  const Device device;
  const uint64_t bytes;
  void* data = nullptr;
  const std::shared_ptr<Counters> counters;

 private:
  int64_t& held() const;  // the counter that this storage is in
};

}  // namespace gsa::addon
