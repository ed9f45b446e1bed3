// The short convolution of 2 to 4 taps where channels can be read several at once: a thread walks down a run
// of rows with a few neighbouring channels and keeps in registers what the rows to come still need, so that
// memory gives every input once and takes every result once (the few rows that two runs share come from the
// cache).
#pragma once

#include <cstring>
#include <type_traits>

#include "sequences_sm90.cuh"

namespace gsa::sm90 {

using cuda::kWarp;
using cuda::Pack;

// The activation is known to the compiler: a branch around it keeps channels from overlapping.
constexpr int kWalkThreads = 256;
constexpr int kAhead = 4;  // rows that are loaded before the first of them is used

// Row [W - 1] of N channels from a tensor [N sequences, D, W - 1], or the taps [D, W] of N channels: as they
// lie, they are `kEach` numbers of each channel.
template <int kEach, typename T, int N>
__device__ __forceinline__ void load_by_channel(const T* from, float (&to)[kEach][N]) {
#pragma unroll
  for (int part = 0; part < kEach; ++part) {
    const Pack<T, N> pack = reinterpret_cast<const Pack<T, N>*>(from)[part];
#pragma unroll
    for (int e = 0; e < N; ++e) to[(part * N + e) % kEach][(part * N + e) / kEach] = to_float(pack.x[e]);
  }
}

// The inputs of the W - 1 rows before the one at `offset`.
template <int W, typename T, int N>
__device__ __forceinline__ void load_window(const Dims& d, const Inputs<T>& in, const Sequence& at,
                                            int64_t offset, int64_t c, float (&window)[W - 1][N]) {
  float state[W - 1][N] = {};
  if (in.state && offset < W - 1) load_by_channel<W - 1>(in.state + (at.n * d.D + c) * (W - 1), state);
#pragma unroll
  for (int i = 0; i < W - 1; ++i) {
    const int64_t from = offset - (W - 1) + i;
    if (from >= 0) {
      const Pack<T, N> pack = *reinterpret_cast<const Pack<T, N>*>(in.x + (at.begin + from) * d.D + c);
#pragma unroll
      for (int e = 0; e < N; ++e) window[i][e] = to_float(pack.x[e]);
    } else {
      // state[W - 1 + from], by an index that the compiler knows
#pragma unroll
      for (int s = 0; s < W - 1; ++s)
#pragma unroll
        for (int e = 0; e < N; ++e)
          if (s == W - 1 + from) window[i][e] = state[s][e];
    }
  }
}

// Where a walk is among the sequences; rows are counted from its first, in 32 bits.
template <typename T>
struct Among {
  const Dims& d;
  const Inputs<T>& in;
  int64_t first;
  int n;           // the sequence
  int begin, end;  // its rows: from 0 at least, and beyond the walk somewhere

