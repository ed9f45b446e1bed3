// Copies between host and device, by way of pinned memory (staging.h).
#pragma once

#include "device.h"

namespace gsa::cuda {

// Ordered after all work submitted before. To the device: returns when `src` may be reused, the device goes
// on by itself. To the host: returns when the data is there.
void copy(gsa_device& device, void* dst, const void* src, uint64_t bytes, gsa_copy_kind kind);

// A copy to the host that is not waited for; see read_start and read_end in abi/gsa_abi.h.
gsa_read* start_read(gsa_device& device, void* dst, const void* src, uint64_t bytes);
void end_read(gsa_device& device, gsa_read* read);

}  // namespace gsa::cuda
