// Points in a device's work, for timing.
#pragma once

#include "device.h"

struct gsa_event {
  cudaEvent_t event;
};

namespace gsa::cuda {

gsa_event* record_event(gsa_device& device);
void wait_for(gsa_device& device, const gsa_event& event);
double elapsed_milliseconds(gsa_device& device, const gsa_event& from, const gsa_event& to);
void free_event(gsa_device& device, gsa_event* event) noexcept;

}  // namespace gsa::cuda
