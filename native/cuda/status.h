// CUDA runtime errors as OpError.
#pragma once

#include <cuda_runtime_api.h>

#include "../abi/args.h"

namespace gsa::cuda {

// Throws unless `status` is cudaSuccess: OUT_OF_MEMORY, DEVICE_LOST (the error is sticky: the context is gone
// and every later call returns it), UNSUPPORTED (no driver, no device, wrong architecture) or INTERNAL.
// `doing` completes "CUDA failed while ...".
void check(cudaError_t status, const char* doing);

}  // namespace gsa::cuda
