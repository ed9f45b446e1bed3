// The CPU as a gsa_device: there is one per process.
#pragma once

#include <cstdint>

#include "../abi/args.h"
#include "allocator.h"

struct gsa_device {
  gsa::cpu::Allocator allocator;
};

namespace gsa::cpu {

// Never destroyed: tensors may be freed by finalizers that run after static destructors.
gsa_device& the_device();

// Scratch space of an op from the device's allocator, so that a repeated op finds the pages it used before.
// Throws OpError(GSA_OUT_OF_MEMORY). 64-byte aligned, not cleared.
template <typename T>
class Scratch {
 public:
  Scratch(gsa_device& device, int64_t count)
      : device_(device), bytes_(static_cast<uint64_t>(count) * sizeof(T)), data_(nullptr) {
    if (bytes_ > 0) data_ = static_cast<T*>(device_.allocator.allocate(bytes_));
  }
  ~Scratch() { device_.allocator.release(data_, bytes_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  T* data() const { return data_; }
  T& operator[](int64_t i) const { return data_[i]; }

 private:
  gsa_device& device_;
  uint64_t bytes_;
  T* data_;
};

gsa_device_info describe_device();
void set_option(gsa_device& device, const char* name, double value);
double get_option(gsa_device& device, const char* name);

}  // namespace gsa::cpu
