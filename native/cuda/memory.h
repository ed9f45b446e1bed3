// Device memory beneath what tensors are given, and its debugging.
#pragma once

#include "device.h"

namespace gsa::cuda {

// Memory for a time that is not among what tensors use. nullptr: there is none.
void* take_uncounted(gsa_device& device, uint64_t bytes);
void give_uncounted_back(gsa_device& device, void* ptr) noexcept;

// Gives memory that nothing is in back to the driver, until `keep` bytes of it are left. The device must have
// nothing under way, and the caller hold its mutex.
void trim(gsa_device& device, uint64_t keep);

// Debugging: see abi/debug_memory.h. Slow: every look at a red zone waits for the device. The red zones of an
// op's tensors; throws what was found here or before.
void inspect(gsa_device& device, const Args& args);
// For tests: writes past the end of some block of that size.
void overrun(gsa_device& device, uint64_t bytes);

}  // namespace gsa::cuda
