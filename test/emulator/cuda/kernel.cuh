// In place of native/cuda/kernel.cuh: what the emulated kernels use of it.
#pragma once

#include <algorithm>

#include "../../emulator.h"
#include "device.h"

namespace gsa::cuda {

class Scratch {
 public:
  Scratch(gsa_device&, uint64_t bytes) : memory_(bytes, '\x7f') {}
  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(const_cast<char*>(memory_.data()));
  }

 private:
  std::vector<char> memory_;
};

inline bool aligned(std::initializer_list<const void*> addresses) {
  for (const void* address : addresses)
    if (reinterpret_cast<uintptr_t>(address) % 16 != 0) return false;
  return true;
}

}  // namespace gsa::cuda
