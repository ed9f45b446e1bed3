// A CUDA device as a gsa_device: one stream that all work goes through, a heap of its memory in the order of
// that stream, and pinned memory for copies.
#pragma once

#include <cuda_runtime_api.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "../abi/args.h"
#include "../abi/debug_memory.h"
#include "heap.h"
#include "staging.h"

struct gsa_device {
  int index;
  cudaStream_t stream;
  cudaMemPool_t pool;
  int multiprocessors;

  gsa::cuda::Staging staging;
  std::mutex spill_mutex;  // whose copy uses the staging's shared block

  std::mutex mutex;                       // guards what follows
  std::unique_ptr<gsa::cuda::Heap> heap;  // null: memory is the pool's, at a call of the driver a block
  gsa_memory_stats stats;
  uint64_t memory_limit;
  uint64_t cache_limit;

  std::atomic<bool> lost;
  std::string lost_reason;                            // written once, before `lost`
  std::unique_ptr<gsa::debug_memory::Ledger> ledger;  // null unless memory is debugged
};

namespace gsa::cuda {

int32_t count_devices();
gsa_device_info describe_device(int32_t index);
gsa_device& open_device(int32_t index);  // the same object each time; never closed

void* allocate(gsa_device& device, uint64_t bytes);
void release(gsa_device& device, void* ptr, uint64_t bytes) noexcept;
gsa_memory_stats memory_stats(gsa_device& device, bool reset_peak);

void synchronize(gsa_device& device);
void set_option(gsa_device& device, const char* name, double value);
double get_option(gsa_device& device, const char* name);

// Makes the device current for the calling thread: every entry from outside starts with it.
void select(const gsa_device& device);

// After an error that its context does not survive a device is lost, for good: throws GSA_DEVICE_LOST then.
void expect_usable(const gsa_device& device);
// What a call that failed with `status` has shown: returns GSA_DEVICE_LOST, and remembers it, where the
// context is gone, whichever library noticed; else `status`.
gsa_status diagnose(gsa_device& device, gsa_status status, gsa_error* error) noexcept;

}  // namespace gsa::cuda
