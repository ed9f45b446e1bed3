// RMSNorm on CUDA: h = x + residual, a = silu(h) or h, y = a * rstd * weight, rstd = 1 / sqrt(mean(a^2) +
// eps). Rows of whole 16-byte vectors take rows_sm90.cuh; what is here takes any width and any address.
#include "../../cuda/kernel.cuh"
#include "params.h"
#include "rows_sm90.cuh"

namespace gsa::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kPerThread = 32;  // values a thread keeps: rows up to 8192 wide are read once, wider ones twice

template <typename T>
__global__ void __launch_bounds__(kThreads)
    rmsnorm_fwd_kernel(const T* __restrict__ x, const T* __restrict__ residual,
                       const float* __restrict__ weight, T* __restrict__ y, T* __restrict__ h_out,
                       float* __restrict__ rstd_out, float* absmax, int64_t D, float eps, bool silu) {
  __shared__ float shared[kThreads / kWarp];
  const int64_t row = static_cast<int64_t>(blockIdx.x) * D;
  float kept[kPerThread];
  float squares = 0;
  const auto load = [&](int64_t d) {
    float h = to_float(x[row + d]);
    // The residual stream is stored rounded, and what is normalised is what is stored.
    if (residual) h = to_float(from_float<T>(h + to_float(residual[row + d])));
    return h;
  };
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    const int64_t d = threadIdx.x + static_cast<int64_t>(i) * kThreads;
    if (d >= D) break;
    const float h = load(d);
    if (h_out) h_out[row + d] = from_float<T>(h);
    kept[i] = activated(h, silu);
    squares += kept[i] * kept[i];
  }
  for (int64_t d = threadIdx.x + static_cast<int64_t>(kPerThread) * kThreads; d < D; d += kThreads) {
    const float h = load(d);
    if (h_out) h_out[row + d] = from_float<T>(h);
    const float a = activated(h, silu);
    squares += a * a;
  }
  const float rstd = rsqrtf(block_sum<kThreads>(squares, shared) / static_cast<float>(D) + eps);
  if (threadIdx.x == 0) rstd_out[blockIdx.x] = rstd;
  float largest = 0;
  const auto store = [&](int64_t d, float a) {
    const T out = from_float<T>(a * rstd * (weight ? weight[d] : 1.0f));
    y[row + d] = out;
    largest = fmaxf(largest, fabsf(to_float(out)));
  };
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    const int64_t d = threadIdx.x + static_cast<int64_t>(i) * kThreads;
    if (d >= D) break;
    store(d, kept[i]);
  }
  for (int64_t d = threadIdx.x + static_cast<int64_t>(kPerThread) * kThreads; d < D; d += kThreads)
    store(d, activated(load(d), silu));
  if (absmax) raise_absmax(absmax, largest);
}

// With n = a * rstd and u = dy * weight: da = rstd * (u - n * mean(u * n)), dx = da * slope(h) + dh.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    rmsnorm_bwd_kernel(const T* __restrict__ dy, const T* __restrict__ dh, const T* __restrict__ h,
                       const float* __restrict__ weight, const float* __restrict__ rstd_in,
                       T* __restrict__ dx, float* absmax, int64_t D, bool silu) {
  __shared__ float shared[kThreads / kWarp];
  const int64_t row = static_cast<int64_t>(blockIdx.x) * D;
  const float rstd = rstd_in[blockIdx.x];
  float dot = 0;
  for (int64_t d = threadIdx.x; d < D; d += kThreads) {
    const float u = to_float(dy[row + d]) * (weight ? weight[d] : 1.0f);
    dot += u * activated(to_float(h[row + d]), silu);
  }
  const float mean = block_sum<kThreads>(dot, shared) * rstd / static_cast<float>(D);
  float largest = 0;
  for (int64_t d = threadIdx.x; d < D; d += kThreads) {  // the second read comes from the L1 or L2 cache
    const float hd = to_float(h[row + d]);
    const float u = to_float(dy[row + d]) * (weight ? weight[d] : 1.0f);
    const float da = rstd * (u - activated(hd, silu) * rstd * mean);
    const T out = from_float<T>(da * slope(hd, silu) + (dh ? to_float(dh[row + d]) : 0.0f));
    dx[row + d] = out;
    largest = fmaxf(largest, fabsf(to_float(out)));
  }
  if (absmax) raise_absmax(absmax, largest);
}

