// clip_scale and AdamW on CUDA: all tensors of a call in as few launches as their number allows, everything
// read from device memory, no host wait. And AdamW's state for checkpoints, one parameter a call.
#include <type_traits>

#include "../../cuda/kernel.cuh"
#include "master.h"
#include "params.h"

namespace gsa::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int64_t kBlock = 4096;  // elements of one thread block
constexpr int kTensors = 48;      // tensors of one launch: their descriptions fit in the kernel's parameters

struct Tensors {
  optimizer::AdamWTensor t[kTensors];
  int64_t first[kTensors + 1];  // the first thread block of each
};

__global__ void clip_scale_kernel(optimizer::ClipScale p, bool clips) {
  const float norm = p.grad_scale * sqrtf(*p.sum_squares);
  *p.norm = norm;
  *p.scale = !isfinite(norm) ? nanf("")
             : clips         ? p.grad_scale * fminf(1.0f, p.max_norm / (norm + 1e-6f))
                             : p.grad_scale;
}

__device__ __forceinline__ float widen(float x) { return x; }
// The bits of a bfloat16 value. Beside the conversion of cuda_bf16.h, which is assembly, the compiler stored
// moments one by one instead of four at a time.
__device__ __forceinline__ float widen(uint16_t bits) {
  return optimizer::float_of(static_cast<uint32_t>(bits) << 16);
}

// N consecutive elements from i on. Grad and Param: float, or uint16_t for the bits of bfloat16.
template <typename Grad, typename Param, int N>
__device__ __forceinline__ void update_at(const optimizer::AdamWTensor& t, const optimizer::AdamWRates& r,
                                          float scale, int64_t i) {
  const auto grad = *reinterpret_cast<const Pack<Grad, N>*>(static_cast<const Grad*>(t.grad) + i);
  auto m = *reinterpret_cast<const Pack<float, N>*>(t.m + i);
  auto v = *reinterpret_cast<const Pack<float, N>*>(t.v + i);
  auto* param_at = reinterpret_cast<Pack<Param, N>*>(static_cast<Param*>(t.param) + i);
  constexpr bool kSplit = std::is_same_v<Param, uint16_t>;
  auto* remainder_at = kSplit ? reinterpret_cast<Pack<int16_t, N>*>(t.remainder + i) : nullptr;
  auto param = *param_at;
  Pack<int16_t, N> remainder;
  if constexpr (kSplit) remainder = *remainder_at;
#pragma unroll
  for (int e = 0; e < N; ++e) {
    float value;
    if constexpr (kSplit)
      value = optimizer::join_master(param.x[e], remainder.x[e], v.x[e]);
    else
      value = param.x[e];
    const float g = widen(grad.x[e]) * scale;
    m.x[e] = m.x[e] * r.beta1 + g * r.one_minus_beta1;
    v.x[e] = v.x[e] * r.beta2 + g * g * r.one_minus_beta2;
    value = value * r.keep - m.x[e] * r.step_size / (sqrtf(v.x[e]) / r.correction2_sqrt + r.eps);
    if constexpr (kSplit)
      optimizer::split_master(value, param.x[e], remainder.x[e], v.x[e]);
    else
      param.x[e] = value;
  }
  *reinterpret_cast<Pack<float, N>*>(t.m + i) = m;
  *reinterpret_cast<Pack<float, N>*>(t.v + i) = v;
  if constexpr (kSplit) *remainder_at = remainder;
  *param_at = param;
}

__device__ __forceinline__ bool aligned(const optimizer::AdamWTensor& t) {
  const uintptr_t all = reinterpret_cast<uintptr_t>(t.grad) | reinterpret_cast<uintptr_t>(t.param) |
                        reinterpret_cast<uintptr_t>(t.m) | reinterpret_cast<uintptr_t>(t.v) |
                        reinterpret_cast<uintptr_t>(t.remainder);
  return all % 16 == 0;
}

template <typename Grad, typename Param>
__device__ __forceinline__ void update(const optimizer::AdamWTensor& t, const optimizer::AdamWRates& r,
                                       float scale, int64_t begin, int64_t end) {
  constexpr int N = 4;
  int64_t i = begin + threadIdx.x;
  if (aligned(t)) {  // a view may start anywhere
    const int64_t whole = begin + (end - begin) / N * N;
    // Two at a time would take 72 registers instead of 48 and load no earlier: stores come between.
#pragma unroll 1
    for (int64_t at = begin + threadIdx.x * N; at < whole; at += kThreads * N)
      update_at<Grad, Param, N>(t, r, scale, at);
    i = whole + threadIdx.x;
  }
  for (; i < end; i += kThreads) update_at<Grad, Param, 1>(t, r, scale, i);
}

