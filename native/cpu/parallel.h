// The CPU backend's threads: one pool per process, shared by every Node.js thread (calls take turns).
#pragma once

#include <cstdint>
#include <type_traits>

#include "../abi/args.h"

namespace gsa::cpu {

// Non-owning reference to a callable, so that the pool needs no allocation per call.
class RangeTask {
 public:
  template <typename F>
  RangeTask(F& f)  // NOLINT: implicit on purpose
      : object_(&f), call_([](void* o, int64_t b, int64_t e) { (*static_cast<F*>(o))(b, e); }) {}
  void operator()(int64_t begin, int64_t end) const { call_(object_, begin, end); }

 private:
  void* object_;
  void (*call_)(void*, int64_t, int64_t);
};

// Calls task(begin, end) on disjoint ranges that cover [0, n), each at least `grain` long where n allows, on
// up to thread_count() threads, and returns when all are done. Nested calls run inline. The split depends
// only on n, grain and the thread count, so results that depend on it are repeatable; ops must not let
// results depend on it (a reduction splits its work by fixed blocks, not by threads). The first exception
// thrown by a task is rethrown here.
void parallel_for_range(int64_t n, int64_t grain, RangeTask task);

template <typename F>
void parallel_for(int64_t n, int64_t grain, F&& f) {
  if (n <= 0) return;
  std::remove_reference_t<F>& ref = f;
  parallel_for_range(n, grain < 1 ? 1 : grain, RangeTask(ref));
}

int thread_count();
void set_thread_count(int count);  // 1 .. 1024; waits for running work

}  // namespace gsa::cpu
