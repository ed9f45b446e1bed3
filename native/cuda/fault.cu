#include "fault.h"

namespace gsa::cuda {

namespace {

__global__ void trap_kernel() { asm("trap;"); }

}  // namespace

void trap(gsa_device& device) { trap_kernel<<<1, 1, 0, device.stream>>>(); }

}  // namespace gsa::cuda
