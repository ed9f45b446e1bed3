// The pass over the rows of each chunk that gives o, or dq and the gradients of the slots:
// gsa_fast_rows_sm90.cu.
#pragma once

#include "intra_sm90.cuh"

namespace gsa::sm90 {

struct RowPass {
  Chunks chunks;
  int64_t HQ, H;
  const float *s, *g;
  const bf16* tiles;  // states before the chunks
  // Forward: q, k, the key state -> v, the value state, o. Backward: do, v, the value state -> k, the key
  // state, dq.
  const bf16 *in_rows, *in_keys, *out_keys;
  int64_t in_width, out_width;
  int in_first, out_first;  // first tile of the state that goes in, and out
  float in_scale, out_scale;
  bf16* out;
  float* ok;  // [rows, HQ, M] forward: written unless NULL; backward: read
  // Backward, written:
  float *p, *dok;  // [rows, HQ, places]
  // [rows, HQ, places] ok * dok + p * dp; exact, with the parts of ok and dp that earlier rows wrote, for
  // which it is read first: kPast leaves that part of ok there.
  float* flow;
  bf16 *p_decayed, *dok_decayed;  // [rows, HQ, kPitch] times the decay from the chunk's start (and out_scale)
  // [chunks, HQ, kParts, 64, 64] weights with which row i reads row j; lower blocks only
  bf16 *value_weights, *key_weights;
};
// kPast, exact only: what row i reads from earlier rows, as forward, without what it wrote itself.
enum class Rows { kForward, kBackward, kPast };
void launch_rows(gsa_device& device, const RowPass& pass, Rows kind);

}  // namespace gsa::sm90
