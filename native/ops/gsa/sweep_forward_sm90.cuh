// The sweep in the direction of time, twice used:
//   forward   in: q, k and the key state; softmax; out: v and the value state -> o
//   backward  in: do, v and the value state -> dp; dok = p (dp - p . dp); out: k and the key state -> dq
#pragma once

#include "sweep_activate_sm90.cuh"
#include "sweep_line_sm90.cuh"
#include "sweep_slope_sm90.cuh"
#include "sweep_sm90.cuh"

namespace gsa::sm90 {

struct ForwardSweep {
  Documents documents;
  int64_t T, N, HQ, H, group;                                // HQ = H * group
  const float *s, *g;                                        // [rows, H, slots]
  const bf16* in_read;                                       // [rows, HQ, in_width] q | do
  const bf16* in_write;                                      // [rows, H, in_width] k | v
  const bf16* values;                                        // [rows, H, out_width] v | k
  TensorMap in_read_map, in_write_map, values_map, out_map;  // of these and out: filled in by the launch
  int64_t rows;                                              // B * T
  int64_t in_width, out_width;
  StateEnds ends;
  float in_scale, out_scale;
  bf16* out;          // [rows, HQ, out_width] o | dq
  float* ok;          // [rows, HQ, slots] forward: written unless NULL; backward: read
  const float* norm;  // [rows, HQ] backward: of the softmax of ok (sweep_softmax_sm90.cuh)
  float* dok;         // [rows, HQ, slots] backward: written
  float* flow;        // [rows, HQ, slots] backward: written, ok * dok + p * dp
  bf16* anchors;  // [first_anchor .., H, half, cluster, in and out, ..] backward: the states after every step
  LineTable line;  // this and what follows: filled in by the launch
  int clusters;
  int halves;  // of the slots, 64 each: 1 or, backward with HQ = H, 2; given, as what is above the line
  HandOver hand_over;
  // Layer form, HQ = H: elements from one row of raw projections to the next; q, k and v are such, and made
  // silu of as they are read. 0: the plain form.
  int64_t raw_stride;
  SiluSlope slope;  // layer form of the backward: out is the gradient of what silu makes q of
};

void launch_forward_sweep(gsa_device& device, Lines& lines, const ForwardSweep& a, bool backward);

}  // namespace gsa::sm90
