// What gemm.cc hands to its kernels.
#pragma once

#include <cstdint>

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

}  // namespace gsa::cpu
