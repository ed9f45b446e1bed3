// Gated slot attention step by step in float32, for every shape, dtype and gate: two walks forward, seven
// backward (scan_sm90.cuh), joined by the softmax over the slots.
#include <cfloat>

#include "general_sm90.h"
#include "scan_sm90.cuh"

namespace gsa::sm90 {
namespace {

using cuda::Scratch;
using cuda::warp_sum;
using slot_attention::ChunkBwd;
using slot_attention::ChunkFwd;
using slot_attention::Dims;
using slot_attention::Inputs;

constexpr int kRowWarps = 4;

// p = softmax(ok) over M, one warp a row; p may be ok.
__device__ void softmax_row(const float* ok, float* p, int64_t M) {
  const int lane = threadIdx.x % kWarp;
  float largest = -FLT_MAX, sum = 0;
  for (int64_t m = lane; m < M; m += kWarp) largest = fmaxf(largest, ok[m]);
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2)
    largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, offset));
  for (int64_t m = lane; m < M; m += kWarp) sum += expf(ok[m] - largest);
  sum = warp_sum(sum);
  for (int64_t m = lane; m < M; m += kWarp) p[m] = expf(ok[m] - largest) / sum;
}

__global__ void __launch_bounds__(kRowWarps* kWarp)
    softmax_kernel(const float* ok, float* p, int64_t rows, int64_t M) {
  const int64_t row = blockIdx.x * static_cast<int64_t>(kRowWarps) + threadIdx.x / kWarp;
  if (row < rows) softmax_row(ok + row * M, p + row * M, M);
}

struct RowGradients {
  Dims dims;
  const float *ok, *s;
  const float* ok_past;  // [rows, HQ, M] logits without the row's own write
  float* dp_past;  // in: gradient of p without the row's own write; out: what the row reads from earlier
                   // rows times its gradients, a term of dg
  float *p, *dok;
  float *qk, *dov;  // [rows, HQ] scale * q.k and do.v of the row itself
  float scale;
};

// dok = p (dp - p.dp), one warp a row and query head.
template <typename T>
__global__ void __launch_bounds__(kRowWarps* kWarp)
    row_gradients_kernel(RowGradients a, const T* q, const T* k, const T* v, const T* d_o) {
  const Dims& d = a.dims;
  const int64_t at = blockIdx.x * static_cast<int64_t>(kRowWarps) + threadIdx.x / kWarp;
  if (at >= d.B * d.T * d.HQ) return;
  const int lane = threadIdx.x % kWarp;
  const int64_t kv = at / d.HQ * d.H + at % d.HQ / (d.HQ / d.H);
  float qk = 0, dov = 0;
  for (int64_t i = lane; i < d.K; i += kWarp)
    qk += cuda::to_float(q[at * d.K + i]) * cuda::to_float(k[kv * d.K + i]);
  for (int64_t i = lane; i < d.V; i += kWarp)
    dov += cuda::to_float(d_o[at * d.V + i]) * cuda::to_float(v[kv * d.V + i]);
  qk = warp_sum(qk) * a.scale;
  dov = warp_sum(dov);
  float *p = a.p + at * d.M, *dp_past = a.dp_past + at * d.M;
  const float* s = a.s + kv * d.M;
  softmax_row(a.ok + at * d.M, p, d.M);
  float mean = 0;
  for (int64_t m = lane; m < d.M; m += kWarp) mean += p[m] * (dp_past[m] + dov * s[m]);
  mean = warp_sum(mean);
  for (int64_t m = lane; m < d.M; m += kWarp) {
    const float dok = p[m] * (dp_past[m] + dov * s[m] - mean);
    a.dok[at * d.M + m] = dok;
    dp_past[m] = a.ok_past[at * d.M + m] * dok + dp_past[m] * p[m];
  }
  if (lane == 0) {
    a.qk[at] = qk;
    a.dov[at] = dov;
  }
}

struct GateGradients {
  Dims dims;
  const int32_t* cu_seqlens;
  const float *s, *flow_in, *p, *dok, *qk, *dov;
  const float *ds_k, *ds_v;  // from later rows, through the key and the value state
  const float* end_flow;     // [N, H, M]: final states times their gradients; NULL: zeros
  float *ds, *dg;
};

constexpr int kGateParts = 32;  // warps that share a sequence; each sums its part, then runs through it

