// Cross-entropy on CUDA: one block a row, float32 arithmetic on float32 or bfloat16 logits. A label outside
// the classes gives the loss NaN, since the host cannot see the labels without waiting.
#include "../../cuda/kernel.cuh"
#include "params.h"

namespace gsa::cuda {

namespace {

constexpr int kThreads = 256;

// max and sum of exp(x - max) of a row in one pass: a thread rescales its sum when its maximum grows.
template <typename T>
__device__ float log_sum_exp(const T* row, int64_t C, float* shared) {
  float top = -INFINITY, sum = 0;
  for (int64_t c = threadIdx.x; c < C; c += kThreads) {
    const float x = to_float(row[c]);
    if (x > top) {
      sum *= expf(top - x);  // exp(-inf) = 0 at the first
      top = x;
    }
    sum += x == -INFINITY ? 0.0f : expf(x - top);  // NaN goes through
  }
  const float largest = block_max<kThreads>(top, shared);
  const float total = block_sum<kThreads>(top == -INFINITY ? sum : sum * expf(top - largest), shared);
  return largest + logf(total);
}

template <typename T>
__global__ void __launch_bounds__(kThreads) cross_entropy_fwd_kernel(loss::CrossEntropyFwd p) {
  __shared__ float shared[kThreads / kWarp];
  const T* row = static_cast<const T*>(p.logits) + blockIdx.x * p.C;
  const float lse = log_sum_exp(row, p.C, shared);
  if (threadIdx.x != 0) return;
  const int32_t label = p.labels[blockIdx.x];
  const bool inside = label >= 0 && label < p.C;
  p.lse[blockIdx.x] = lse;
  p.loss[blockIdx.x] = label == p.ignore_index ? 0.0f : inside ? lse - to_float(row[label]) : nanf("");
}

template <typename T>
__global__ void __launch_bounds__(kThreads) cross_entropy_bwd_kernel(loss::CrossEntropyBwd p) {
  const int64_t row = blockIdx.x * p.C;
  const T* logits = static_cast<const T*>(p.logits) + row;
  T* dlogits = static_cast<T*>(p.dlogits) + row;
  const int32_t label = p.labels[blockIdx.x];
  const bool ignored = label == p.ignore_index;
  const float lse = p.lse[blockIdx.x], factor = p.dloss[p.one_dloss ? 0 : blockIdx.x];
  for (int64_t c = threadIdx.x; c < p.C; c += kThreads) {
    const float softmax = expf(to_float(logits[c]) - lse);
    dlogits[c] = from_float<T>(ignored ? 0.0f : factor * (softmax - (c == label ? 1.0f : 0.0f)));
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads) log_softmax_kernel(const T* x, T* y, int64_t C) {
  __shared__ float shared[kThreads / kWarp];
  const int64_t row = blockIdx.x * C;
  const float lse = log_sum_exp(x + row, C, shared);
  for (int64_t c = threadIdx.x; c < C; c += kThreads) y[row + c] = from_float<T>(to_float(x[row + c]) - lse);
}

}  // namespace

void cross_entropy_fwd(gsa_device& device, const Args& args) {
  const loss::CrossEntropyFwd p = loss::read_cross_entropy_fwd(args);
  if (p.R == 0) return;
  with_float_type(p.dtype, "logits", [&](auto type) {
    cross_entropy_fwd_kernel<decltype(type)><<<static_cast<unsigned>(p.R), kThreads, 0, device.stream>>>(p);
  });
}

void cross_entropy_bwd(gsa_device& device, const Args& args) {
  const loss::CrossEntropyBwd p = loss::read_cross_entropy_bwd(args);
  if (p.R == 0) return;
  with_float_type(p.dtype, "logits", [&](auto type) {
    cross_entropy_bwd_kernel<decltype(type)><<<static_cast<unsigned>(p.R), kThreads, 0, device.stream>>>(p);
  });
}

void log_softmax(gsa_device& device, const Args& args) {
  const loss::LogSoftmax p = loss::read_log_softmax(args);
  if (p.R == 0) return;
  with_float_type(p.dtype, "x", [&](auto type) {
    using T = decltype(type);
    log_softmax_kernel<T><<<static_cast<unsigned>(p.R), kThreads, 0, device.stream>>>(
        static_cast<const T*>(p.x), static_cast<T*>(p.y), p.C);
  });
}

}  // namespace gsa::cuda
