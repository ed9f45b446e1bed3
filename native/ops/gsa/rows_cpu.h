// Row-by-row work inside a chunk, compiled once per instruction set (rows.inl). A chunk is cut into blocks of
// kBlock tokens. Between blocks decays factor through the block's edges and the work is matrix products;
// inside a block it is done here, one token after another, with one exp per gate and no difference of sums:
// gates of 0, -1e4 or any mixture are exact, and nothing is ever multiplied by an infinity.
//
// All [rows, slots] arrays here have rows `ld` floats apart, ld = padded_slots(M); columns M .. ld - 1 hold
// zeros.
#pragma once

#include <cstdint>

namespace gsa::cpu {

constexpr int64_t kChunk = 64;  // tokens; also the row stride of the [token, token] score matrices
constexpr int64_t kBlock = 16;
constexpr int64_t kMaxBlocks = kChunk / kBlock;
constexpr int64_t kSlotPad = 16;  // floats in the widest vector register

constexpr int64_t padded_slots(int64_t M) { return (M + kSlotPad - 1) / kSlotPad * kSlotPad; }
constexpr int64_t block_count(int64_t rows) { return (rows + kBlock - 1) / kBlock; }

// One diagonal block of the forward pass.
struct ForwardBlock {
  int64_t rows, slots, ld;
  const float* s;           // [rows, ld] write strengths
  const float* step;        // [rows, ld] exp(g)
  const float* from_start;  // [rows, ld] decay from before the block to just after the row
  const float* qk;          // [rows, rows] scaled scores q_i . k_j, stride kChunk; read for j <= i
  float* ok;         // [rows, ld] in: logits of everything before the block, undecayed; out: the logits
  float* p_decayed;  // [rows, ld] out: softmax(ok) * from_start
  float* pv;         // [rows, rows] out: weight of v_j in o_i, stride kChunk; zeros for j > i
  float* writes;     // [kBlock, ld] scratch: what remains of the s_j
};

// One diagonal block of the backward pass, in token order: everything that gathers from the past.
struct GatherBlock {
  int64_t rows, slots, ld;
  const float* s;
  const float* step;
  const float* from_start;
  const float* qk;       // [rows, rows] scaled, stride kChunk
  const float* dov;      // [rows, rows] do_i . v_j, stride kChunk
  const float* p;        // [rows, ld] softmax(ok)
  const float* ok_past;  // [rows, ld] logits of everything before the block, undecayed
  const float* dp_past;  // [rows, ld] the same for dp
  float* dok;            // [rows, ld] out
  float* p_decayed;      // [rows, ld] out: p * from_start
  float* dok_decayed;    // [rows, ld] out
  float* pv;             // [rows, rows] out, as in the forward pass
  float* dqk;            // [rows, rows] out: gradient of the unscaled score over scale; zeros for j > i
  float* flow;           // [rows, ld] added to: what row i receives from rows before it, times its gradient
  float* writes;         // [kBlock, ld] scratch
};

// The same block in reverse order: what each row's write strength passes on to the rows after it.
struct ScatterBlock {
  int64_t rows, ld;
  const float* s;
  const float* step;
  const float* qk;
  const float* dov;
  const float* p;
  const float* dok;
  float* later;  // [rows, ld] in: gradient of s from the chunk's later blocks, up to the end of this one;
                 // changed
  float* ds;     // [rows, ld] added to
  float* flow;   // [rows, ld] what row j gives to rows after it is taken off
};

struct RowKernels {
  // step, from_start as in ForwardBlock; s_to_end = s * decay from after the row to the end of its block;
  // block_decay [blocks, ld] = decay over each block. Shapes [rows, ld].
  void (*block_tables)(const float* s, const float* g, int64_t rows, int64_t ld, float* step,
                       float* from_start, float* s_to_end, float* block_decay);
  // to_end = decay from after the row to the end of the chunk, s_to_end = s * to_end, decay [ld] over the
  // chunk.
  void (*chunk_tables)(const float* s, const float* g, int64_t rows, int64_t ld, float* to_end,
                       float* s_to_end, float* decay);
  // x[i, m] *= factor[m]
  void (*scale_columns)(float* x, int64_t rows, int64_t ld, const float* factor);
  // a state after a chunk, [rows, columns]: y += x * (by column ? decay[column] : decay[row])
  void (*decay_columns)(const float* x, const float* decay, int64_t rows, int64_t columns, float* y);
  void (*decay_rows)(const float* x, const float* decay, int64_t rows, int64_t columns, float* y);
  // out[m] += sum over rows (columns) of a * b: both [rows, columns]
  void (*dot_columns)(const float* a, const float* b, int64_t rows, int64_t columns, float* out);
  void (*dot_rows)(const float* a, const float* b, int64_t rows, int64_t columns, float* out);
  // p = softmax of each row of `slots` logits that lie `stride` apart
  void (*softmax_rows)(const float* logits, int64_t stride, int64_t rows, int64_t slots, int64_t ld,
                       float* p);
  void (*forward_block)(const ForwardBlock&);
  void (*gather_block)(const GatherBlock&);
  void (*scatter_block)(const ScatterBlock&);
  // ds += to_end * u; dg[i] = carry + sum over i' < i of (s_to_end * u - dg)[i']. Rows of ds and dg are
  // `stride` apart.
  void (*finish_gates)(const float* u, const float* to_end, const float* s_to_end, const float* carry,
                       int64_t rows, int64_t slots, int64_t ld, int64_t stride, float* ds, float* dg);
};

const RowKernels& row_kernels();

}  // namespace gsa::cpu
