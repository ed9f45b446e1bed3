#include "event.h"

#include <memory>

#include "status.h"

namespace gsa::cuda {

gsa_event* record_event(gsa_device& device) {
  select(device);
  auto made = std::make_unique<gsa_event>();
  check(cudaEventCreate(&made->event), "creating an event");
  const cudaError_t recorded = cudaEventRecord(made->event, device.stream);
  if (recorded != cudaSuccess) cudaEventDestroy(made->event);
  check(recorded, "recording an event");
  return made.release();
}

void wait_for(gsa_device& device, const gsa_event& event) {
  select(device);
  check(cudaEventSynchronize(event.event), "waiting for an event");
}

double elapsed_milliseconds(gsa_device& device, const gsa_event& from, const gsa_event& to) {
  wait_for(device, from);
  wait_for(device, to);
  float milliseconds = 0;
  check(cudaEventElapsedTime(&milliseconds, from.event, to.event), "reading the time between events");
  return milliseconds;
}

void free_event(gsa_device& device, gsa_event* event) noexcept {
  if (cudaSetDevice(device.index) == cudaSuccess) cudaEventDestroy(event->event);
  delete event;
}

}  // namespace gsa::cuda
