// For tests of what happens after a fault on the device.
#pragma once

#include "device.h"

namespace gsa::cuda {

void trap(gsa_device& device);  // launches a kernel that ends in a trap: the context is lost

}  // namespace gsa::cuda
