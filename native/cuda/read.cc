#include "read.h"

#include <cstring>
#include <memory>

#include "status.h"

struct gsa_read {
  void* dst;
  void* staging;
  uint64_t bytes;
  cudaEvent_t done;
};

namespace gsa::cuda {

gsa_read* start_read(gsa_device& device, void* dst, const void* src, uint64_t bytes) {
  select(device);
  auto read = std::make_unique<gsa_read>(gsa_read{dst, nullptr, bytes, nullptr});
  check(cudaMallocHost(&read->staging, bytes), "allocating pinned memory");
  check(cudaMemcpyAsync(read->staging, src, bytes, cudaMemcpyDeviceToHost, device.stream), "copying");
  check(cudaEventCreateWithFlags(&read->done, cudaEventBlockingSync | cudaEventDisableTiming),
        "creating an event");
  check(cudaEventRecord(read->done, device.stream), "recording an event");
  return read.release();
}

void end_read(gsa_device& device, gsa_read* started) {
  const std::unique_ptr<gsa_read> read(started);
  select(device);
  check(cudaEventSynchronize(read->done), "copying");
  std::memcpy(read->dst, read->staging, read->bytes);
  cudaEventDestroy(read->done);
  cudaFreeHost(read->staging);
}

}  // namespace gsa::cuda
