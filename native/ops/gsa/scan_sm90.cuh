// The step-by-step recurrence that every part of the operator is made of, for any shape and gates:
//   X_t = exp(g) * X_{t-1} + sum_w x_tw y_tw^T,  X [A, M],  gates along M
// read out as out_t = X_t u_t over the channels ("contract A") or the slots ("contract M"). In reverse time
// it gives the gradients of the states. Float32 throughout; one warp walks a sequence with its columns of X
// in registers.
#pragma once

#include "../../cuda/kernel.cuh"
#include "sequence_rows_sm90.cuh"

namespace gsa::sm90 {

using cuda::kWarp;

constexpr int kScanWarps = 4;

// Token tensors are [rows, heads, width]; GW and GR heads share one state.
template <typename T, typename Out>
struct Scan {
  const int32_t* cu_seqlens;
  int64_t T_len, N, H, A, M;
  const float* g;       // [rows, H, M]
  const T* x;           // [rows, H * GW, A] what is written, along the channels
  const float* y;       // [rows, H * GW, M] and along the slots
  const T* read_A;      // [rows, H * GR, A] contracted with X over the channels, or
  const float* read_M;  // [rows, H * GR, M] over the slots
  Out* out;             // [rows, H * GR, M or A]
  int64_t GW, GR;
  float scale;                 // of out
  float write_scale;           // of what is written
  bool own;                    // whether row t reads what row t writes
  const float* before;         // state the walk starts from, NULL: zeros
  float* after;                // where it ends, NULL: not wanted; may be `before`
  int64_t stride_A, stride_M;  // of both, between elements; one state is A * M floats
  // contract A, not own: end_flow[n, h, m] (+)= sum_a X * end_gradient with X as the last row reads it,
  // without what that row writes: it passes no gate
  const float* end_gradient;
  float* end_flow;
  bool add_flow;
  float* pages;  // [N, H, columns, padded length]: X, where it does not fit registers
};

namespace {

// L lanes share a column, R elements of it each (in `pages` if it is longer than that), C columns a lane.
template <typename T, typename Out, bool kOverSlots, bool kReverse, int R, int L, int C, bool kPaged>
__global__ void __launch_bounds__(kScanWarps* kWarp) scan_kernel(Scan<T, Out> a) {
  constexpr int kColumns = kScanWarps * (kWarp / L) * C;
  const int64_t kept = kOverSlots ? a.A : a.M, length = kOverSlots ? a.M : a.A;
  const int64_t tiles = (kept + kColumns - 1) / kColumns;
  const int64_t state = blockIdx.x / tiles, h = state % a.H;
  const int lane = threadIdx.x % L;
  const int64_t column = (blockIdx.x % tiles) * kColumns + static_cast<int64_t>(threadIdx.x / L) * C;
  const int64_t panels = kPaged ? (length + R * L - 1) / (R * L) : 1;
  const int64_t element_stride = kOverSlots ? a.stride_M : a.stride_A,
                column_stride = kOverSlots ? a.stride_A : a.stride_M;
  const int64_t page = (state * kept + column) * panels * R * L;
  float X[C][R];

  const auto at_state = [&](int64_t c, int64_t e) {
    return state * a.A * a.M + (column + c) * column_stride + e * element_stride;
  };
  const auto element = [&](int64_t panel, int i) { return (panel * R + i) * L + lane; };
  const auto page_in = [&](int64_t panel) {
    if constexpr (kPaged)
#pragma unroll
      for (int c = 0; c < C; ++c)
#pragma unroll
        for (int i = 0; i < R; ++i)
          X[c][i] = column + c < kept ? a.pages[page + c * panels * R * L + element(panel, i)] : 0.0f;
  };
  const auto page_out = [&](int64_t panel) {
    if constexpr (kPaged)
#pragma unroll
      for (int c = 0; c < C; ++c)
#pragma unroll
        for (int i = 0; i < R; ++i)
          if (column + c < kept) a.pages[page + c * panels * R * L + element(panel, i)] = X[c][i];
  };
  // exp(g) of one row: per element over the slots, per column over the channels.
  const auto decay_by = [&](int64_t row, int64_t panel) {
    const float* g = a.g + (row * a.H + h) * a.M;
    if constexpr (kOverSlots) {
#pragma unroll
      for (int i = 0; i < R; ++i) {
        const float d = element(panel, i) < length ? expf(g[element(panel, i)]) : 0.0f;
#pragma unroll
        for (int c = 0; c < C; ++c) X[c][i] *= d;
      }
    } else {
#pragma unroll
      for (int c = 0; c < C; ++c) {
        const float d = column + c < kept ? expf(g[column + c]) : 0.0f;
#pragma unroll
        for (int i = 0; i < R; ++i) X[c][i] *= d;
      }
    }
  };
  const auto write = [&](int64_t row, int64_t panel) {
    for (int64_t w = 0; w < a.GW; ++w) {
      const int64_t at = (row * a.H + h) * a.GW + w;
      float along[R], across[C];
#pragma unroll
      for (int i = 0; i < R; ++i) {
        const int64_t e = element(panel, i);
        along[i] = e < length ? (kOverSlots ? a.y[at * a.M + e] : cuda::to_float(a.x[at * a.A + e])) : 0.0f;
      }
#pragma unroll
      for (int c = 0; c < C; ++c) {
        const int64_t k = column + c;
        across[c] = k < kept
                        ? (kOverSlots ? cuda::to_float(a.x[at * a.A + k]) : a.y[at * a.M + k]) * a.write_scale
                        : 0.0f;
      }
#pragma unroll
      for (int c = 0; c < C; ++c)
#pragma unroll
        for (int i = 0; i < R; ++i) X[c][i] += along[i] * across[c];
    }
  };
  const auto partial = [&](int64_t at, int64_t panel, float (&sum)[C]) {
#pragma unroll
    for (int i = 0; i < R; ++i) {
      const int64_t e = element(panel, i);
      const float u =
          e < length ? (kOverSlots ? a.read_M[at * a.M + e] : cuda::to_float(a.read_A[at * a.A + e])) : 0.0f;
#pragma unroll
      for (int c = 0; c < C; ++c) sum[c] += X[c][i] * u;
    }
  };
  const auto reduce = [&](float (&sum)[C]) {
#pragma unroll
    for (int c = 0; c < C; ++c)
#pragma unroll
      for (int offset = L / 2; offset > 0; offset /= 2) sum[c] += __shfl_xor_sync(~0u, sum[c], offset);
  };
  const auto read = [&](int64_t row) {
    for (int64_t r = 0; r < a.GR; ++r) {
      const int64_t at = (row * a.H + h) * a.GR + r;
      float sum[C] = {};
      for (int64_t panel = 0; panel < panels; ++panel) {
        page_in(panel);
        partial(at, panel, sum);
      }
      reduce(sum);
      if (lane == 0)
#pragma unroll
        for (int c = 0; c < C; ++c)
          if (column + c < kept) a.out[at * kept + column + c] = cuda::from_float<Out>(sum[c] * a.scale);
    }
  };

  for (int64_t panel = 0; panel < panels; ++panel) {
#pragma unroll
    for (int c = 0; c < C; ++c)
#pragma unroll
      for (int i = 0; i < R; ++i) {
        const bool inside = a.before && column + c < kept && element(panel, i) < length;
        X[c][i] = inside ? a.before[at_state(c, element(panel, i))] : 0.0f;
      }
    page_out(panel);
  }
  const auto rows = device_rows(a.cu_seqlens, a.T_len, state / a.H);
  float flow[C] = {};
  const auto add_end_flow = [&](int64_t panel) {
#pragma unroll
    for (int c = 0; c < C; ++c)
#pragma unroll
      for (int i = 0; i < R; ++i)
        if (column + c < kept && element(panel, i) < length)
          flow[c] += X[c][i] * a.end_gradient[at_state(c, element(panel, i))];
  };
  for (int64_t step = 0; step < rows.end - rows.begin; ++step) {
    const int64_t row = kReverse ? rows.end - 1 - step : rows.begin + step;
    // In reverse, what reaches row t passed the gate of row t + 1.
    const int64_t gate_row = kReverse ? row + 1 : row;
    for (int64_t panel = 0; panel < panels; ++panel) {
      page_in(panel);
      if (gate_row < rows.end) decay_by(gate_row, panel);
      if (a.own) write(row, panel);
      page_out(panel);
    }
    read(row);
    for (int64_t panel = 0; !a.own && panel < panels; ++panel) {
      page_in(panel);
      if (a.end_gradient && row + 1 == rows.end) add_end_flow(panel);
      write(row, panel);
      page_out(panel);
    }
  }
  for (int64_t panel = 0; panel < panels; ++panel) {
    page_in(panel);
    if (kReverse && rows.begin < rows.end) decay_by(rows.begin, panel);
#pragma unroll
    for (int c = 0; c < C; ++c)
#pragma unroll
      for (int i = 0; i < R; ++i) {
        if (a.after && column + c < kept && element(panel, i) < length)
          a.after[at_state(c, element(panel, i))] = X[c][i];
      }
  }
  if (!a.end_flow || kOverSlots) return;
  reduce(flow);
#pragma unroll
  for (int c = 0; c < C; ++c)
    if (lane == 0 && column + c < kept) {
      float* sum = a.end_flow + state * a.M + column + c;
      *sum = (a.add_flow ? *sum : 0.0f) + flow[c];
    }
}

template <bool kOverSlots, bool kReverse, int R, int L, int C, bool kPaged, typename T, typename Out>
void launch_scan(gsa_device& device, Scan<T, Out> a) {
  constexpr int kColumns = kScanWarps * (kWarp / L) * C;
  const int64_t kept = kOverSlots ? a.A : a.M, length = kOverSlots ? a.M : a.A;
  const int64_t blocks = a.N * a.H * ((kept + kColumns - 1) / kColumns);
  if (blocks == 0) return;
  const int64_t padded = (length + R * L - 1) / (R * L) * R * L;
  const cuda::Scratch pages(device, kPaged ? a.N * a.H * kept * padded * sizeof(float) : 0);
  a.pages = pages.as<float>();
  scan_kernel<T, Out, kOverSlots, kReverse, R, L, C, kPaged>
      <<<static_cast<unsigned>(blocks), kScanWarps * kWarp, 0, device.stream>>>(a);
}

template <bool kOverSlots, bool kReverse, typename T, typename Out>
void scan(gsa_device& device, const Scan<T, Out>& a) {
  const int64_t length = kOverSlots ? a.M : a.A;
  if (length <= 32) return launch_scan<kOverSlots, kReverse, 8, 4, 2, false>(device, a);
  if (length <= 64) return launch_scan<kOverSlots, kReverse, 8, 8, 2, false>(device, a);
  if (length <= 128) return launch_scan<kOverSlots, kReverse, 8, 16, 2, false>(device, a);
  if (length <= 512) return launch_scan<kOverSlots, kReverse, 16, 32, 2, false>(device, a);
  launch_scan<kOverSlots, kReverse, 16, 32, 2, true>(device, a);
}

}  // namespace
}  // namespace gsa::sm90
