// fill, cast, add and random_normal on CUDA: one pass; 16-byte accesses where the addresses allow them.
#include <limits>
#include <type_traits>

#include "../../cuda/kernel.cuh"
#include "params.h"
#include "philox.h"

namespace gsa::cuda {

namespace {

using namespace gsa::elementwise;

constexpr int kThreads = 256;

// As in elementwise_cpu.cc: floats become integers by truncation, clamped, NaN becomes 0.
template <typename To, typename From>
__host__ __device__ __forceinline__ To convert(From x) {
  if constexpr (std::is_same_v<To, From>) {
    return x;
  } else if constexpr (std::is_same_v<From, __nv_bfloat16>) {
    return convert<To>(__bfloat162float(x));
  } else if constexpr (std::is_same_v<To, __nv_bfloat16>) {
    return __float2bfloat16_rn(static_cast<float>(x));
  } else if constexpr (std::is_floating_point_v<To> ||
                       (std::is_integral_v<From> && sizeof(From) < sizeof(To))) {
    return static_cast<To>(x);
  } else {
    constexpr To kMin = std::numeric_limits<To>::min(), kMax = std::numeric_limits<To>::max();
    if (x != x) return 0;
    if (x >= static_cast<From>(kMax)) return kMax;  // as a float, the bound is one past the largest integer
    if (x <= static_cast<From>(kMin)) return kMin;
    return static_cast<To>(x);
  }
}

template <typename T, int N>
__global__ void __launch_bounds__(kThreads) fill_kernel(T* y, int64_t n, T value) {
  using Vector = Pack<T, N>;
  const int64_t first = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  Vector v;
#pragma unroll
  for (int e = 0; e < N; ++e) v.x[e] = value;
  for (int64_t i = first; i < n / N; i += step) reinterpret_cast<Vector*>(y)[i] = v;
  const int64_t tail = n / N * N + first;
  if (tail < n) y[tail] = value;
}

template <typename From, typename To, int N>
__global__ void __launch_bounds__(kThreads)
    cast_dense_kernel(const From* __restrict__ x, To* __restrict__ y, int64_t n) {
  const int64_t first = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = first; i < n / N; i += step) {
    const Pack<From, N> v = reinterpret_cast<const Pack<From, N>*>(x)[i];
    Pack<To, N> w;
#pragma unroll
    for (int e = 0; e < N; ++e) w.x[e] = convert<To>(v.x[e]);
    reinterpret_cast<Pack<To, N>*>(y)[i] = w;
  }
  const int64_t tail = n / N * N + first;
  if (tail < n) y[tail] = convert<To>(x[tail]);
}

// Shape and strides of x with neighbouring dimensions merged wherever one stride continues the other.
struct Layout {
  int64_t shape[GSA_MAX_DIMS];
  int64_t strides[GSA_MAX_DIMS];
  int ndim;
};

Layout merge_dimensions(const gsa_tensor& x) {
  Layout l{};
  for (int d = 0; d < x.ndim; ++d) {
    if (x.shape[d] == 1) continue;
    const int last = l.ndim - 1;
    if (last >= 0 && l.strides[last] == x.shape[d] * x.strides[d]) {
      l.shape[last] *= x.shape[d];
      l.strides[last] = x.strides[d];
    } else {
      l.shape[l.ndim] = x.shape[d];
      l.strides[l.ndim++] = x.strides[d];
    }
  }
  return l;
}

// N elements at a time, of which N are neighbours in x too. Index: 32 bits where n allows, since a 64-bit
// division costs more than the copy.
template <typename From, typename To, int N, typename Index>
__global__ void __launch_bounds__(kThreads)
    cast_strided_kernel(const From* __restrict__ x, To* __restrict__ y, Layout l, int64_t n) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  const Index runs = static_cast<Index>(l.shape[l.ndim - 1]) / N;
  for (int64_t i = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x; i < n / N; i += step) {
    Index rest = static_cast<Index>(i);
    int64_t offset = (rest % runs) * N * l.strides[l.ndim - 1];
    rest /= runs;
    for (int d = l.ndim - 2; d >= 0; --d) {
      const Index extent = static_cast<Index>(l.shape[d]);
      offset += (rest % extent) * l.strides[d];
      rest /= extent;
    }
    const Pack<From, N> v = *reinterpret_cast<const Pack<From, N>*>(x + offset);
    Pack<To, N> w;
#pragma unroll
    for (int e = 0; e < N; ++e) w.x[e] = convert<To>(v.x[e]);
    reinterpret_cast<Pack<To, N>*>(y)[i] = w;
  }
}

