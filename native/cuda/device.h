// A CUDA device as a gsa_device: one stream that all work goes through, and the driver's stream-ordered
// memory pool.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <mutex>

#include "../abi/args.h"

struct gsa_device {
  int index;
  cudaStream_t stream;
  cudaMemPool_t pool;
  int multiprocessors;

  std::mutex mutex;  // guards what follows
  gsa_memory_stats stats;
  uint64_t memory_limit;
  uint64_t cache_limit;
};

namespace gsa::cuda {

int32_t count_devices();
gsa_device_info describe_device(int32_t index);
gsa_device& open_device(int32_t index);  // the same object each time; never closed

void* allocate(gsa_device& device, uint64_t bytes);
void release(gsa_device& device, void* ptr, uint64_t bytes) noexcept;
void copy(gsa_device& device, void* dst, const void* src, uint64_t bytes, gsa_copy_kind kind);
void synchronize(gsa_device& device);
gsa_memory_stats memory_stats(gsa_device& device, bool reset_peak);
void set_option(gsa_device& device, const char* name, double value);
double get_option(gsa_device& device, const char* name);

// Makes the device current for the calling thread: every entry from outside starts with it.
void select(const gsa_device& device);

}  // namespace gsa::cuda
