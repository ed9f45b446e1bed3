// Gates and write strengths of the layer form, before the forward sweep: gsa_sweep_gates_sm90.cu.
#pragma once

#include "sweep_sm90.cuh"

namespace gsa::sm90 {

struct GatePass {
  const bf16* f;  // [rows, stride] raw projections
  int64_t stride;
  int64_t rows;
  int H;     // heads of 64 slots
  float* g;  // [rows, H, slots] written: logsigmoid(f) / normalizer
  float* s;  // [rows, H, slots] written: 1 - exp(g)
  float inverse_normalizer;
};
void launch_gates(gsa_device& device, const GatePass& a);

}  // namespace gsa::sm90