// ds, and dg as what crosses the gate of a row: a running sum in reverse of what rows read from earlier ones
// minus what they give to later ones. A row's own write read by itself is on neither side, and neither is
// what the last row gives to the final state, so nothing large cancels where gates forget nearly everything;
// the sum is in double.
__global__ void __launch_bounds__(kGateParts* kWarp) gate_gradients_kernel(GateGradients a) {
  __shared__ double sums[kGateParts][kWarp];
  const Dims& d = a.dims;
  const int64_t tiles = (d.M + kWarp - 1) / kWarp, state = blockIdx.x / tiles, h = state % d.H,
                G = d.HQ / d.H;
  const int part = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int64_t m = blockIdx.x % tiles * kWarp + lane;
  const auto rows = device_rows(a.cu_seqlens, d.T, state / d.H);
  const int64_t length = (rows.end - rows.begin + kGateParts - 1) / kGateParts;
  const int64_t first = min(rows.begin + part * length, rows.end), last = min(first + length, rows.end);
  const auto term = [&](int64_t row, float later) {
    const float given = row + 1 == rows.end ? 0.0f : later;
    double sum = -static_cast<double>(a.s[(row * d.H + h) * d.M + m]) * given;
    for (int64_t i = 0; i < G; ++i) sum += a.flow_in[((row * d.H + h) * G + i) * d.M + m];
    return sum;
  };
  const auto later_at = [&](int64_t row) {
    const int64_t at = (row * d.H + h) * d.M + m;
    return a.ds_k[at] + a.ds_v[at];
  };
  double sum = 0;
  if (m < d.M)
    for (int64_t row = first; row < last; ++row) sum += term(row, later_at(row));
  sums[part][lane] = sum;
  __syncthreads();
  if (m >= d.M) return;
  double flow = a.end_flow ? a.end_flow[state * d.M + m] : 0.0f;
  for (int later = kGateParts - 1; later > part; --later) flow += sums[later][lane];
  for (int64_t row = last - 1; row >= first; --row) {
    const int64_t at = (row * d.H + h) * d.M + m;
    const float later = later_at(row);
    flow += term(row, later);
    a.dg[at] = static_cast<float>(flow);
    float own = 0;
    for (int64_t i = 0; i < G; ++i) {
      const int64_t head = (row * d.H + h) * G + i;
      own += a.qk[head] * a.dok[head * d.M + m] + a.dov[head] * a.p[head * d.M + m];
    }
    a.ds[at] = later + own;
  }
}

unsigned blocks(int64_t n, int64_t per_block) {
  return static_cast<unsigned>((n + per_block - 1) / per_block);
}

// A walk over the key state (x = k, width K) or the value state (width V), forward.
template <typename T, typename Out>
Scan<T, Out> forward_walk(const Dims& d, const Inputs& in, bool key) {
  Scan<T, Out> w{};
  w.cu_seqlens = in.cu_seqlens;
  w.T_len = d.T;
  w.N = d.N;
  w.H = d.H;
  w.A = key ? d.K : d.V;
  w.M = d.M;
  w.g = in.g;
  w.x = static_cast<const T*>(key ? in.k : in.v);
  w.y = in.s;
  w.GW = 1;
  w.GR = d.group();
  w.scale = key ? in.scale : 1.0f;
  w.write_scale = 1.0f;
  w.own = true;
  w.before = key ? in.hk0 : in.hv0;
  w.stride_A = key ? d.M : 1;
  w.stride_M = key ? 1 : d.V;
  return w;
}

template <typename T>
void forward(gsa_device& device, const ChunkFwd& p) {
  const Dims& d = p.dims;
  const int64_t rows = d.B * d.T * d.HQ;
  const Scratch weights(device, rows * d.M * sizeof(float));
  float* ok = p.ok ? p.ok : weights.as<float>();
  Scan<T, float> logits = forward_walk<T, float>(d, p.in, true);
  logits.read_A = static_cast<const T*>(p.in.q);
  logits.out = ok;
  logits.after = p.hkT;
  scan<false, false>(device, logits);
  if (rows > 0)
    softmax_kernel<<<blocks(rows, kRowWarps), kRowWarps * kWarp, 0, device.stream>>>(ok, weights.as<float>(),
                                                                                     rows, d.M);
  Scan<T, T> values = forward_walk<T, T>(d, p.in, false);
  values.read_M = weights.as<float>();
  values.out = static_cast<T*>(p.o);
  values.after = p.hvT;
  scan<true, false>(device, values);
}

// What backward keeps between its walks. [rows, HQ, M] unless said otherwise.
struct BackwardScratch {
  Scratch memory;
  float *ok_past, *dp_past, *p, *dok;
  float *ds_k, *ds_v;  // [rows, H, M]
  float *qk, *dov;     // [rows, HQ]
  float* end_flow;     // [N, H, M]

