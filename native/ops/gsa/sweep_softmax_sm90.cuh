// The first pass of the backward sweeps: gsa_sweep_softmax_sm90.cu.
#pragma once

#include "sweep_sm90.cuh"

namespace gsa::sm90 {

struct SoftmaxPass {
  const float* ok;  // [rows, slots]
  float* norm;      // [rows] written: log2 of the sum of exp(ok), so that p = exp2(ok / ln 2 - norm)
  int64_t rows;     // of all query heads
  int halves;       // of the slots, 64 each
};
void launch_softmax(gsa_device& device, const SoftmaxPass& a);

}  // namespace gsa::sm90
