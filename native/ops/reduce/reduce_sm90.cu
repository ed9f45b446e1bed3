// Sums on CUDA: blocks of fixed size give partial sums in double, one more block adds those in order. No
// atomics: the result repeats bit for bit.
#include "../../cuda/kernel.cuh"
#include "params.h"

namespace gsa::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int64_t kBlock = 32768;  // elements of one partial sum
constexpr int kTensors = 64;       // tensors of one launch

struct Parts {
  const void* x[kTensors];
  int64_t n[kTensors];
  int32_t dtype[kTensors];
  int64_t first[kTensors + 1];  // the first partial sum of each tensor
  int count;
};

template <bool kSquares, typename T, int N>
__device__ double vector_sum(const T* x, int64_t begin, int64_t end) {
  double sum = 0;
#pragma unroll 4
  for (int64_t i = begin + threadIdx.x * N; i < end; i += kThreads * N) {
    const Pack<T, N> v = *reinterpret_cast<const Pack<T, N>*>(x + i);
    if constexpr (sizeof(T) == 2) {
      // Few in single precision first, where a square of a bfloat16 is exact: widening each would take longer
      // than to read it.
      float few = 0;
#pragma unroll
      for (int e = 0; e < N; ++e) {
        const float value = to_float(v.x[e]);
        few += kSquares ? value * value : value;
      }
      sum += few;
    } else {
#pragma unroll
      for (int e = 0; e < N; ++e) {
        const double value = to_float(v.x[e]);
        sum += kSquares ? value * value : value;
      }
    }
  }
  return sum;
}

template <bool kSquares, typename T>
__device__ double thread_sum(const T* x, int64_t begin, int64_t end) {
  constexpr int N = 16 / sizeof(T);
  if (reinterpret_cast<uintptr_t>(x) % 16 != 0) return vector_sum<kSquares, T, 1>(x, begin, end);
  const int64_t whole = begin + (end - begin) / N * N;
  return vector_sum<kSquares, T, N>(x, begin, whole) + vector_sum<kSquares, T, 1>(x, whole, end);
}

template <bool kSquares>
__global__ void __launch_bounds__(kThreads) partial_sum_kernel(Parts parts, double* partial) {
  __shared__ double shared[kThreads / kWarp];
  int tensor = 0;
  while (static_cast<int64_t>(blockIdx.x) >= parts.first[tensor + 1]) ++tensor;
  const int64_t begin = (blockIdx.x - parts.first[tensor]) * kBlock;
  const int64_t end = min(begin + kBlock, parts.n[tensor]);
  const double sum =
      parts.dtype[tensor] == GSA_FLOAT32
          ? thread_sum<kSquares>(static_cast<const float*>(parts.x[tensor]), begin, end)
          : thread_sum<kSquares>(static_cast<const __nv_bfloat16*>(parts.x[tensor]), begin, end);
  const double total = block_sum<kThreads>(sum, shared);
  if (threadIdx.x == 0) partial[blockIdx.x] = total;
}

__global__ void __launch_bounds__(kThreads) total_kernel(const double* partial, int64_t n, float* y) {
  __shared__ double shared[kThreads / kWarp];
  double sum = 0;
  for (int64_t i = threadIdx.x; i < n; i += kThreads) sum += partial[i];
  const double total = block_sum<kThreads>(sum, shared);
  if (threadIdx.x == 0) *y = static_cast<float>(total);
}

template <bool kSquares>
void sum_parts(gsa_device& device, const reduction::Sum& p) {
  int64_t blocks = 0;
  for (const reduction::Part& part : p.parts) blocks += (part.n + kBlock - 1) / kBlock;
  const Scratch partial(device, static_cast<uint64_t>(std::max<int64_t>(blocks, 1)) * sizeof(double));
  int64_t done = 0;
  for (size_t begin = 0; begin < p.parts.size(); begin += kTensors) {
    Parts parts{};
    parts.count = static_cast<int>(std::min<size_t>(kTensors, p.parts.size() - begin));
    for (int i = 0; i < parts.count; ++i) {
      const reduction::Part& part = p.parts[begin + static_cast<size_t>(i)];
      parts.x[i] = part.x;
      parts.n[i] = part.n;
      parts.dtype[i] = part.dtype;
      parts.first[i + 1] = parts.first[i] + (part.n + kBlock - 1) / kBlock;
    }
    const int64_t count = parts.first[parts.count];
    if (count > 0)
      partial_sum_kernel<kSquares>
          <<<static_cast<unsigned>(count), kThreads, 0, device.stream>>>(parts, partial.as<double>() + done);
    done += count;
  }
  total_kernel<<<1, kThreads, 0, device.stream>>>(partial.as<double>(), blocks, p.y);
}

// Partial sums of a block of rows, by columns.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    column_partial_kernel(const T* x, double* partial, int64_t R, int64_t C, int64_t rows) {
  const int64_t c = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x;
  if (c >= C) return;
  const int64_t first = blockIdx.y * rows, last = min(first + rows, R);
  double sum = 0;
  for (int64_t r = first; r < last; ++r) sum += to_float(x[r * C + c]);
  partial[blockIdx.y * C + c] = sum;
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    column_total_kernel(const double* partial, T* y, int64_t parts, int64_t C, float beta) {
  const int64_t c = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x;
  if (c >= C) return;
  double sum = 0;
  for (int64_t p = 0; p < parts; ++p) sum += partial[p * C + c];
  if (beta != 0.0f) sum += static_cast<double>(beta) * to_float(y[c]);
  y[c] = from_float<T>(static_cast<float>(sum));
}

constexpr int64_t kRowsPerPart = 128;

}  // namespace

void sum(gsa_device& device, const Args& args) { sum_parts<false>(device, reduction::read_sum(args)); }

void sum_squares(gsa_device& device, const Args& args) { sum_parts<true>(device, reduction::read_sum(args)); }

void column_sum(gsa_device& device, const Args& args) {
  const reduction::ColumnSum p = reduction::read_column_sum(args);
  if (p.C == 0) return;
  const int64_t parts = std::clamp<int64_t>((p.R + kRowsPerPart - 1) / kRowsPerPart, 1, 1024);
  const int64_t rows = (p.R + parts - 1) / parts;
  const Scratch partial(device, static_cast<uint64_t>(parts * p.C) * sizeof(double));
  const unsigned columns = static_cast<unsigned>((p.C + kThreads - 1) / kThreads);
  with_float_type(p.dtype, "x", [&](auto type) {
    using T = decltype(type);
    column_partial_kernel<T><<<dim3(columns, static_cast<unsigned>(parts)), kThreads, 0, device.stream>>>(
        static_cast<const T*>(p.x), partial.as<double>(), p.R, p.C, rows);
    column_total_kernel<T><<<columns, kThreads, 0, device.stream>>>(partial.as<double>(),
                                                                    static_cast<T*>(p.y), parts, p.C, p.beta);
  });
}

}  // namespace gsa::cuda
