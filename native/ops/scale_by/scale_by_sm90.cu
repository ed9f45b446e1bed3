#include "../../cuda/kernel.cuh"
#include "params.h"

namespace gsa::cuda {

namespace {

constexpr int kThreads = 256;

template <typename T>
__global__ void __launch_bounds__(kThreads) scale_by_kernel(scaling::ScaleBy p) {
  const float factor = *p.factor;
  const T* x = static_cast<const T*>(p.x);
  T* y = static_cast<T*>(p.y);
  for (int64_t i = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x; i < p.n;
       i += static_cast<int64_t>(gridDim.x) * kThreads)
    y[i] = from_float<T>(factor * to_float(x[i]));
}

}  // namespace

void scale_by(gsa_device& device, const Args& args) {
  const scaling::ScaleBy p = scaling::read_scale_by(args);
  if (p.n == 0) return;
  with_float_type(p.dtype, "x", [&](auto type) {
    scale_by_kernel<decltype(type)><<<grid_for(device, p.n, kThreads), kThreads, 0, device.stream>>>(p);
  });
}

}  // namespace gsa::cuda
