// The sweep against time, used for the value side (write do with p, read v: dv, and its part of ds) and for
// the key side (write q with scale * dok, read k: dk, the rest of ds). Every query head is a walk of its own;
// what the heads of a group share is summed afterwards (sweep_groups_sm90.cuh).
#pragma once

#include "sweep_activate_sm90.cuh"
#include "sweep_line_sm90.cuh"
#include "sweep_slope_sm90.cuh"
#include "sweep_sm90.cuh"

namespace gsa::sm90 {

struct ReverseSweep {
  Documents documents;
  int64_t T, N, HQ, H;
  const float *s, *g;     // [rows, H, slots]
  const float* strength;  // [rows, HQ, slots] value side: ok, whose softmax is p; key side: scale * dok
  const float* norm;      // [rows, HQ] value side: of the softmax of ok
  const bf16* write;      // [rows, HQ, width] q | do
  const bf16* read;       // [rows, H, width] k | v
  TensorMap write_map, read_map, out_map;  // of these and out: filled in by the launch
  int64_t rows;                            // B * T
  int64_t width;
  StateEnds ends;
  bf16* out;             // [rows, HQ, width] dk | dv
  float* ds;             // [rows, HQ, slots] value side: written; key side: added to
  const bf16* anchors;   // as the forward sweep stored them
  int anchor_slices[2];  // widths of their two halves in one block
  float* flow;     // [first_anchor .., HQ, half, cluster, 5, 64] state . gradient: value side, then 4 warps
  LineTable line;  // this and what follows: filled in by the launch
  int clusters;
  HandOver hand_over;
  int half, halves;  // given: which of how many halves of the slots, 64 each; of two where HQ = H only
  // Layer form, HQ = H: out is the gradient of what silu makes k or v of. `read`, and on the key side
  // `write`, are raw projections, too, and made silu of as they are read.
  SiluSlope slope;
};

void launch_reverse_sweep(gsa_device& device, Lines& lines, const ReverseSweep& a, int cluster,
                          bool key_side);

}  // namespace gsa::sm90