  BackwardScratch(gsa_device& device, const Dims& d)
      : memory(device,
               (d.B * d.T * (d.HQ * (4 * d.M + 2) + 2 * d.H * d.M) + d.N * d.H * d.M) * sizeof(float)) {
    float* next = memory.as<float>();
    const auto take = [&](float*& field, int64_t n) {
      field = next;
      next += n;
    };
    const int64_t rows = d.B * d.T;
    for (float** field : {&ok_past, &dp_past, &p, &dok}) take(*field, rows * d.HQ * d.M);
    for (float** field : {&ds_k, &ds_v}) take(*field, rows * d.H * d.M);
    for (float** field : {&qk, &dov}) take(*field, rows * d.HQ);
    take(end_flow, d.N * d.H * d.M);
  }
};

// ok_past and dp_past, and the part of dg that final states with a gradient bring in.
template <typename T>
void read_past(gsa_device& device, const ChunkBwd& p, const BackwardScratch& x) {
  for (const bool key : {true, false}) {
    Scan<T, float> past = forward_walk<T, float>(p.dims, p.in, key);
    past.own = false;
    past.read_A = static_cast<const T*>(key ? p.in.q : p.d_o);
    past.out = key ? x.ok_past : x.dp_past;
    past.end_gradient = key ? p.dhkT : p.dhvT;
    past.end_flow = x.end_flow;
    past.add_flow = !key;
    scan<false, false>(device, past);
  }
}

// The gradient of the key (x = q, y = dok) or the value state (x = do, y = p) in reverse: dk or dv, and ds_k
// or ds_v.
template <typename T>
void walk_back(gsa_device& device, const ChunkBwd& p, const BackwardScratch& x, bool key) {
  Scan<T, T> inputs = forward_walk<T, T>(p.dims, p.in, key);
  inputs.x = static_cast<const T*>(key ? p.in.q : p.d_o);
  inputs.y = key ? x.dok : x.p;
  inputs.GW = p.dims.group();
  inputs.GR = 1;
  inputs.scale = 1.0f;
  inputs.write_scale = key ? p.in.scale : 1.0f;
  inputs.before = key ? p.dhkT : p.dhvT;
  inputs.read_M = p.in.s;
  inputs.out = static_cast<T*>(key ? p.dk : p.dv);
  inputs.after = key ? p.dhk0 : p.dhv0;
  scan<true, true>(device, inputs);

  Scan<T, float> strengths = forward_walk<T, float>(p.dims, p.in, key);
  strengths.x = inputs.x;
  strengths.y = inputs.y;
  strengths.GW = inputs.GW;
  strengths.GR = 1;
  strengths.scale = 1.0f;
  strengths.write_scale = inputs.write_scale;
  strengths.before = inputs.before;
  strengths.own = false;
  strengths.read_A = static_cast<const T*>(key ? p.in.k : p.in.v);
  strengths.out = key ? x.ds_k : x.ds_v;
  scan<false, true>(device, strengths);
}

template <typename T>
void backward(gsa_device& device, const ChunkBwd& p) {
  const Dims& d = p.dims;
  const int64_t rows = d.B * d.T * d.HQ, states = d.N * d.H;
  const BackwardScratch x(device, d);
  read_past<T>(device, p, x);
  if (rows > 0)
    row_gradients_kernel<T><<<blocks(rows, kRowWarps), kRowWarps * kWarp, 0, device.stream>>>(
        {d, p.ok, p.in.s, x.ok_past, x.dp_past, x.p, x.dok, x.qk, x.dov, p.in.scale},
        static_cast<const T*>(p.in.q), static_cast<const T*>(p.in.k), static_cast<const T*>(p.in.v),
        static_cast<const T*>(p.d_o));
  Scan<T, T> queries = forward_walk<T, T>(d, p.in, true);
  queries.read_M = x.dok;
  queries.out = static_cast<T*>(p.dq);
  scan<true, false>(device, queries);
  walk_back<T>(device, p, x, true);
  walk_back<T>(device, p, x, false);
  if (rows > 0 && states > 0)
    gate_gradients_kernel<<<static_cast<unsigned>(states * ((d.M + kWarp - 1) / kWarp)), kGateParts * kWarp,
                            0, device.stream>>>({d, p.in.cu_seqlens, p.in.s, x.dp_past, x.p, x.dok, x.qk,
                                                 x.dov, x.ds_k, x.ds_v, x.end_flow, p.ds, p.dg});
}

}  // namespace

void general_fwd(gsa_device& device, const ChunkFwd& p, int32_t dtype) {
  cuda::with_float_type(dtype, "q", [&](auto type) { forward<decltype(type)>(device, p); });
}

void general_bwd(gsa_device& device, const ChunkBwd& p, int32_t dtype) {
  cuda::with_float_type(dtype, "q", [&](auto type) { backward<decltype(type)>(device, p); });
}

}  // namespace gsa::sm90
