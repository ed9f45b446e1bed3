// What gemm.cc hands to its kernels.
#pragma once

#include <cstdint>

#include "gemm.h"

namespace gsa::cpu {

// One tile of C. A lies in panels of MR rows, B in panels of NR columns (panel i starts at a + i * a_panel);
// inside a panel, A(r, p) = a[r * a_row + p * a_column] and B(p, j) = b[p * b_row + j].
struct GemmTile {
  int64_t m, n, k;
  const float* a;
  int64_t a_panel, a_row, a_column;
  bool a_packed;  // a_row = 1, a_column = MR
  const float* b;
  int64_t b_panel, b_row;
  bool b_packed;  // b_row = NR, columns past the edge are zero
  float alpha, beta;
  float* c;
  int64_t ldc;
};

constexpr int64_t kThinRows = 4;  // of one kernel call
constexpr int64_t kThinColumns = 512;

// Some columns of a product with m <= kThinRows rows: row i of op(A) is x + i * ldx; element (i, j) of C lies
// at c + i * c_row + j * c_column.
struct ThinBlock {
  int64_t m, n, k;
  const float* x;
  int64_t ldx;
  bool trans_b;
  const float* b;
  int64_t ldb;
  float alpha, beta;
  float* c;
  int64_t c_row, c_column;
};

// m or n is so small that sgemm_thin is the one to call (k > 0).
bool is_thin(const Gemm& g);
void sgemm_thin(const Gemm& g, bool parallel);

}  // namespace gsa::cpu
