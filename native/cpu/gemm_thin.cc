#include <algorithm>
#include <cstring>

#include "gemm_kernels.h"
#include "parallel.h"
#include "scratch.h"

#define GSA_SIMD_FILE "../gemm_thin.inl"
#include "simd/foreach_isa.h"

namespace gsa::cpu {
namespace {

constexpr int64_t kElementsPerTask = 32768;  // of B

// op(A) as contiguous rows of k: as it lies, or gathered.
void set_rows(ThinBlock& t, const Gemm& g) {
  if (!g.trans_a) {
    t.x = g.a;
    t.ldx = g.lda;
    return;
  }
  float* rows = scratch<0>(g.m * g.k);
  for (int64_t i = 0; i < g.m; ++i)
    for (int64_t p = 0; p < g.k; ++p) rows[i * g.k + p] = g.a[p * g.lda + i];
  t.x = rows;
  t.ldx = g.k;
}

}  // namespace

bool is_thin(const Gemm& g) { return std::min(g.m, g.n) <= kThinRows; }

void sgemm_thin(const Gemm& given, bool parallel) {
  static const auto kernel = GSA_SIMD_SELECT(thin_block);
  Gemm g = given;
  ThinBlock whole{};
  whole.c_row = g.ldc;
  whole.c_column = 1;
  if (g.m > kThinRows) {  // C^T = op(B)^T op(A)^T has few rows
    std::swap(g.m, g.n);
    std::swap(g.a, g.b);
    std::swap(g.lda, g.ldb);
    std::swap(whole.c_row, whole.c_column);
    const bool trans_a = g.trans_a;
    g.trans_a = !g.trans_b;
    g.trans_b = !trans_a;
  }
  whole.m = g.m;
  whole.k = g.k;
  whole.trans_b = g.trans_b;
  whole.ldb = g.ldb;
  whole.alpha = g.alpha;
  whole.beta = g.beta;
  set_rows(whole, g);
  const int64_t columns =
      g.trans_b ? std::clamp<int64_t>(kElementsPerTask / g.k, 1, kThinColumns) : kThinColumns;
  auto blocks = [&](int64_t begin, int64_t end) {
    for (int64_t j = begin * columns; j < std::min(end * columns, g.n); j += columns) {
      ThinBlock t = whole;
      t.n = std::min(columns, g.n - j);
      t.b = g.b + (g.trans_b ? j * g.ldb : j);
      t.c = g.c + j * whole.c_column;
      kernel(t);
    }
  };
  const int64_t n_blocks = (g.n + columns - 1) / columns;
  if (parallel && g.n * g.k >= 2 * kElementsPerTask)
    parallel_for(n_blocks, 1, blocks);
  else
    blocks(0, n_blocks);
}

}  // namespace gsa::cpu