  __device__ __forceinline__ Sequence start() {
    const Sequence at = sequence_of(d, in.cu_seqlens, first);
    take(at);
    return at;
  }
  // The next sequence with rows.
  __device__ __forceinline__ Sequence next() {
    Sequence at;
    do at = sequence(d, in.cu_seqlens, ++n);
    while (at.begin == at.end);
    take(at);
    return at;
  }
  __device__ __forceinline__ void take(const Sequence& at) {
    n = static_cast<int>(at.n);
    begin = static_cast<int>(max(at.begin - first, int64_t{0}));
    end = static_cast<int>(min(at.end - first, int64_t{1} << 30));
  }
};

template <int W, int N>
__device__ __forceinline__ float sum_of_window(const float (&weight)[W][N], const float (&window)[W - 1][N],
                                               float newest, int e) {
  float z = 0;
#pragma unroll
  for (int j = 0; j < W - 1; ++j) z += weight[j][e] * window[j][e];
  return z + weight[W - 1][e] * newest;
}

template <int W, int N>
__device__ __forceinline__ void push(float (&window)[W - 1][N], float newest, int e) {
#pragma unroll
  for (int j = 0; j + 1 < W - 1; ++j) window[j][e] = window[j + 1][e];
  window[W - 2][e] = newest;
}

// One thread for each run of `run` rows and N channels, neighbours beside each other.
template <typename T, int W, int N, bool kSilu>
__global__ void __launch_bounds__(kWalkThreads, 2) walk_fwd_kernel(ShortConvFwd<T> p, int64_t run) {
  const Dims& d = p.dims;
  const int64_t rows = d.B * d.T, groups = d.D / N;
  const int64_t thread = blockIdx.x * static_cast<int64_t>(kWalkThreads) + threadIdx.x;
  const int64_t first = thread / groups * run, c = thread % groups * N;
  if (first >= rows) return;
  const int64_t stop = min(first + run, rows);
  float weight[W][N], window[W - 1][N];
  load_by_channel<W>(p.in.weight + c * W, weight);
  Among<T> among{d, p.in, first};
  const Sequence start = among.start();
  load_window<W>(d, p.in, start, first - start.begin, c, window);
  const int rows_here = static_cast<int>(stop - first);
  int64_t place = first * d.D + c;
  for (int t = 0; t < rows_here; t += kAhead, place += kAhead * d.D) {
    Pack<T, N> x[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i)
      if (t + i < rows_here) x[i] = *reinterpret_cast<const Pack<T, N>*>(p.in.x + place + i * d.D);
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (t + i >= rows_here) break;
      if (t + i == among.end) load_window<W>(d, p.in, among.next(), 0, c, window);
      Pack<T, N> y;
#pragma unroll
      for (int e = 0; e < N; ++e) {
        const float newest = to_float(x[i].x[e]);
        y.x[e] = from_float<T>(activated<T>(sum_of_window<W, N>(weight, window, newest, e), kSilu));
        push<W, N>(window, newest, e);
      }
      *reinterpret_cast<Pack<T, N>*>(p.y + place + i * d.D) = y;
    }
  }
}

// Backward walks W - 1 rows past the end of its run for the dz that dx of its last rows wants. A row's dz
// goes to the sums of its taps, and to `pending`: dx of the W - 1 rows before the next as far as it is known.
template <typename T, int W, int N, bool kSilu>
struct WalkBack {
  const ShortConvBwd<T>& p;
  int64_t c;  // the first of its channels
  Among<T> among;
  int last;  // rows whose dx and dz are this walk's
  float weight[W][N], window[W - 1][N], pending[W - 1][N], dweight[W][N];

  __device__ __forceinline__ void enter(const Sequence& next, int64_t offset) {
    load_window<W>(p.dims, p.in, next, offset, c, window);
#pragma unroll
    for (int i = 0; i < W - 1; ++i)
#pragma unroll
      for (int e = 0; e < N; ++e) pending[i][e] = 0.0f;
  }

  __device__ __forceinline__ void write(T* to, const float (&dx)[N]) const {
    Pack<T, N> pack;
#pragma unroll
    for (int e = 0; e < N; ++e) pack.x[e] = from_float<T>(dx[e]);
    // By an instruction of our own: the compiler stores a Pack element by element here.
    using Raw = std::conditional_t<sizeof(pack) == 16, uint4, uint2>;
    static_assert(sizeof(Raw) == sizeof(pack));
    Raw raw;
    memcpy(&raw, &pack, sizeof(raw));
    __stwb(reinterpret_cast<Raw*>(to), raw);
  }

  // Row t, whose dx will be at `to`.
  __device__ __forceinline__ void step(int t, const Pack<T, N>& x, const Pack<T, N>& dy, T* to) {
    float done[N];
#pragma unroll
    for (int e = 0; e < N; ++e) {
      const float newest = to_float(x.x[e]);
      const float z = kSilu ? sum_of_window<W, N>(weight, window, newest, e) : 0.0f;
      const float dz = through_activation<T>(to_float(dy.x[e]), z, kSilu);
      const float counted = t < last ? dz : 0.0f;
#pragma unroll
      for (int j = 0; j < W - 1; ++j) dweight[j][e] += counted * window[j][e];
      dweight[W - 1][e] += counted * newest;
      push<W, N>(window, newest, e);
      done[e] = pending[0][e] + weight[0][e] * dz;
#pragma unroll
      for (int j = 0; j + 1 < W - 1; ++j) pending[j][e] = pending[j + 1][e] + weight[j + 1][e] * dz;
      pending[W - 2][e] = weight[W - 1][e] * dz;
    }
    if (t - (W - 1) >= among.begin) write(to - (W - 1) * p.dims.D, done);
  }