// dweight[d] = sum over rows of dy * a * rstd: blocks of rows give partial sums, a second kernel adds them in
// order.
template <typename T>
__global__ void rmsnorm_dweight_kernel(const T* __restrict__ dy, const T* __restrict__ h,
                                       const float* __restrict__ rstd, float* __restrict__ partial, int64_t R,
                                       int64_t D, int64_t rows_per_block, bool silu) {
  const int64_t d = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (d >= D) return;
  const int64_t first = blockIdx.y * rows_per_block;
  const int64_t last = min(first + rows_per_block, R);
  float sum = 0;
  for (int64_t r = first; r < last; ++r)
    sum += to_float(dy[r * D + d]) * activated(to_float(h[r * D + d]), silu) * rstd[r];
  partial[blockIdx.y * D + d] = sum;
}

__global__ void add_partials_kernel(const float* __restrict__ partial, float* __restrict__ y, int64_t D,
                                    int64_t parts) {
  const int64_t d = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (d >= D) return;
  float sum = 0;
  for (int64_t p = 0; p < parts; ++p) sum += partial[p * D + d];
  y[d] = sum;
}

constexpr int64_t kRowsPerPart = 64;

template <typename T>
void weight_gradient(gsa_device& device, const norm::RmsNormBwd& p) {
  const int64_t parts = std::clamp<int64_t>((p.R + kRowsPerPart - 1) / kRowsPerPart, 1, 1024);
  const int64_t rows = (p.R + parts - 1) / parts;
  const Scratch partial(device, static_cast<uint64_t>(parts * p.D) * sizeof(float));
  const unsigned columns = static_cast<unsigned>((p.D + kThreads - 1) / kThreads);
  rmsnorm_dweight_kernel<T><<<dim3(columns, static_cast<unsigned>(parts)), kThreads, 0, device.stream>>>(
      static_cast<const T*>(p.dy), static_cast<const T*>(p.h), p.rstd, partial.as<float>(), p.R, p.D, rows,
      p.silu);
  add_partials_kernel<<<columns, kThreads, 0, device.stream>>>(partial.as<float>(), p.dweight, p.D, parts);
}

}  // namespace

void rmsnorm_fwd(gsa_device& device, const Args& args) {
  const norm::RmsNormFwd p = norm::read_rmsnorm_fwd(args);
  clear_absmax(device, p.absmax);
  if (p.R == 0 || p.D == 0) return;
  with_float_type(p.dtype, "x", [&](auto type) {
    using T = decltype(type);
    if (norm_rows::forward<T>(device, p)) return;
    rmsnorm_fwd_kernel<T><<<static_cast<unsigned>(p.R), kThreads, 0, device.stream>>>(
        static_cast<const T*>(p.x), static_cast<const T*>(p.residual), p.weight, static_cast<T*>(p.y),
        static_cast<T*>(p.h), p.rstd, p.absmax, p.D, p.eps, p.silu);
  });
}

void rmsnorm_bwd(gsa_device& device, const Args& args) {
  const norm::RmsNormBwd p = norm::read_rmsnorm_bwd(args);
  clear_absmax(device, p.absmax);
  if (p.D == 0) return;
  with_float_type(p.dtype, "dy", [&](auto type) {
    using T = decltype(type);
    if (p.R > 0 && norm_rows::backward<T>(device, p)) return;
    if (p.R > 0)
      rmsnorm_bwd_kernel<T><<<static_cast<unsigned>(p.R), kThreads, 0, device.stream>>>(
          static_cast<const T*>(p.dy), static_cast<const T*>(p.dh), static_cast<const T*>(p.h), p.weight,
          p.rstd, static_cast<T*>(p.dx), p.absmax, p.D, p.silu);
    if (p.dweight) weight_gradient<T>(device, p);
  });
}

}  // namespace gsa::cuda