constexpr int kTile = 64, kTileRows = 8;  // a tile of kTile x kTile elements, kTile / kTileRows rows a warp

// A transposition: x runs along dimension `run` (stride 1), y along the last. Tiles of both go through shared
// memory, so that reads and writes are whole lines. A tile is `row` elements along `run`, `column` along the
// last dimension.
template <typename From, typename To>
__global__ void __launch_bounds__(kWarp* kTileRows)
    cast_transposed_kernel(const From* __restrict__ x, To* __restrict__ y, Layout l, int run, int64_t tiles) {
  __shared__ To s_tile[kTile][kTile + 4 / sizeof(To) + (sizeof(To) > 4)];
  const int last = l.ndim - 1;
  const int64_t row_tiles = (l.shape[run] + kTile - 1) / kTile,
                column_tiles = (l.shape[last] + kTile - 1) / kTile;
  for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const int64_t row0 = tile % row_tiles * kTile, column0 = tile / row_tiles % column_tiles * kTile;
    int64_t rest = tile / row_tiles / column_tiles;
    // Where the tile's first element is in x and in y, and how far apart rows are in y.
    int64_t from = row0 + column0 * l.strides[last], to = column0, y_stride = l.shape[last], y_row = 0;
    for (int d = last - 1; d >= 0; --d) {
      if (d == run) {
        y_row = y_stride;
        to += row0 * y_stride;
      } else {
        from += rest % l.shape[d] * l.strides[d];
        to += rest % l.shape[d] * y_stride;
        rest /= l.shape[d];
      }
      y_stride *= l.shape[d];
    }
    const int64_t rows = l.shape[run] - row0, columns = l.shape[last] - column0;
    From r_tile[kTile / kTileRows][kTile / kWarp];  // all loads before the first use
#pragma unroll
    for (int c = 0; c < kTile / kTileRows; ++c)
#pragma unroll
      for (int r = 0; r < kTile / kWarp; ++r) {
        const int column = c * kTileRows + threadIdx.y, row = r * kWarp + threadIdx.x;
        if (column < columns && row < rows) r_tile[c][r] = x[from + column * l.strides[last] + row];
      }
#pragma unroll
    for (int c = 0; c < kTile / kTileRows; ++c)
#pragma unroll
      for (int r = 0; r < kTile / kWarp; ++r)
        s_tile[r * kWarp + threadIdx.x][c * kTileRows + threadIdx.y] = convert<To>(r_tile[c][r]);
    __syncthreads();
    for (int row = threadIdx.y; row < kTile && row < rows; row += kTileRows)
#pragma unroll
      for (int column = threadIdx.x; column < kTile; column += kWarp)
        if (column < columns) y[to + row * y_row + column] = s_tile[row][column];
    __syncthreads();
  }
}

