// silu and SwiGLU on CUDA: one pass, 16-byte accesses, float32 arithmetic.
#include "../../cuda/kernel.cuh"
#include "params.h"

namespace gsa::cuda {

namespace {

constexpr int kThreads = 256;

template <typename T>
struct Pointers {
  const T* in[3];
  T* out[2];
};

// out = f(in) element by element, kVector at a time; what is past the last full vector is done one by one.
template <typename T, int kIn, int kOut, int kVector, typename F>
__global__ void __launch_bounds__(kThreads) map_kernel(Pointers<T> p, int64_t n, F f) {
  using Vector = Pack<T, kVector>;
  const int64_t first = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = first; i < n / kVector; i += step) {
    Vector v[kIn], w[kOut];
#pragma unroll
    for (int a = 0; a < kIn; ++a) v[a] = reinterpret_cast<const Vector*>(p.in[a])[i];
#pragma unroll
    for (int e = 0; e < kVector; ++e) {
      float x[kIn], y[kOut];
#pragma unroll
      for (int a = 0; a < kIn; ++a) x[a] = to_float(v[a].x[e]);
      f(x, y);
#pragma unroll
      for (int a = 0; a < kOut; ++a) w[a].x[e] = from_float<T>(y[a]);
    }
#pragma unroll
    for (int a = 0; a < kOut; ++a) reinterpret_cast<Vector*>(p.out[a])[i] = w[a];
  }
  const int64_t tail = n / kVector * kVector + first;
  if (tail < n) {
    float x[kIn], y[kOut];
    for (int a = 0; a < kIn; ++a) x[a] = to_float(p.in[a][tail]);
    f(x, y);
    for (int a = 0; a < kOut; ++a) p.out[a][tail] = from_float<T>(y[a]);
  }
}

struct SiluForward {
  __device__ void operator()(const float* x, float* y) const { y[0] = x[0] * sigmoid(x[0]); }
};

// d/dx x sigmoid(x) = sigmoid(x) (1 + x (1 - sigmoid(x)))
__device__ __forceinline__ float silu_slope(float x) {
  const float sg = sigmoid(x);
  return sg * (1.0f + x * (1.0f - sg));
}

struct SiluBackward {  // dy, x -> dx
  __device__ void operator()(const float* x, float* y) const { y[0] = x[0] * silu_slope(x[1]); }
};

struct SwigluForward {  // gate, up -> y
  __device__ void operator()(const float* x, float* y) const { y[0] = x[0] * sigmoid(x[0]) * x[1]; }
};

struct SwigluBackward {  // dy, gate, up -> dgate, dup
  __device__ void operator()(const float* x, float* y) const {
    y[0] = x[0] * x[2] * silu_slope(x[1]);
    y[1] = x[0] * x[1] * sigmoid(x[1]);
  }
};

template <int kIn, int kOut, typename F>
void launch(gsa_device& device, const activation::Activation& a, F f) {
  if (a.n == 0) return;
  with_float_type(a.dtype, "activations", [&](auto type) {
    using T = decltype(type);
    constexpr int kVector = 16 / sizeof(T);
    Pointers<T> p{};
    bool aligned = true;
    for (int i = 0; i < kIn; ++i) {
      p.in[i] = static_cast<const T*>(a.in[i]);
      aligned = aligned && reinterpret_cast<uintptr_t>(p.in[i]) % 16 == 0;
    }
    for (int i = 0; i < kOut; ++i) {
      p.out[i] = static_cast<T*>(a.out[i]);
      aligned = aligned && reinterpret_cast<uintptr_t>(p.out[i]) % 16 == 0;
    }
    // A view may start anywhere.
    if (aligned)
      map_kernel<T, kIn, kOut, kVector>
          <<<grid_for(device, a.n / kVector + 1, kThreads), kThreads, 0, device.stream>>>(p, a.n, f);
    else
      map_kernel<T, kIn, kOut, 1><<<grid_for(device, a.n, kThreads), kThreads, 0, device.stream>>>(p, a.n, f);
  });
}

}  // namespace

void silu_fwd(gsa_device& device, const Args& args) {
  launch<1, 1>(device, activation::read_activation(args, activation::kSiluFwd), SiluForward{});
}

void silu_bwd(gsa_device& device, const Args& args) {
  launch<2, 1>(device, activation::read_activation(args, activation::kSiluBwd), SiluBackward{});
}

void swiglu_fwd(gsa_device& device, const Args& args) {
  launch<2, 1>(device, activation::read_activation(args, activation::kSwigluFwd), SwigluForward{});
}

void swiglu_bwd(gsa_device& device, const Args& args) {
  launch<3, 2>(device, activation::read_activation(args, activation::kSwigluBwd), SwigluBackward{});
}

}  // namespace gsa::cuda
