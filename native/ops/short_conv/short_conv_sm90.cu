// The short convolution on CUDA: one thread a channel of a token; windows overlap in the cache. Weight
// gradients are summed by blocks of tokens, then over the blocks in order.
#include "../../cuda/kernel.cuh"
#include "params.h"

namespace gsa::cuda {

namespace {

using convolution::Dims;
using convolution::Inputs;

constexpr int kThreads = 256;
constexpr int64_t kRowsPerPart = 128;

struct Place {
  int64_t n, begin, end;  // the sequence of a row, and its rows
};

__device__ Place place_of(const Dims& d, const Inputs& in, int64_t row) {
  if (!in.cu_seqlens) {
    const int64_t n = row / d.T;
    return {n, n * d.T, (n + 1) * d.T};
  }
  int64_t low = 0, high = d.N;  // the last sequence that starts at or before row
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    if (in.cu_seqlens[middle] <= row)
      low = middle;
    else
      high = middle;
  }
  return {low, in.cu_seqlens[low], in.cu_seqlens[low + 1]};
}

// Input of channel c at `offset` from the start of the sequence; negative: from its state.
__device__ __forceinline__ float input(const Dims& d, const Inputs& in, const Place& at, int64_t offset,
                                       int64_t c) {
  if (offset >= 0) return in.x[(at.begin + offset) * d.D + c];
  return in.state ? in.state[(at.n * d.D + c) * (d.W - 1) + d.W - 1 + offset] : 0.0f;
}

__device__ float before_activation(const Dims& d, const Inputs& in, const Place& at, int64_t row, int64_t c) {
  float z = 0;
  for (int64_t j = 0; j < d.W; ++j)
    z += in.weight[c * d.W + j] * input(d, in, at, row - at.begin - (d.W - 1) + j, c);
  return z;
}

__global__ void __launch_bounds__(kThreads) short_conv_fwd_kernel(convolution::ShortConvFwd p) {
  const int64_t row = blockIdx.x;
  const Place at = place_of(p.dims, p.in, row);
  for (int64_t c = threadIdx.x; c < p.dims.D; c += kThreads) {
    const float z = before_activation(p.dims, p.in, at, row, c);
    p.y[row * p.dims.D + c] = p.in.silu ? z * sigmoid(z) : z;
  }
}

// state_out[i] = input length - (W - 1) + i. One thread a channel of a sequence reads all it needs before it
// writes: the new state may be in the memory of the old.
__global__ void __launch_bounds__(kThreads) state_kernel(Dims d, Inputs in, float* state_out) {
  const int64_t n = blockIdx.x;
  const int64_t begin = in.cu_seqlens ? in.cu_seqlens[n] : n * d.T;
  const int64_t end = in.cu_seqlens ? in.cu_seqlens[n + 1] : begin + d.T;
  const Place at{n, begin, end};
  for (int64_t c = threadIdx.x; c < d.D; c += kThreads) {
    float kept[convolution::kMaxWidth];
    for (int64_t i = 0; i < d.W - 1; ++i) kept[i] = input(d, in, at, end - begin - (d.W - 1) + i, c);
    for (int64_t i = 0; i < d.W - 1; ++i) state_out[(n * d.D + c) * (d.W - 1) + i] = kept[i];
  }
}

// dz = dy * silu'(z)
__global__ void __launch_bounds__(kThreads) through_silu_kernel(convolution::ShortConvBwd p, float* dz) {
  const int64_t row = blockIdx.x;
  const Place at = place_of(p.dims, p.in, row);
  for (int64_t c = threadIdx.x; c < p.dims.D; c += kThreads) {
    const float z = before_activation(p.dims, p.in, at, row, c);
    const float s = sigmoid(z);
    dz[row * p.dims.D + c] = p.dy[row * p.dims.D + c] * s * (1.0f + z * (1.0f - s));
  }
}

// What reaches the input at `offset` of a sequence: the outputs that saw it, and the state that copied it.
__device__ float input_gradient(const convolution::ShortConvBwd& p, const float* dz, const Place& at,
                                int64_t offset, int64_t c) {
  const Dims& d = p.dims;
  const int64_t length = at.end - at.begin;
  float sum = 0;
  for (int64_t j = 0; j < d.W; ++j) {
    const int64_t t = offset + (d.W - 1) - j;
    if (t >= 0 && t < length) sum += p.in.weight[c * d.W + j] * dz[(at.begin + t) * d.D + c];
  }
  const int64_t i = offset - length + (d.W - 1);
  return p.dstate_out && i >= 0 ? sum + p.dstate_out[(at.n * d.D + c) * (d.W - 1) + i] : sum;
}

__global__ void __launch_bounds__(kThreads) dx_kernel(convolution::ShortConvBwd p, const float* dz) {
  const int64_t row = blockIdx.x;
  const Place at = place_of(p.dims, p.in, row);
  for (int64_t c = threadIdx.x; c < p.dims.D; c += kThreads)
    p.dx[row * p.dims.D + c] = input_gradient(p, dz, at, row - at.begin, c);
}

__global__ void __launch_bounds__(kThreads) dstate_kernel(convolution::ShortConvBwd p, const float* dz) {
  const Dims& d = p.dims;
  const int64_t n = blockIdx.x;
  const int64_t begin = p.in.cu_seqlens ? p.in.cu_seqlens[n] : n * d.T;
  const Place at{n, begin, p.in.cu_seqlens ? p.in.cu_seqlens[n + 1] : begin + d.T};
  for (int64_t c = threadIdx.x; c < d.D; c += kThreads)
    for (int64_t i = 0; i < d.W - 1; ++i)
      p.dstate[(n * d.D + c) * (d.W - 1) + i] = input_gradient(p, dz, at, i - (d.W - 1), c);
}

// Blocks: (channels, parts of the rows). partial [parts, D, W].
__global__ void __launch_bounds__(kThreads) dweight_kernel(convolution::ShortConvBwd p, const float* dz,
                                                           float* partial, int64_t rows, int64_t per_part) {
  const Dims& d = p.dims;
  const int64_t c = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x;
  if (c >= d.D) return;
  float sums[convolution::kMaxWidth] = {};
  const int64_t last = min((blockIdx.y + 1) * per_part, rows);
  for (int64_t row = blockIdx.y * per_part; row < last; ++row) {
    const Place at = place_of(d, p.in, row);
    const float gradient = dz[row * d.D + c];
    for (int64_t j = 0; j < d.W; ++j)
      sums[j] += gradient * input(d, p.in, at, row - at.begin - (d.W - 1) + j, c);
  }
  for (int64_t j = 0; j < d.W; ++j) partial[(blockIdx.y * d.D + c) * d.W + j] = sums[j];
}

__global__ void __launch_bounds__(kThreads)
    add_parts_kernel(const float* partial, float* y, int64_t n, int64_t parts) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x;
  if (i >= n) return;
  double sum = 0;
  for (int64_t part = 0; part < parts; ++part) sum += partial[part * n + i];
  y[i] = static_cast<float>(sum);
}

