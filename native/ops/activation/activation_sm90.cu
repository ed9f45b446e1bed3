// silu and SwiGLU on CUDA: one pass, 16-byte accesses, float32 arithmetic. Tensors that are contiguous are
// one long row.
#include "../../cuda/kernel.cuh"
#include "params.h"

namespace gsa::cuda {

namespace {

constexpr int kThreads = 256;

template <typename T>
struct Pointers {
  const T* in[3];
  T* out[2];
  int64_t in_stride[3];  // from row to row
  int64_t out_stride[2];
  float* absmax;  // of the outputs; NULL: not wanted
};

// out = f(in) element by element, kVector at a time; what is past the last full vector of a row is done one
// by one. Blocks: (parts of a row, rows).
template <typename T, int kIn, int kOut, int kVector, typename F>
__global__ void __launch_bounds__(kThreads) map_kernel(Pointers<T> p, int64_t rows, int64_t columns, F f) {
  using Vector = Pack<T, kVector>;
  const int64_t first = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  float largest = 0;
  for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
    for (int64_t i = first; i < columns / kVector; i += step) {
      Vector v[kIn], w[kOut];
#pragma unroll
      for (int a = 0; a < kIn; ++a) v[a] = reinterpret_cast<const Vector*>(p.in[a] + row * p.in_stride[a])[i];
#pragma unroll
      for (int e = 0; e < kVector; ++e) {
        float x[kIn], y[kOut];
#pragma unroll
        for (int a = 0; a < kIn; ++a) x[a] = to_float(v[a].x[e]);
        f(x, y);
#pragma unroll
        for (int a = 0; a < kOut; ++a) {
          w[a].x[e] = from_float<T>(y[a]);
          largest = fmaxf(largest, fabsf(to_float(w[a].x[e])));
        }
      }
#pragma unroll
      for (int a = 0; a < kOut; ++a) reinterpret_cast<Vector*>(p.out[a] + row * p.out_stride[a])[i] = w[a];
    }
    const int64_t tail = columns / kVector * kVector + first;
    if (tail < columns) {
      float x[kIn], y[kOut];
      for (int a = 0; a < kIn; ++a) x[a] = to_float(p.in[a][row * p.in_stride[a] + tail]);
      f(x, y);
      for (int a = 0; a < kOut; ++a) {
        const T out = from_float<T>(y[a]);
        p.out[a][row * p.out_stride[a] + tail] = out;
        largest = fmaxf(largest, fabsf(to_float(out)));
      }
    }
  }
  if (p.absmax) raise_absmax(p.absmax, largest);
}

template <typename T>
struct SiluForward {
  __device__ void operator()(const float* x, float* y) const { y[0] = x[0] * sigmoid_for<T>(x[0]); }
};

template <typename T>
struct SiluBackward {  // dy, x -> dx
  __device__ void operator()(const float* x, float* y) const {
    y[0] = x[0] * silu_slope_of(x[1], sigmoid_for<T>(x[1]));
  }
};

template <typename T>
struct SwigluForward {  // gate, up -> y
  __device__ void operator()(const float* x, float* y) const { y[0] = x[0] * sigmoid_for<T>(x[0]) * x[1]; }
};

template <typename T>
struct SwigluBackward {  // dy, gate, up -> dgate, dup
  __device__ void operator()(const float* x, float* y) const {
    const float sg = sigmoid_for<T>(x[1]);
    y[0] = x[0] * x[2] * silu_slope_of(x[1], sg);
    y[1] = x[0] * x[1] * sg;
  }
};

// A view may start anywhere, and so may its rows.
template <typename T>
bool aligned(const T* start, int64_t rows, int64_t stride) {
  return reinterpret_cast<uintptr_t>(start) % 16 == 0 && (rows == 1 || stride * sizeof(T) % 16 == 0);
}

template <int kIn, int kOut, template <typename> class F>
void launch(gsa_device& device, const activation::Activation& a) {
  clear_absmax(device, a.absmax);
  if (a.rows == 0 || a.columns == 0) return;
  with_float_type(a.dtype, "activations", [&](auto type) {
    using T = decltype(type);
    constexpr int kVector = 16 / sizeof(T);
    Pointers<T> p{};
    p.absmax = a.absmax;
    bool vectors = true;
    for (int i = 0; i < kIn; ++i) {
      p.in[i] = static_cast<const T*>(a.in[i]);
      p.in_stride[i] = a.in_stride[i];
      vectors = vectors && aligned(p.in[i], a.rows, a.in_stride[i]);
    }
    for (int i = 0; i < kOut; ++i) {
      p.out[i] = static_cast<T*>(a.out[i]);
      p.out_stride[i] = a.out_stride[i];
      vectors = vectors && aligned<T>(p.out[i], a.rows, a.out_stride[i]);
    }
    const int64_t items = vectors ? a.columns / kVector + 1 : a.columns;
    const dim3 grid(grid_for(device, items, kThreads),
                    static_cast<unsigned>(std::min<int64_t>(a.rows, 65535)));
    const auto kernel = vectors ? map_kernel<T, kIn, kOut, kVector, F<T>> : map_kernel<T, kIn, kOut, 1, F<T>>;
    kernel<<<grid, kThreads, 0, device.stream>>>(p, a.rows, a.columns, F<T>{});
  });
}

}  // namespace

void silu_fwd(gsa_device& device, const Args& args) {
  launch<1, 1, SiluForward>(device, activation::read_activation(args, activation::kSiluFwd, 1));
}

void silu_bwd(gsa_device& device, const Args& args) {
  launch<2, 1, SiluBackward>(device, activation::read_activation(args, activation::kSiluBwd, 1));
}

void swiglu_fwd(gsa_device& device, const Args& args) {
  launch<2, 1, SwigluForward>(device, activation::read_activation(args, activation::kSwigluFwd, 1));
}

void swiglu_bwd(gsa_device& device, const Args& args) {
  launch<3, 2, SwigluBackward>(device, activation::read_activation(args, activation::kSwigluBwd, 2));
}

}  // namespace gsa::cuda
