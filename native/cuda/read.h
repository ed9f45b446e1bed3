// Copies to the host that nobody waits for on the calling thread.
#pragma once

#include "device.h"

namespace gsa::cuda {

gsa_read* start_read(gsa_device& device, void* dst, const void* src, uint64_t bytes);
void end_read(gsa_device& device, gsa_read* read);

}  // namespace gsa::cuda
