// The short convolution on CUDA: the walk (walk_sm90.cuh) for the shapes of models, and for all others a
// general form, one thread a channel of a token. Weight gradients are summed by parts of the rows, then over
// the parts in order.
#include "../../cuda/launch.cuh"
#include "walk_sm90.cuh"

namespace gsa::sm90 {
namespace {

using cuda::launch_blocks;
using cuda::Scratch;

constexpr int kThreads = 256;
constexpr int64_t kRowsPerPart = 128;

int64_t blocks_for(int64_t n) { return (n + kThreads - 1) / kThreads; }

template <typename T>
__global__ void __launch_bounds__(kThreads) fwd_kernel(ShortConvFwd<T> p) {
  const int64_t row = blockIdx.x;
  const Sequence at = sequence_of(p.dims, p.in.cu_seqlens, row);
  for (int64_t c = threadIdx.x; c < p.dims.D; c += kThreads)
    p.y[row * p.dims.D + c] =
        from_float<T>(activated<T>(sum_of_taps(p.dims, p.in, at, row - at.begin, c), p.in.silu));
}

// state_out[i] = input length - (W - 1) + i. The new state may be in the memory of the old: what is read of
// that lies at i or above.
template <typename T>
__global__ void __launch_bounds__(kThreads) state_kernel(Dims d, Inputs<T> in, T* state_out) {
  const Sequence at = sequence(d, in.cu_seqlens, blockIdx.x);
  for (int64_t c = threadIdx.x; c < d.D; c += kThreads)
#pragma unroll 1
    for (int64_t i = 0; i < d.W - 1; ++i)
      state_out[(at.n * d.D + c) * (d.W - 1) + i] =
          from_float<T>(input(d, in, at, at.end - at.begin - (d.W - 1) + i, c));
}

template <typename T>
__device__ float dz_at(const ShortConvBwd<T>& p, const Sequence& at, int64_t offset, int64_t c) {
  const float z = p.in.silu ? sum_of_taps(p.dims, p.in, at, offset, c) : 0.0f;
  return through_activation<T>(to_float(p.dy[(at.begin + offset) * p.dims.D + c]), z, p.in.silu);
}

template <typename T>
__global__ void __launch_bounds__(kThreads) dz_kernel(ShortConvBwd<T> p, float* dz) {
  const int64_t row = blockIdx.x;
  const Sequence at = sequence_of(p.dims, p.in.cu_seqlens, row);
  for (int64_t c = threadIdx.x; c < p.dims.D; c += kThreads)
    dz[row * p.dims.D + c] = dz_at(p, at, row - at.begin, c);
}

// What reaches the input at `offset` of a sequence: the outputs that saw it, whose dz `dz_of` gives by their
// offset, and the state that copied it.
template <typename T, typename DzOf>
__device__ T input_gradient(const ShortConvBwd<T>& p, const Sequence& at, int64_t offset, int64_t c,
                            const DzOf& dz_of) {
  const Dims& d = p.dims;
  const int64_t length = at.end - at.begin;
  float sum = 0;
  for (int64_t j = 0; j < d.W; ++j) {
    const int64_t t = offset + (d.W - 1) - j;
    if (t >= 0 && t < length) sum += to_float(p.in.weight[c * d.W + j]) * dz_of(t);
  }
  const int64_t i = offset - length + (d.W - 1);
  if (p.dstate_out && i >= 0) sum += to_float(p.dstate_out[(at.n * d.D + c) * (d.W - 1) + i]);
  return from_float<T>(sum);
}

template <typename T>
__global__ void __launch_bounds__(kThreads) dx_kernel(ShortConvBwd<T> p, const float* dz) {
  const int64_t row = blockIdx.x;
  const Sequence at = sequence_of(p.dims, p.in.cu_seqlens, row);
  for (int64_t c = threadIdx.x; c < p.dims.D; c += kThreads)
    p.dx[row * p.dims.D + c] = input_gradient(p, at, row - at.begin, c,
                                              [&](int64_t t) { return dz[(at.begin + t) * p.dims.D + c]; });
}

// Of either form: few rows.
template <typename T>
__global__ void __launch_bounds__(kThreads) dstate_kernel(ShortConvBwd<T> p) {
  const Dims& d = p.dims;
  const Sequence at = sequence(d, p.in.cu_seqlens, blockIdx.x);
  for (int64_t c = threadIdx.x; c < d.D; c += kThreads)
    for (int64_t i = 0; i < d.W - 1; ++i)
      p.dstate[(at.n * d.D + c) * (d.W - 1) + i] =
          input_gradient(p, at, i - (d.W - 1), c, [&](int64_t t) { return dz_at(p, at, t, c); });
}

// One thread for each tap of a channel in a part of the rows. partial [parts, D, W].
template <typename T>
__global__ void __launch_bounds__(kThreads)
    dweight_kernel(ShortConvBwd<T> p, const float* dz, float* partial, int64_t parts, int64_t per_part) {
  const Dims& d = p.dims;
  const int64_t thread = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x;
  const int64_t c = thread % d.D, j = thread / d.D % d.W, part = thread / (d.D * d.W);
  if (part >= parts) return;
  float sum = 0;
  const int64_t last = min((part + 1) * per_part, d.B * d.T);
  for (int64_t row = part * per_part; row < last; ++row) {
    const Sequence at = sequence_of(d, p.in.cu_seqlens, row);
    sum += dz[row * d.D + c] * input(d, p.in, at, row - at.begin - (d.W - 1) + j, c);
  }
  partial[(part * d.D + c) * d.W + j] = sum;
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    add_parts_kernel(const float* partial, T* y, int64_t n, int64_t parts) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x;
  if (i >= n) return;
  double sum = 0;
#pragma unroll 8
  for (int64_t part = 0; part < parts; ++part) sum += partial[part * n + i];
  y[i] = from_float<T>(static_cast<float>(sum));
}

template <typename T>
void general_fwd(gsa_device& device, const ShortConvFwd<T>& p) {
  launch_blocks(device, fwd_kernel<T>, p.dims.B * p.dims.T, kThreads, 0, p);
}

template <typename T>
void general_bwd(gsa_device& device, const ShortConvBwd<T>& p) {
  const Dims& d = p.dims;
  const int64_t rows = d.B * d.T, parts = std::clamp<int64_t>(rows / kRowsPerPart, 1, 1024);
  const Scratch dz(device, static_cast<uint64_t>(rows * d.D) * sizeof(float));
  const Scratch partial(device, static_cast<uint64_t>(parts * d.D * d.W) * sizeof(float));
  if (rows > 0) {
    launch_blocks(device, dz_kernel<T>, rows, kThreads, 0, p, dz.as<float>());
    launch_blocks(device, dx_kernel<T>, rows, kThreads, 0, p, dz.as<float>());
  }
  launch_blocks(device, dweight_kernel<T>, blocks_for(parts * d.D * d.W), kThreads, 0, p, dz.as<float>(),
                partial.as<float>(), parts, (rows + parts - 1) / parts);
  launch_blocks(device, add_parts_kernel<T>, blocks_for(d.D * d.W), kThreads, 0, partial.as<float>(),
                p.dweight, d.D * d.W, parts);
}

// Channels of a thread: 16 bytes forward; backward it keeps three times as many numbers for each, and four
// channels leave room for enough threads to wait for memory.
template <typename T>
constexpr int kForward = 16 / sizeof(T);
constexpr int kBackward = 4;

// Rows of a run: as long as there are runs enough to fill the device, so that few rows are read twice.
int64_t run_length(const gsa_device& device, int64_t rows, int64_t groups, int64_t threads, int64_t most) {
  return std::clamp<int64_t>(rows * groups / (device.multiprocessors * threads), 1, most);
}

bool walks(const Dims& d, int channels, const void* x, const void* weight, const void* state, const void* y,
           const void* dy = nullptr) {
  return d.W >= 2 && d.W <= 4 && d.D % channels == 0 && d.B * d.T > 0 &&
         cuda::aligned({x, weight, state, y, dy});
}

// Calls body with the number of taps and whether there is an activation as types.
template <typename Body>
void with_form(int64_t W, bool silu, const Body& body) {
  const auto with = [&](auto taps) {
    if (silu) return body(taps, std::true_type{});
    body(taps, std::false_type{});
  };
  if (W == 2) return with(std::integral_constant<int, 2>{});
  if (W == 3) return with(std::integral_constant<int, 3>{});
  with(std::integral_constant<int, 4>{});
}

template <typename T>
void walk_fwd(gsa_device& device, const ShortConvFwd<T>& p) {
  constexpr int N = kForward<T>;
  const int64_t rows = p.dims.B * p.dims.T, groups = p.dims.D / N;
  const int64_t run = run_length(device, rows, groups, 1024, 16);
  const int64_t blocks = ((rows + run - 1) / run * groups + kWalkThreads - 1) / kWalkThreads;
  with_form(p.dims.W, p.in.silu, [&](auto taps, auto silu) {
    launch_blocks(device, walk_fwd_kernel<T, taps.value, N, silu.value>, blocks, kWalkThreads, 0, p, run);
  });
}

constexpr int64_t kMostParts = 256;

template <typename T>
void walk_bwd(gsa_device& device, const ShortConvBwd<T>& p) {
  constexpr int N = kBackward;
  const Dims& d = p.dims;
  const int64_t rows = d.B * d.T;
  const int64_t run = std::max(run_length(device, rows, d.D / N, 512, 32),
                               (rows + kMostParts * kWalkRuns - 1) / (kMostParts * kWalkRuns));
  const int64_t parts = (rows + run * kWalkRuns - 1) / (run * kWalkRuns);
  const int64_t tiles = (d.D + kWarp * N - 1) / (kWarp * N);
  const Scratch partial(device, static_cast<uint64_t>(parts * d.D * d.W) * sizeof(float));
  with_form(d.W, p.in.silu, [&](auto taps, auto silu) {
    launch_blocks(device, walk_bwd_kernel<T, taps.value, N, silu.value>, parts * tiles, kWalkThreads, 0, p,
                  run, partial.as<float>());
  });
  launch_blocks(device, add_parts_kernel<T>, blocks_for(d.D * d.W), kThreads, 0, partial.as<float>(),
                p.dweight, d.D * d.W, parts);
}

}  // namespace

template <typename T>
void short_conv_fwd(gsa_device& device, const ShortConvFwd<T>& p) {
  const Dims& d = p.dims;
  if (d.D == 0) return;
  if (walks(d, kForward<T>, p.in.x, p.in.weight, p.in.state, p.y))
    walk_fwd(device, p);
  else if (d.B * d.T > 0)
    general_fwd(device, p);
  if (p.state_out && d.N > 0 && d.W > 1)
    launch_blocks(device, state_kernel<T>, d.N, kThreads, 0, d, p.in, p.state_out);
}

template <typename T>
void short_conv_bwd(gsa_device& device, const ShortConvBwd<T>& p) {
  const Dims& d = p.dims;
  if (d.D == 0) return;
  if (walks(d, kBackward, p.in.x, p.in.weight, p.in.state, p.dx, p.dy))
    walk_bwd(device, p);
  else
    general_bwd(device, p);
  if (p.dstate && d.N > 0 && d.W > 1) launch_blocks(device, dstate_kernel<T>, d.N, kThreads, 0, p);
}

}  // namespace gsa::sm90

namespace gsa::cuda {

void short_conv_fwd(gsa_device& device, const Args& args) {
  const int32_t dtype = args.in(0).dtype;
  with_float_type(dtype, "x", [&](auto type) {
    sm90::short_conv_fwd(device, convolution::read_short_conv_fwd<decltype(type)>(args, dtype));
  });
}

void short_conv_bwd(gsa_device& device, const Args& args) {
  const int32_t dtype = args.in(1).dtype;
  with_float_type(dtype, "x", [&](auto type) {
    sm90::short_conv_bwd(device, convolution::read_short_conv_bwd<decltype(type)>(args, dtype));
  });
}

}  // namespace gsa::cuda
