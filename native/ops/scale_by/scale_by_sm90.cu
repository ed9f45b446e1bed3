#include "../../cuda/kernel.cuh"
#include "params.h"

namespace gsa::cuda {

namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) scale_by_kernel(scaling::ScaleBy p) {
  const float factor = *p.factor;
  for (int64_t i = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x; i < p.n;
       i += static_cast<int64_t>(gridDim.x) * kThreads)
    p.y[i] = factor * p.x[i];
}

}  // namespace

void scale_by(gsa_device& device, const Args& args) {
  const scaling::ScaleBy p = scaling::read_scale_by(args);
  if (p.n > 0) scale_by_kernel<<<grid_for(device, p.n, kThreads), kThreads, 0, device.stream>>>(p);
}

}  // namespace gsa::cuda