template <typename T, int N, bool kHasB>
__global__ void __launch_bounds__(kThreads)
    add_kernel(const T* a, const T* b, T* y, int64_t n, float alpha, float beta) {
  const int64_t first = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  const auto sum = [=](T u, T v) {
    return from_float<T>(kHasB ? alpha * to_float(u) + beta * to_float(v) : alpha * to_float(u));
  };
  for (int64_t i = first; i < n / N; i += step) {
    Pack<T, N> u = reinterpret_cast<const Pack<T, N>*>(a)[i], v = u;
    if constexpr (kHasB) v = reinterpret_cast<const Pack<T, N>*>(b)[i];
#pragma unroll
    for (int e = 0; e < N; ++e) u.x[e] = sum(u.x[e], v.x[e]);
    reinterpret_cast<Pack<T, N>*>(y)[i] = u;
  }
  const int64_t tail = n / N * N + first;
  if (tail < n) y[tail] = sum(a[tail], kHasB ? b[tail] : a[tail]);
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    random_normal_kernel(T* y, int64_t n, uint64_t seed, uint64_t stream, float mean, float std) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t q = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x; q * 4 < n; q += step) {
    const Words w = philox(static_cast<uint64_t>(q), stream, seed);
    float z[4];
    box_muller(w.x[0], w.x[1], &z[0], &z[1]);
    box_muller(w.x[2], w.x[3], &z[2], &z[3]);
#pragma unroll
    for (int e = 0; e < 4; ++e)
      if (q * 4 + e < n) y[q * 4 + e] = from_float<T>(mean + std * z[e]);
  }
}

template <typename Body>
void with_type(int32_t dtype, Body&& body) {
  switch (dtype) {
    case GSA_FLOAT32:
      return body(float{});
    case GSA_BFLOAT16:
      return body(__nv_bfloat16{});
    case GSA_INT16:
      return body(int16_t{});
    case GSA_INT32:
      return body(int32_t{});
    case GSA_INT64:
      return body(int64_t{});
    default:
      fail(GSA_INVALID_ARGUMENT, "Expected a known dtype but received number %d", dtype);
  }
}

// A view may start anywhere in its storage: vectors of `bytes` need every address to be a multiple of it.
template <typename... Pointers>
bool aligned(size_t bytes, Pointers... pointers) {
  return ((reinterpret_cast<uintptr_t>(pointers) % bytes == 0) && ...);
}

// The dimension other than the last that x runs along, or -1 where there is none worth tiles.
int transposed_dimension(const Layout& l) {
  constexpr int64_t kLeast = 8;  // shorter runs fill too little of a tile
  const int last = l.ndim - 1;
  if (l.strides[last] == 1 || l.shape[last] < kLeast) return -1;
  for (int d = 0; d < last; ++d)
    if (l.strides[d] == 1 && l.shape[d] >= kLeast) return d;
  return -1;
}

template <typename From, typename To>
void launch_cast_transposed(gsa_device& device, const From* x, To* y, const Layout& l, int run) {
  int64_t tiles = 1;
  for (int d = 0; d < l.ndim; ++d)
    tiles *= d == run || d == l.ndim - 1 ? (l.shape[d] + kTile - 1) / kTile : l.shape[d];
  const dim3 threads(kWarp, kTileRows);
  cast_transposed_kernel<From, To>
      <<<grid_for(device, tiles, 1), threads, 0, device.stream>>>(x, y, l, run, tiles);
}

template <typename From, typename To, int N>
void launch_cast_strided(gsa_device& device, const From* x, To* y, const Layout& l, int64_t n) {
  const unsigned grid = grid_for(device, n / N, kThreads);
  if (n < INT32_MAX)
    cast_strided_kernel<From, To, N, uint32_t><<<grid, kThreads, 0, device.stream>>>(x, y, l, n);
  else
    cast_strided_kernel<From, To, N, uint64_t><<<grid, kThreads, 0, device.stream>>>(x, y, l, n);
}

// Whether every run of x along its last dimension is made of whole, aligned vectors of N.
template <int N, typename From>
bool runs_of_vectors(const From* x, const Layout& l) {
  const int last = l.ndim - 1;
  bool whole = l.strides[last] == 1 && l.shape[last] % N == 0 && aligned(N * sizeof(From), x);
  for (int d = 0; d < last; ++d) whole = whole && l.strides[d] % N == 0;
  return whole;
}

