#include "../../cuda/kernel.cuh"
#include "params.h"

namespace gsa::cuda {

namespace {

constexpr int kThreads = 128;

// One block a (batch, position): the angles serve all of its heads.
template <typename T>
__global__ void __launch_bounds__(kThreads) rotary_kernel(rotation::Rotary p) {
  const int64_t half = p.D / 2, t = blockIdx.x % p.T;
  const T* x = static_cast<const T*>(p.x) + blockIdx.x * p.H * p.D;
  T* y = static_cast<T*>(p.y) + blockIdx.x * p.H * p.D;
  for (int64_t i = threadIdx.x; i < half; i += kThreads) {
    const double turns =
        static_cast<double>(p.offset + t) * pow(p.theta, -2.0 * static_cast<double>(i) / p.D);
    double sine, cosine;
    sincos(p.inverse ? -turns : turns, &sine, &cosine);
    const float s = static_cast<float>(sine), c = static_cast<float>(cosine);
    for (int64_t h = 0; h < p.H; ++h) {
      const float a = to_float(x[h * p.D + i]), b = to_float(x[h * p.D + i + half]);
      y[h * p.D + i] = from_float<T>(a * c - b * s);
      y[h * p.D + i + half] = from_float<T>(b * c + a * s);
    }
  }
}

}  // namespace

void rotary(gsa_device& device, const Args& args) {
  const rotation::Rotary p = rotation::read_rotary(args);
  if (p.B * p.T == 0 || p.H * p.D == 0) return;
  with_float_type(p.dtype, "x", [&](auto type) {
    rotary_kernel<decltype(type)><<<static_cast<unsigned>(p.B * p.T), kThreads, 0, device.stream>>>(p);
  });
}

}  // namespace gsa::cuda
