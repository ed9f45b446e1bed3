// The inputs of gated slot attention from joined projections, on CUDA: one pass, 16-byte accesses where
// widths and addresses allow them. A block takes a row after another; a warp's vectors are nearly always of
// one kind.
#include "../../cuda/kernel.cuh"
#include "../../sm90/math.cuh"
#include "params.h"

namespace gsa::cuda {

namespace {

using layer_inputs::kActivated;

constexpr int kThreads = 256;

__device__ __forceinline__ float log_sigmoid(float x) { return fminf(x, 0.0f) - log1pf(expf(-fabsf(x))); }

template <typename T, int N>
__device__ __forceinline__ Pack<T, N> load(const T* from) {
  return *reinterpret_cast<const Pack<T, N>*>(from);
}

template <typename T, int N>
__device__ __forceinline__ void store(T* to, const Pack<T, N>& vector) {
  *reinterpret_cast<Pack<T, N>*>(to) = vector;
}

// Where column `at` of a joined row lies among q, k and v; part = kActivated: in the gate.
struct Place {
  int part;
  int64_t offset;  // in elements of that part's matrix
};

template <typename Side>
__device__ __forceinline__ Place place_of(const Side& p, int64_t row, int64_t at) {
#pragma unroll
  for (int part = 0; part < kActivated; ++part) {
    if (at < p.width[part]) return {part, row * p.width[part] + at};
    at -= p.width[part];
  }
  return {kActivated, row * p.slots + at};
}

// q, k or v of an argument list, without an address computed at run time: that would put the list into local
// memory.
template <typename Pointer>
__device__ __forceinline__ Pointer pick(Pointer const (&list)[kActivated], int part) {
  return part == 0 ? list[0] : part == 1 ? list[1] : list[2];
}

template <typename T, int N>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(const __grid_constant__ layer_inputs::Forward p, float inverse_normalizer) {
  const int64_t width = p.last - p.first;
  for (int64_t row = blockIdx.x; row < p.rows; row += gridDim.x) {
    const T* x = static_cast<const T*>(p.x) + row * p.row_width + p.first;
    for (int64_t at = threadIdx.x * N; at < width; at += kThreads * N) {
      const Pack<T, N> v = load<T, N>(x + at);
      const Place place = place_of(p, row, at);
      if (place.part < kActivated) {
        Pack<T, N> y;
#pragma unroll
        for (int e = 0; e < N; ++e) {
          const float value = to_float(v.x[e]);
          // In bfloat16 with the bits of the sweeps of gated slot attention, which can do this themselves.
          y.x[e] = from_float<T>(sizeof(T) == 2 ? sm90::silu_approx(value) : value * sigmoid(value));
        }
        store<T, N>(static_cast<T*>(pick(p.y, place.part)) + place.offset, y);
      } else {
        Pack<float, N> g, s;
#pragma unroll
        for (int e = 0; e < N; ++e) {
          g.x[e] = log_sigmoid(to_float(v.x[e])) * inverse_normalizer;
          s.x[e] = -expm1f(g.x[e]);  // where almost nothing is forgotten, 1 - exp(g) keeps only the last bits
        }
        store<float, N>(p.g + place.offset, g);
        store<float, N>(p.s + place.offset, s);
      }
    }
  }
}

// dg / df = sigmoid(-f) / normalizer and ds / dg = -exp(g).
template <typename T, int N>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(const __grid_constant__ layer_inputs::Backward p, float inverse_normalizer) {
  const int64_t width = p.row_width;
  float largest = 0;
  for (int64_t row = blockIdx.x; row < p.rows; row += gridDim.x) {
    for (int64_t at = threadIdx.x * N; at < width; at += kThreads * N) {
      const Pack<T, N> v = load<T, N>(static_cast<const T*>(p.x) + row * width + at);
      Pack<T, N> dx;
      const Place place = place_of(p, row, at);
      if (place.part < kActivated) {
        const Pack<T, N> dy = load<T, N>(static_cast<const T*>(pick(p.dy, place.part)) + place.offset);
#pragma unroll
        for (int e = 0; e < N; ++e) {
          const float value = to_float(v.x[e]);
          dx.x[e] = from_float<T>(to_float(dy.x[e]) * silu_slope_of(value, sigmoid_for<T>(value)));
        }
      } else {
        const Pack<float, N> dg = load<float, N>(p.dg + place.offset);
        const Pack<float, N> ds = load<float, N>(p.ds + place.offset);
#pragma unroll
        for (int e = 0; e < N; ++e) {
          const float f = to_float(v.x[e]), kept = expf(log_sigmoid(f) * inverse_normalizer);
          dx.x[e] = from_float<T>((dg.x[e] - ds.x[e] * kept) * sigmoid(-f) * inverse_normalizer);
        }
      }
#pragma unroll
      for (int e = 0; e < N; ++e) largest = fmaxf(largest, fabsf(to_float(dx.x[e])));
      store<T, N>(static_cast<T*>(p.dx) + row * width + at, dx);
    }
  }
  if (p.absmax) raise_absmax(p.absmax, largest);
}

// Whether every part of a row starts and ends with a whole vector of N elements.
template <int N, typename Side>
bool whole_vectors(const Side& p) {
  for (int64_t width : p.width)
    if (width % N != 0) return false;
  return p.slots % N == 0;
}

unsigned blocks_for(const gsa_device& device, int64_t rows) {
  return static_cast<unsigned>(std::min<int64_t>(rows, device.multiprocessors * INT64_C(64)));
}

}  // namespace

void gsa_inputs_fwd(gsa_device& device, const Args& args) {
  const layer_inputs::Forward p = layer_inputs::read_forward(args);
  if (p.rows == 0 || p.row_width == 0) return;
  with_float_type(p.dtype, "x", [&](auto type) {
    using T = decltype(type);
    constexpr int N = 16 / sizeof(T);
    const bool vectors =
        whole_vectors<N>(p) && p.row_width % N == 0 && aligned({p.x, p.y[0], p.y[1], p.y[2], p.g, p.s});
    const auto kernel = vectors ? forward_kernel<T, N> : forward_kernel<T, 1>;
    kernel<<<blocks_for(device, p.rows), kThreads, 0, device.stream>>>(p, 1.0f / p.normalizer);
  });
}

void gsa_inputs_bwd(gsa_device& device, const Args& args) {
  const layer_inputs::Backward p = layer_inputs::read_backward(args);
  clear_absmax(device, p.absmax);
  if (p.rows == 0 || p.row_width == 0) return;
  with_float_type(p.dtype, "x", [&](auto type) {
    using T = decltype(type);
    constexpr int N = 16 / sizeof(T);
    const bool vectors = whole_vectors<N>(p) && aligned({p.x, p.dx, p.dy[0], p.dy[1], p.dy[2], p.dg, p.ds});
    const auto kernel = vectors ? backward_kernel<T, N> : backward_kernel<T, 1>;
    kernel<<<blocks_for(device, p.rows), kThreads, 0, device.stream>>>(p, 1.0f / p.normalizer);
  });
}

}  // namespace gsa::cuda