__global__ void __launch_bounds__(kThreads)
    adamw_kernel(const __grid_constant__ Tensors tensors, const optimizer::AdamWRates rates,
                 const float* scale_or_null) {
  const float scale = scale_or_null ? *scale_or_null : 1.0f;
  if (!isfinite(scale)) return;
  int index = 0;
  while (static_cast<int64_t>(blockIdx.x) >= tensors.first[index + 1]) ++index;
  const optimizer::AdamWTensor& t = tensors.t[index];
  const int64_t begin = (blockIdx.x - tensors.first[index]) * kBlock;
  const int64_t end = min(begin + kBlock, t.n);
  const bool wide_grad = t.grad_dtype == GSA_FLOAT32, wide_param = !t.remainder;
  if (wide_grad && wide_param) update<float, float>(t, rates, scale, begin, end);
  if (wide_grad && !wide_param) update<float, uint16_t>(t, rates, scale, begin, end);
  if (!wide_grad && wide_param) update<uint16_t, float>(t, rates, scale, begin, end);
  if (!wide_grad && !wide_param) update<uint16_t, uint16_t>(t, rates, scale, begin, end);
}

// For checkpoints, where the copy between host and device takes far longer.
template <typename Body>
__device__ __forceinline__ void for_elements(int64_t n, const Body& body) {
  for (int64_t i = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x; i < n;
       i += static_cast<int64_t>(gridDim.x) * kThreads)
    body(i);
}

__global__ void __launch_bounds__(kThreads) adamw_state_read_kernel(optimizer::AdamWState s) {
  for_elements(s.n, [&](int64_t i) {
    float moment = s.v[i];
    const float master = optimizer::join_master(s.param[i], s.remainder[i], moment);
    if (s.master) s.master[i] = master;
    if (s.exp_avg_sq) s.exp_avg_sq[i] = moment;
  });
}

__global__ void __launch_bounds__(kThreads) adamw_state_write_kernel(optimizer::AdamWState s) {
  for_elements(s.n, [&](int64_t i) {
    float v = s.v[i];
    if (s.exp_avg_sq) v = copysignf(s.exp_avg_sq[i], v);
    if (s.master) optimizer::split_master(s.master[i], s.param[i], s.remainder[i], v);
    s.v[i] = v;
  });
}

}  // namespace

void clip_scale(gsa_device& device, const Args& args) {
  const optimizer::ClipScale p = optimizer::read_clip_scale(args);
  clip_scale_kernel<<<1, 1, 0, device.stream>>>(p, p.max_norm > 0 && std::isfinite(p.max_norm));
}

void adamw(gsa_device& device, const Args& args) {
  const optimizer::AdamW p = optimizer::read_adamw(args);
  for (size_t begin = 0; begin < p.tensors.size(); begin += kTensors) {
    Tensors tensors{};
    const size_t count = std::min<size_t>(kTensors, p.tensors.size() - begin);
    for (size_t i = 0; i < count; ++i) {
      tensors.t[i] = p.tensors[begin + i];
      tensors.first[i + 1] = tensors.first[i] + (tensors.t[i].n + kBlock - 1) / kBlock;
    }
    if (tensors.first[count] > 0)
      adamw_kernel<<<static_cast<unsigned>(tensors.first[count]), kThreads, 0, device.stream>>>(
          tensors, p.rates, p.scale);
  }
}

void adamw_state_read(gsa_device& device, const Args& args) {
  const optimizer::AdamWState s = optimizer::read_adamw_state_read(args);
  if (s.n > 0) adamw_state_read_kernel<<<grid_for(device, s.n, kThreads), kThreads, 0, device.stream>>>(s);
}

void adamw_state_write(gsa_device& device, const Args& args) {
  const optimizer::AdamWState s = optimizer::read_adamw_state_write(args);
  if (s.n > 0) adamw_state_write_kernel<<<grid_for(device, s.n, kThreads), kThreads, 0, device.stream>>>(s);
}

}  // namespace gsa::cuda