template <typename From, typename To>
void launch_cast(gsa_device& device, const Cast& p) {
  constexpr int kVector = 16 / std::max(sizeof(From), sizeof(To));
  const auto* x = static_cast<const From*>(p.x.data);
  auto* y = static_cast<To*>(p.y);
  const Layout l = merge_dimensions(p.x);
  const bool y_aligned = aligned(kVector * sizeof(To), y);
  if (l.ndim == 0 || (l.ndim == 1 && l.strides[0] == 1)) {
    const unsigned grid = grid_for(device, (p.n + kVector - 1) / kVector, kThreads);
    if (aligned(kVector * sizeof(From), x) && y_aligned)
      cast_dense_kernel<From, To, kVector><<<grid, kThreads, 0, device.stream>>>(x, y, p.n);
    else
      cast_dense_kernel<From, To, 1><<<grid, kThreads, 0, device.stream>>>(x, y, p.n);
  } else if (const int run = transposed_dimension(l); run >= 0) {
    launch_cast_transposed<From, To>(device, x, y, l, run);
  } else if (y_aligned && runs_of_vectors<kVector>(x, l)) {
    launch_cast_strided<From, To, kVector>(device, x, y, l, p.n);
  } else {
    launch_cast_strided<From, To, 1>(device, x, y, l, p.n);
  }
}

template <typename T, bool kHasB>
void launch_add(gsa_device& device, const Add& p) {
  constexpr int kVector = 16 / sizeof(T);
  const auto *a = static_cast<const T*>(p.a), *b = static_cast<const T*>(p.b);
  auto* y = static_cast<T*>(p.y);
  const unsigned grid = grid_for(device, (p.n + kVector - 1) / kVector, kThreads);
  if (aligned(16, a, b, y))
    add_kernel<T, kVector, kHasB><<<grid, kThreads, 0, device.stream>>>(a, b, y, p.n, p.alpha, p.beta);
  else
    add_kernel<T, 1, kHasB><<<grid, kThreads, 0, device.stream>>>(a, b, y, p.n, p.alpha, p.beta);
}

}  // namespace

void fill(gsa_device& device, const Args& args) {
  const Fill p = read_fill(args);
  if (p.n == 0) return;
  with_type(p.dtype, [&](auto type) {
    using T = decltype(type);
    constexpr int kVector = 16 / sizeof(T);
    const unsigned grid = grid_for(device, (p.n + kVector - 1) / kVector, kThreads);
    auto* y = static_cast<T*>(p.y);
    const T value = convert<T>(p.value);
    if (aligned(16, y))
      fill_kernel<T, kVector><<<grid, kThreads, 0, device.stream>>>(y, p.n, value);
    else
      fill_kernel<T, 1><<<grid, kThreads, 0, device.stream>>>(y, p.n, value);
  });
}

void cast(gsa_device& device, const Args& args) {
  const Cast p = read_cast(args);
  if (p.n == 0) return;
  with_type(p.x.dtype, [&](auto from) {
    with_type(p.y_dtype, [&](auto to) { launch_cast<decltype(from), decltype(to)>(device, p); });
  });
}

void add(gsa_device& device, const Args& args) {
  const Add p = read_add(args);
  if (p.n == 0) return;
  with_float_type(p.dtype, "a", [&](auto type) {
    using T = decltype(type);
    if (p.b)
      launch_add<T, true>(device, p);
    else
      launch_add<T, false>(device, p);
  });
}

void random_normal(gsa_device& device, const Args& args) {
  const RandomNormal p = read_random_normal(args);
  if (p.n == 0) return;
  with_float_type(p.dtype, "y", [&](auto type) {
    using T = decltype(type);
    const unsigned grid = grid_for(device, (p.n + 3) / 4, kThreads);
    random_normal_kernel<T>
        <<<grid, kThreads, 0, device.stream>>>(static_cast<T*>(p.y), p.n, p.seed, p.stream, p.mean, p.std);
  });
}

}  // namespace gsa::cuda
