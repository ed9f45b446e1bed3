#include "blocks_cpu.h"

#include <cstring>

#include "../../cpu/gemm.h"

namespace gsa::cpu {
namespace {

// Rows that one product over a triangular matrix takes together: large enough for the matrix kernel, small
// enough to leave out a good part of the zeros.
constexpr int64_t kSpan = 32;

}  // namespace

void copy_padded(const float* x, int64_t stride, int64_t rows, int64_t slots, int64_t ld, float* y) {
  for (int64_t i = 0; i < rows; ++i, x += stride, y += ld) {
    std::memcpy(y, x, static_cast<size_t>(slots) * sizeof(float));
    std::memset(y + slots, 0, static_cast<size_t>(ld - slots) * sizeof(float));
  }
}

void multiply(int64_t m, int64_t n, int64_t k, float alpha, Matrix a, Matrix b, float beta, float* c,
              int64_t ldc) {
  Gemm g;
  g.trans_a = a.transposed;
  g.trans_b = b.transposed;
  g.m = m;
  g.n = n;
  g.k = k;
  g.alpha = alpha;
  g.a = a.data;
  g.lda = a.stride;
  g.b = b.data;
  g.ldb = b.stride;
  g.beta = beta;
  g.c = c;
  g.ldc = ldc;
  sgemm_serial(g);
}

void lower_scores(int64_t rows, int64_t width, float alpha, Matrix a, Matrix b, float* scores) {
  for (int64_t i = 0; i < rows; i += kSpan) {
    const int64_t end = std::min(rows, i + kSpan);
    multiply(end - i, end, width, alpha, {a.data + i * a.stride, a.stride}, transpose(b), 0.0f,
             scores + i * kChunk, kChunk);
  }
}

void lower_multiply(int64_t rows, int64_t width, float alpha, const float* scores, Matrix x, float beta,
                    float* y, int64_t ldy) {
  for (int64_t i = 0; i < rows; i += kSpan) {
    const int64_t end = std::min(rows, i + kSpan);
    multiply(end - i, width, end, alpha, {scores + i * kChunk, kChunk}, x, beta, y + i * ldy, ldy);
  }
}

void lower_multiply_transposed(int64_t rows, int64_t width, float alpha, const float* scores, Matrix x,
                               float beta, float* y, int64_t ldy) {
  for (int64_t j = 0; j < rows; j += kSpan) {
    const int64_t n = std::min(rows - j, kSpan);
    multiply(n, width, rows - j, alpha, {scores + j * kChunk + j, kChunk, true},
             {x.data + j * x.stride, x.stride}, beta, y + j * ldy, ldy);
  }
}

BlockWalk::BlockWalk(const Dims& d, const Inputs& in, const Chunk& chunk, int64_t h, float* memory)
    : rows_(chunk.rows), slots_(d.M), ld_(padded_slots(d.M)) {
  const int64_t n = kChunk * ld_, at = (chunk.row * d.H + h) * d.M, stride = d.H * d.M;
  s_ = memory;
  step_ = s_ + n;
  from_start_ = step_ + n;
  s_to_end_ = from_start_ + n;
  written_ = s_to_end_ + n;
  block_decay_ = written_ + n;
  before_ = block_decay_ + kMaxBlocks * ld_;
  float* g = written_;  // not in use yet
  copy_padded(in.s + at, stride, rows_, slots_, ld_, s_);
  copy_padded(in.g + at, stride, rows_, slots_, ld_, g);
  row_kernels().block_tables(s_, g, rows_, ld_, step_, from_start_, s_to_end_, block_decay_);
  for (int64_t b = 1; b < block_count(rows_); ++b) {
    std::memcpy(before_ + b * ld_, block_decay(b - 1), static_cast<size_t>(ld_) * sizeof(float));
    if (b > 1) row_kernels().scale_columns(before_ + b * ld_, 1, ld_, before_ + (b - 1) * ld_);
  }
}

void BlockWalk::next() {
  row_kernels().scale_columns(written_, first(), ld_, block_decay(block_));
  const int64_t at = first() * ld_;
  std::memcpy(written_ + at, s_to_end_ + at, static_cast<size_t>(count() * ld_) * sizeof(float));
  ++block_;
}

void BlockWalk::receive(const float* scores, float* x) const {
  if (block_ == 0) return;
  decay_from_chunk_start(block_, x);
  multiply(count(), slots_, first(), 1.0f, {scores, kChunk}, {written_, ld_}, 1.0f, x, ld_);
}

void BlockWalk::weigh(const float* y, float* scores) const {
  if (block_ == 0) return;
  multiply(count(), first(), slots_, 1.0f, {y, ld_}, {written_, ld_, true}, 0.0f, scores, kChunk);
}

void BlockWalk::decay_from_chunk_start(int64_t block, float* y) const {
  if (block > 0) row_kernels().scale_columns(y, count(block), ld_, before_ + block * ld_);
}

}  // namespace gsa::cpu
