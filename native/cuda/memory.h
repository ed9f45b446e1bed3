// Debugging of device memory: see abi/debug_memory.h. Slow: every look at a red zone waits for the device.
#pragma once

#include "device.h"

namespace gsa::cuda {

// The red zones of an op's tensors; throws what was found here or before.
void inspect(gsa_device& device, const Args& args);
// For tests: writes past the end of some block of that size.
void overrun(gsa_device& device, uint64_t bytes);

}  // namespace gsa::cuda
