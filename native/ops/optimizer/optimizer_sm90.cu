// clip_scale and AdamW on CUDA: all tensors of a call in as few launches as their number allows, everything
// read from device memory, no host wait.
#include "../../cuda/kernel.cuh"
#include "params.h"

namespace gsa::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int64_t kBlock = 8192;  // elements of one thread block
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

template <typename Grad, typename Param>
__device__ __forceinline__ void update(const optimizer::AdamWTensor& t, const optimizer::AdamWRates& r,
                                       float scale, int64_t begin, int64_t end) {
  const Grad* grad = static_cast<const Grad*>(t.grad);
  Param* param = static_cast<Param*>(t.param);
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
    const float g = to_float(grad[i]) * scale;
    const float m = t.m[i] * r.beta1 + g * r.one_minus_beta1;
    const float v = t.v[i] * r.beta2 + g * g * r.one_minus_beta2;
    const float old = t.master ? t.master[i] : to_float(param[i]);
    const float next = old * r.keep - m * r.step_size / (sqrtf(v) / r.correction2_sqrt + r.eps);
    t.m[i] = m;
    t.v[i] = v;
    if (t.master) t.master[i] = next;
    param[i] = from_float<Param>(next);
  }
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
  const bool wide_grad = t.grad_dtype == GSA_FLOAT32, wide_param = t.param_dtype == GSA_FLOAT32;
  if (wide_grad && wide_param) update<float, float>(t, rates, scale, begin, end);
  if (wide_grad && !wide_param) update<float, __nv_bfloat16>(t, rates, scale, begin, end);
  if (!wide_grad && wide_param) update<__nv_bfloat16, float>(t, rates, scale, begin, end);
  if (!wide_grad && !wide_param) update<__nv_bfloat16, __nv_bfloat16>(t, rates, scale, begin, end);
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

}  // namespace gsa::cuda
