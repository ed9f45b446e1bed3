// The states where the line of the sweeps cuts a walk, all of them computed before the sweep, so that no
// cluster waits for another: gsa_sweep_segments_sm90.cu.
//
// A piece that ends in a cut maps the state before it to the one after it: decay * state + sum over its rows
// of x_t (outer) y_t, where y_t are the write strengths decayed from row t to the cut. So a piece is one
// product [channels, rows] [rows, slots] and its decay; the states follow by going through the pieces of a
// walk in order. Every decay is the exponential of a sum of gates; rows past which all slots have forgotten
// everything (it is 0 in float32) are not read.
#pragma once

#include "sweep_line_sm90.cuh"
#include "sweep_sm90.cuh"

namespace gsa::sm90 {

// What makes the states of a sweep; the same letters as in its arguments.
struct SegmentPass {
  Walks walks;
  int64_t H;              // key/value heads
  int64_t state_heads;    // of the states and of what is written into them: H, against time all
  const float* g;         // [rows, H, slots]
  const float* strength;  // [rows, state_heads, slots]
  const float* norm;      // [rows, state_heads] the strengths are the softmax of `strength`; NULL: themselves
  TensorMap in_map, out_map;  // of what is written into the two states, [rows, state_heads, width]
  int64_t in_width, out_width;
  StateEnds ends;
  bool raw;        // what is written is silu of the maps' rows
  LineTable line;  // this and what follows: filled in by launch_sweep
  int clusters;
  float* states;  // [cluster, block, in and out] after the cluster's first piece: written where that ends in
                  // a cut
};

// How many clusters share the line, where `fit` run at once, and whether states have to be computed before:
// for packed documents, whose lengths the host does not know, and where walks would leave a third of the
// clusters without work. Others, and all where `segments` is false, hand their states over.
struct Cuts {
  int clusters;
  bool segments;
};
Cuts cut_line(const Walks& walks, int fit, bool segments);

// kReverse: the sweep against time, both of whose states are the same.
template <bool kReverse>
void launch_segments(gsa_device& device, const SegmentPass& a, int cluster);

}  // namespace gsa::sm90