unsigned blocks_for(int64_t n) { return static_cast<unsigned>((n + kThreads - 1) / kThreads); }

}  // namespace

void short_conv_fwd(gsa_device& device, const Args& args) {
  const convolution::ShortConvFwd p = convolution::read_short_conv_fwd(args);
  const Dims& d = p.dims;
  if (d.D == 0) return;
  if (d.B * d.T > 0)
    short_conv_fwd_kernel<<<static_cast<unsigned>(d.B * d.T), kThreads, 0, device.stream>>>(p);
  if (p.state_out && d.N > 0 && d.W > 1)
    state_kernel<<<static_cast<unsigned>(d.N), kThreads, 0, device.stream>>>(d, p.in, p.state_out);
}

void short_conv_bwd(gsa_device& device, const Args& args) {
  const convolution::ShortConvBwd p = convolution::read_short_conv_bwd(args);
  const Dims& d = p.dims;
  if (d.D == 0) return;
  const int64_t rows = d.B * d.T;
  const Scratch through_silu(device, p.in.silu ? static_cast<uint64_t>(rows * d.D) * sizeof(float) : 0);
  const float* dz = p.in.silu ? through_silu.as<float>() : p.dy;
  const unsigned blocks = static_cast<unsigned>(rows);
  if (p.in.silu && rows > 0)
    through_silu_kernel<<<blocks, kThreads, 0, device.stream>>>(p, through_silu.as<float>());
  if (rows > 0) dx_kernel<<<blocks, kThreads, 0, device.stream>>>(p, dz);
  if (p.dstate && d.N > 0 && d.W > 1)
    dstate_kernel<<<static_cast<unsigned>(d.N), kThreads, 0, device.stream>>>(p, dz);
  const int64_t parts = std::clamp<int64_t>((rows + kRowsPerPart - 1) / kRowsPerPart, 1, 1024);
  const int64_t per_part = (rows + parts - 1) / parts;
  const Scratch partial(device, static_cast<uint64_t>(parts * d.D * d.W) * sizeof(float));
  dweight_kernel<<<dim3(blocks_for(d.D), static_cast<unsigned>(parts)), kThreads, 0, device.stream>>>(
      p, dz, partial.as<float>(), rows, per_part);
  add_parts_kernel<<<blocks_for(d.D * d.W), kThreads, 0, device.stream>>>(partial.as<float>(), p.dweight,
                                                                          d.D * d.W, parts);
}

}  // namespace gsa::cuda
