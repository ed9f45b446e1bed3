// Device memory behind a range of addresses (heap.h), by the driver's virtual memory management.
#pragma once

#include <memory>

#include "heap.h"

namespace gsa::cuda {

// For up to `total` bytes of device `index`, which is current. nullptr where the driver or the device does
// not know virtual memory management, or FLASH_GSA_HEAP=0 is in the environment.
std::unique_ptr<Pages> device_pages(int index, uint64_t total);

}  // namespace gsa::cuda
