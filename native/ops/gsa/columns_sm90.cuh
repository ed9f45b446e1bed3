// The pass over the keys and values of each chunk that gives dk, dv, ds and dg: gsa_fast_columns_sm90.cu.
#pragma once

#include "intra_sm90.cuh"

namespace gsa::sm90 {

struct ColumnSide {
  const bf16* later;    // [rows, HQ, width] q or do: what reads
  const bf16* own;      // [rows, H, width] k or v: what is read
  const bf16* weights;  // [chunks, HQ, kParts, 64, 64] with which row i reads row j
  bf16* out;            // [rows, H, width] dk or dv
  float* sum;           // [rows, H, width] of a group's query heads so far; NULL: in `out`
  int64_t width;
  int first_tile;
  float scale;  // of the products later . own
};

struct ColumnPass {
  Chunks chunks;
  int64_t H, G;  // HQ = H * G
  const float *s, *g;
  ColumnSide key, value;
  const bf16* tiles;            // gradients of the states after the chunks
  const float *p, *dok, *flow;  // [rows, HQ, places]
  const float* start_flow;      // [chunks, H, slices, places]
  float* later;                 // [rows, H, places] exact: what later rows give to ds
  float *ds, *dg;               // [rows, H, M]
};
void launch_columns(gsa_device& device, const ColumnPass& pass);

}  // namespace gsa::sm90
