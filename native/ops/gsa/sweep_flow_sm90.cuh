// The last pass of the backward sweeps: gsa_sweep_flow_sm90.cu.
#pragma once

#include "sweep_line_sm90.cuh"
#include "sweep_sm90.cuh"

namespace gsa::sm90 {

// The layer form: the gates are g = logsigmoid(f) / normalizer, s = 1 - exp(g) of raw projections f.
struct GateSlope {
  const bf16* f;  // [rows, stride], at its first slot; NULL: the plain form
  bf16* df;       // in the same places
  int64_t stride;
  float inverse_normalizer;
};

// What crosses the gates of the first rows: initial states times their gradients.
struct FirstCrossing {
  int slots;  // 64 or 128
  int64_t K, V;
  const float *hk0, *dhk0;  // [states, K, slots]; NULL: zeros
  const float *hv0, *dhv0;  // [states, slots, V]; NULL: zeros
  float* out;               // [states, slots]
};
void launch_first_crossing(gsa_device& device, int64_t states, const FirstCrossing& a);

struct FlowPass {
  Documents documents;
  int64_t T, N, HQ, H;
  int cluster;
  const float* first_crossing;  // FirstCrossing::out; NULL: no initial states
  const float* s;               // [rows, H, slots]
  const float *flow, *ds;       // [rows, HQ, slots]
  const float* anchor_flow;     // [first_anchor .., HQ, cluster, 5, slots]
  float* dg;                    // [rows, H, slots]; layer form, HQ = H: not wanted
  float* ds_of_groups;  // [rows, H, slots] sums of ds over the query heads of a group; NULL: not wanted
  GateSlope gate;
};
void launch_flow(gsa_device& device, const FlowPass& a);

}  // namespace gsa::sm90
