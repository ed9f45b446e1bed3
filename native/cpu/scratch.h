// Work memory of the calling thread that outlives the call, so that small kernels do not allocate.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace gsa::cpu {

struct FreeDeleter {
  void operator()(float* p) const { std::free(p); }
};

// At least n floats, 64-byte aligned, contents undefined; valid until the next call with the same slot on
// this thread. Slots: 0 and 1 belong to gemm.cc.
template <int kSlot>
float* scratch(int64_t n) {
  thread_local std::unique_ptr<float, FreeDeleter> buffer;
  thread_local int64_t capacity = 0;
  if (n > capacity) {
    buffer.reset();
    capacity = 0;
    const size_t bytes = (static_cast<size_t>(n) * sizeof(float) + 63) / 64 * 64;
    void* p = nullptr;
    if (posix_memalign(&p, 64, bytes) != 0) throw std::bad_alloc();
    buffer.reset(static_cast<float*>(p));
    capacity = n;
  }
  return buffer.get();
}

}  // namespace gsa::cpu