  // The last W - 1 rows of a sequence: none comes to add to them, but the state copied them.
  __device__ __forceinline__ void leave() const {
#pragma unroll
    for (int i = 0; i < W - 1; ++i) {
      const int t = among.end - (W - 1) + i;
      if (t < among.begin || t >= last) continue;
      float dx[N];
#pragma unroll
      for (int e = 0; e < N; ++e)
        dx[e] = pending[i][e] +
                (p.dstate_out ? to_float(p.dstate_out[(int64_t{among.n} * p.dims.D + c + e) * (W - 1) + i])
                              : 0.0f);
      write(p.dx + (among.first + t) * p.dims.D + c, dx);
    }
  }
};

constexpr int kWalkRuns = kWalkThreads / kWarp;  // runs of a block: a warp walks one, on N channels a lane

// Blocks: parts of kWalkRuns runs, for each kWarp * N channels. partial [parts, D, W].
template <typename T, int W, int N, bool kSilu>
__global__ void __launch_bounds__(kWalkThreads, 2)
    walk_bwd_kernel(ShortConvBwd<T> p, int64_t run, float* partial) {
  __shared__ float sums[kWalkRuns][N * W][kWarp];
  const Dims& d = p.dims;
  const int64_t rows = d.B * d.T, tiles = (d.D + kWarp * N - 1) / (kWarp * N);
  const int64_t part = blockIdx.x / tiles, tile = blockIdx.x % tiles;
  const int lane = threadIdx.x % kWarp, own = threadIdx.x / kWarp;
  const int64_t c = (tile * kWarp + lane) * N, first = (part * kWalkRuns + own) * run;
  WalkBack<T, W, N, kSilu> walk{p, c, {d, p.in, first}};
#pragma unroll
  for (int j = 0; j < W; ++j)
#pragma unroll
    for (int e = 0; e < N; ++e) walk.dweight[j][e] = 0.0f;
  if (c < d.D && first < rows) {
    load_by_channel<W>(p.in.weight + c * W, walk.weight);
    const Sequence start = walk.among.start();
    walk.enter(start, first - start.begin);
    walk.last = static_cast<int>(min(run, rows - first));
    const int stop = static_cast<int>(min(run + W - 1, rows - first));
    int64_t place = first * d.D + c;
    for (int t = 0; t < stop; t += kAhead, place += kAhead * d.D) {
      Pack<T, N> x[kAhead], dy[kAhead];
#pragma unroll
      for (int i = 0; i < kAhead; ++i)
        if (t + i < stop) {
          x[i] = *reinterpret_cast<const Pack<T, N>*>(p.in.x + place + i * d.D);
          dy[i] = *reinterpret_cast<const Pack<T, N>*>(p.dy + place + i * d.D);
        }
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        if (t + i >= stop) break;
        if (t + i == walk.among.end) walk.enter(walk.among.next(), 0);
        walk.step(t + i, x[i], dy[i], p.dx + place + i * d.D);
        if (t + i + 1 == walk.among.end) walk.leave();
      }
    }
  }
#pragma unroll
  for (int j = 0; j < W; ++j)
#pragma unroll
    for (int e = 0; e < N; ++e) sums[own][e * W + j][lane] = walk.dweight[j][e];
  __syncthreads();
  for (int i = threadIdx.x; i < N * W * kWarp; i += kWalkThreads) {
    const int64_t at = (tile * kWarp + i / (N * W)) * N * W + i % (N * W);
    if (at >= d.D * W) break;
    float sum = 0;
#pragma unroll
    for (int r = 0; r < kWalkRuns; ++r) sum += sums[r][i % (N * W)][i / (N * W)];
    partial[part * d.D * W + at] = sum;
  }
}

}  // namespace gsa::sm90
