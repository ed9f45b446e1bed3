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

// C^T = op(B)^T op(A)^T; the caller swaps the strides of C.
Gemm transposed(const Gemm& g) {
  Gemm t = g;
  std::swap(t.m, t.n);
  std::swap(t.a, t.b);
  std::swap(t.lda, t.ldb);
  t.trans_a = !g.trans_b;
  t.trans_b = !g.trans_a;
  return t;
}

// Rows of B that are dotted with rows of A stay in the second-level cache while several calls use them, and
// packing them would be a transposition; short ones are not worth the sums across lanes.
bool has_few_rows(const Gemm& g) { return g.m <= (g.trans_b && g.k >= 256 ? 2 * kThinRows : kThinRows); }

}  // namespace

bool is_thin(const Gemm& g) { return has_few_rows(g) || has_few_rows(transposed(g)); }

void sgemm_thin(const Gemm& given, bool parallel) {
  static const auto kernel = GSA_SIMD_SELECT(thin_block);
  const bool swaps = !has_few_rows(given);
  const Gemm g = swaps ? transposed(given) : given;
  ThinBlock whole{};
  whole.c_row = swaps ? 1 : g.ldc;
  whole.c_column = swaps ? g.ldc : 1;
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
      for (int64_t i = 0; i < g.m; i += kThinRows) {
        t.m = std::min(kThinRows, g.m - i);
        t.x = whole.x + i * whole.ldx;
        t.c = g.c + i * whole.c_row + j * whole.c_column;
        kernel(t);
      }
    }
  };
  const int64_t n_blocks = (g.n + columns - 1) / columns;
  if (parallel && g.n * g.k >= 2 * kElementsPerTask)
    parallel_for(n_blocks, 1, blocks);
  else
    blocks(0, n_blocks);
}

}  // namespace gsa::cpu
