// Matrix work inside one chunk, around the diagonal blocks of rows_cpu.h.
#pragma once

#include <algorithm>
#include <cstdint>

#include "chunks_cpu.h"
#include "rows_cpu.h"

namespace gsa::cpu {

// A stored matrix, and whether the product takes its transpose.
struct Matrix {
  const float* data;
  int64_t stride;
  bool transposed = false;
};
inline Matrix transpose(Matrix x) { return {x.data, x.stride, !x.transposed}; }

// c = alpha * op(a) op(b) + beta * c, on this thread: op(a) is [m, k], op(b) [k, n].
void multiply(int64_t m, int64_t n, int64_t k, float alpha, Matrix a, Matrix b, float beta, float* c,
              int64_t ldc);

// Scores are [rows, rows] matrices, kChunk floats between rows, that mean something for j <= i only.
// scores = alpha * a b^T for j <= i; what stands above the diagonal is undefined.
void lower_scores(int64_t rows, int64_t width, float alpha, Matrix a, Matrix b, float* scores);
// y = alpha * scores x + beta * y, and with the scores transposed. Zeros must stand above the diagonal.
void lower_multiply(int64_t rows, int64_t width, float alpha, const float* scores, Matrix x, float beta,
                    float* y, int64_t ldy);
void lower_multiply_transposed(int64_t rows, int64_t width, float alpha, const float* scores, Matrix x,
                               float beta, float* y, int64_t ldy);

// [rows, slots] floats `stride` apart to ld apart, zero padded.
void copy_padded(const float* x, int64_t stride, int64_t rows, int64_t slots, int64_t ld, float* y);

// The gates of one chunk and key/value head, and a walk over the chunk's blocks in token order that carries
// along what the blocks before wrote. Every exponent is a sum of gates from a row to an edge of its block,
// never a difference.
class BlockWalk {
 public:
  static int64_t floats(int64_t ld) { return 5 * kChunk * ld + 2 * kMaxBlocks * ld; }
  BlockWalk(const Dims& d, const Inputs& in, const Chunk& chunk, int64_t h, float* memory);

  // The tables of rows_cpu.h for the whole chunk.
  const float* s() const { return s_; }
  const float* step() const { return step_; }
  const float* from_start() const { return from_start_; }
  const float* block_decay(int64_t block) const { return block_decay_ + block * ld_; }

  void restart() { block_ = 0; }
  bool done() const { return first() >= rows_; }
  void next();  // to the end of this block, which is the start of the next
  int64_t block() const { return block_; }
  int64_t first() const { return block_ * kBlock; }
  int64_t count() const { return count(block_); }
  int64_t count(int64_t block) const { return std::min(kBlock, rows_ - block * kBlock); }

  // Rows x of this block come in as what the state before the chunk gives them, undecayed; they leave as
  // everything from before the block, decayed to its start.
  void receive(const float* scores, float* x) const;

  // Rows y of this block, already decayed from its start: scores[i, j] = y_i . (what row j wrote) for all
  // earlier blocks' j.
  void weigh(const float* y, float* scores) const;

  // Rows y of `block`, decayed from its start, leave decayed from the start of the chunk.
  void decay_from_chunk_start(int64_t block, float* y) const;

 private:
  int64_t rows_, slots_, ld_;
  int64_t block_ = 0;
  float *s_, *step_, *from_start_, *s_to_end_, *block_decay_;
  float* written_;  // [rows, ld] write strengths of the earlier blocks, decayed to the start of this one
  float* before_;   // [blocks, ld] decay from the start of the chunk to each block; the first is not used
};

}  // namespace gsa::cpu
