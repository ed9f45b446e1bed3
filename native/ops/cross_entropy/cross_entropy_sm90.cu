// Cross-entropy on CUDA: one block a row, float32 arithmetic on float32 or bfloat16 logits, 16-byte accesses
// where the rows allow them. A block's second look at its row finds it in the cache. A label outside the
// classes gives the loss NaN, since the host cannot see the labels without waiting.
#include "../../cuda/kernel.cuh"
#include "params.h"

namespace gsa::cuda {

namespace {

constexpr int kThreads = 512;

// max and sum of exp(x - max) of a row in one pass: a thread rescales its sum when its maximum grows.
template <typename T, int N>
__device__ float log_sum_exp(const T* row, int64_t C, float* shared) {
  const auto* vectors = reinterpret_cast<const Pack<T, N>*>(row);
  float top = -INFINITY, sum = 0;
  const auto take = [&](const Pack<T, N>& v) {
    float largest = top;
#pragma unroll
    for (int e = 0; e < N; ++e) largest = fmaxf(largest, to_float(v.x[e]));
    const float base = largest == -INFINITY ? 0.0f : largest;  // nothing but -inf so far: exp gives zeros
    sum *= exp_for<T>(top - base);
#pragma unroll
    for (int e = 0; e < N; ++e) sum += exp_for<T>(to_float(v.x[e]) - base);  // NaN goes through
    top = largest;
  };
  int64_t c = threadIdx.x;
  for (; c + kThreads < C / N; c += 2 * kThreads) {  // two loads under way at a time
    const Pack<T, N> first = vectors[c], second = vectors[c + kThreads];
    take(first);
    take(second);
  }
  if (c < C / N) take(vectors[c]);
  const float largest = block_max<kThreads>(top, shared);
  const float total = block_sum<kThreads>(top == -INFINITY ? sum : sum * exp_for<T>(top - largest), shared);
  return largest + logf(total);
}

// dlogits = factor * (softmax - one at `label`)
template <typename T, int N>
__device__ void write_gradient(const T* logits, T* dlogits, int64_t C, float lse, float factor,
                               int32_t label) {
  for (int64_t c = threadIdx.x; c < C / N; c += kThreads) {
    const Pack<T, N> v = reinterpret_cast<const Pack<T, N>*>(logits)[c];
    Pack<T, N> d;
#pragma unroll
    for (int e = 0; e < N; ++e) {
      const float softmax = exp_for<T>(to_float(v.x[e]) - lse);
      d.x[e] = from_float<T>(factor * (softmax - (c * N + e == label ? 1.0f : 0.0f)));
    }
    reinterpret_cast<Pack<T, N>*>(dlogits)[c] = d;
  }
}

template <typename T, int N>
__device__ void write_zeros(T* dlogits, int64_t C) {
  const Pack<T, N> zeros{};
  for (int64_t c = threadIdx.x; c < C / N; c += kThreads) reinterpret_cast<Pack<T, N>*>(dlogits)[c] = zeros;
}

template <typename T, int N>
__global__ void __launch_bounds__(kThreads) cross_entropy_fwd_kernel(loss::CrossEntropyFwd p) {
  __shared__ float shared[kThreads / kWarp];
  const T* row = static_cast<const T*>(p.logits) + blockIdx.x * p.C;
  const int32_t label = p.labels[blockIdx.x];
  const bool ignored = label == p.ignore_index, inside = label >= 0 && label < p.C;
  // Before the gradient may take the place of the logits.
  const float at_label = inside ? to_float(row[label]) : nanf("");
  const float lse =
      log_sum_exp<T, N>(row, p.C, shared);  // the whole block is past here before a row is written
  if (threadIdx.x == 0) {
    p.lse[blockIdx.x] = lse;
    p.loss[blockIdx.x] = ignored ? 0.0f : lse - at_label;
  }
  if (!p.dlogits) return;
  T* dlogits = static_cast<T*>(p.dlogits) + blockIdx.x * p.C;
  if (ignored)
    write_zeros<T, N>(dlogits, p.C);
  else
    write_gradient<T, N>(row, dlogits, p.C, lse, 1.0f, label);
}

template <typename T, int N>
__global__ void __launch_bounds__(kThreads) cross_entropy_bwd_kernel(loss::CrossEntropyBwd p) {
  const int64_t row = blockIdx.x * p.C;
  const int32_t label = p.labels[blockIdx.x];
  T* dlogits = static_cast<T*>(p.dlogits) + row;
  if (label == p.ignore_index)
    write_zeros<T, N>(dlogits, p.C);
  else
    write_gradient<T, N>(static_cast<const T*>(p.logits) + row, dlogits, p.C, p.lse[blockIdx.x],
                         p.dloss[p.one_dloss ? 0 : blockIdx.x], label);
}

template <typename T, int N>
__global__ void __launch_bounds__(kThreads) log_softmax_kernel(const T* x, T* y, int64_t C) {
  __shared__ float shared[kThreads / kWarp];
  const int64_t row = blockIdx.x * C;
  const float lse = log_sum_exp<T, N>(x + row, C, shared);
  for (int64_t c = threadIdx.x; c < C; c += kThreads) y[row + c] = from_float<T>(to_float(x[row + c]) - lse);
}

// body(T{}, std::integral_constant) with the number of elements of one access: 16 bytes of them where every
// row starts at a multiple of that and is whole vectors.
template <typename Body>
void with_vectors(int32_t dtype, int64_t C, const void* a, const void* b, Body&& body) {
  with_float_type(dtype, "logits", [&](auto type) {
    constexpr int N = 16 / sizeof(type);
    const bool aligned = reinterpret_cast<uintptr_t>(a) % 16 == 0 && reinterpret_cast<uintptr_t>(b) % 16 == 0;
    if (C % N == 0 && aligned)
      body(type, std::integral_constant<int, N>{});
    else
      body(type, std::integral_constant<int, 1>{});
  });
}

}  // namespace

void cross_entropy_fwd(gsa_device& device, const Args& args) {
  const loss::CrossEntropyFwd p = loss::read_cross_entropy_fwd(args);
  if (p.R == 0) return;
  with_vectors(p.dtype, p.C, p.logits, p.dlogits, [&](auto type, auto n) {
    cross_entropy_fwd_kernel<decltype(type), decltype(n)::value>
        <<<static_cast<unsigned>(p.R), kThreads, 0, device.stream>>>(p);
  });
}

void cross_entropy_bwd(gsa_device& device, const Args& args) {
  const loss::CrossEntropyBwd p = loss::read_cross_entropy_bwd(args);
  if (p.R == 0) return;
  with_vectors(p.dtype, p.C, p.logits, p.dlogits, [&](auto type, auto n) {
    cross_entropy_bwd_kernel<decltype(type), decltype(n)::value>
        <<<static_cast<unsigned>(p.R), kThreads, 0, device.stream>>>(p);
  });
}

void log_softmax(gsa_device& device, const Args& args) {
  const loss::LogSoftmax p = loss::read_log_softmax(args);
  if (p.R == 0) return;
  with_vectors(p.dtype, p.C, p.x, p.x, [&](auto type, auto n) {
    using T = decltype(type);
    log_softmax_kernel<T, decltype(n)::value><<<static_cast<unsigned>(p.R), kThreads, 0, device.stream>>>(
        static_cast<const T*>(p.x), static_cast<T*>(p.y), p.C);
  });
}

}  // namespace gsa::cuda
