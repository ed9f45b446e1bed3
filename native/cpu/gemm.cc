#include "gemm.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "blas.h"
#include "gemm_kernels.h"
#include "parallel.h"
#include "scratch.h"

#ifdef __clang__
#define GSA_SHUFFLE4(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
typedef int32_t gsa_shuffle_index __attribute__((vector_size(16)));
#define GSA_SHUFFLE4(a, b, i, j, k, l) __builtin_shuffle(a, b, gsa_shuffle_index{i, j, k, l})
#endif

#define GSA_SIMD_FILE "../gemm_kernels.inl"
#include "simd/foreach_isa.h"

namespace gsa::cpu {
namespace {

// Depth of one pass over k. Fixed: it alone decides the order in which an element of C is summed, so no
// result depends on the thread count or on how the rest is blocked.
constexpr int64_t kKc = 256;
constexpr int64_t kTileRows =
    168;  // a multiple of every MR: A's part of a tile fits in the second-level cache
constexpr int64_t kTileColumns = 256;
constexpr int64_t kPassRows = 16 * kTileRows;  // packed at once by all threads together
constexpr int64_t kPassColumns = 16 * kTileColumns;
constexpr double kSerialBelow = 64.0 * 64 * 64;  // multiply-adds that are not worth a second thread

struct Kernels {
  int64_t mr, nr;
  void (*pack_a)(const float*, int64_t, bool, int64_t, int64_t, float*);
  void (*pack_b)(const float*, int64_t, bool, int64_t, int64_t, float*);
  void (*tile)(const GemmTile&);
};

#define GSA_GEMM_KERNELS(ns) \
  Kernels { ns::kMr, ns::kNr, ns::pack_a, ns::pack_b, ns::gemm_tile }

const Kernels& kernels() {
  static const Kernels chosen = [] {
#if defined(__x86_64__) || defined(__i386__)
    if (isa() == Isa::avx512) return GSA_GEMM_KERNELS(avx512);
    if (isa() == Isa::avx2) return GSA_GEMM_KERNELS(avx2);
#endif
    return GSA_GEMM_KERNELS(generic);
  }();
  return chosen;
}

int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

// C = beta C, without reading C when beta is 0.
void scale_output(const Gemm& g) {
  for (int64_t i = 0; i < g.m; ++i)
    for (int64_t j = 0; j < g.n; ++j)
      g.c[i * g.ldc + j] = g.beta == 0.0f ? 0.0f : g.beta * g.c[i * g.ldc + j];
}

const float* at_a(const Gemm& g, int64_t i, int64_t p) {
  return g.a + (g.trans_a ? p * g.lda + i : i * g.lda + p);
}
const float* at_b(const Gemm& g, int64_t p, int64_t j) {
  return g.b + (g.trans_b ? j * g.ldb + p : p * g.ldb + j);
}

}  // namespace

void sgemm_serial(const Gemm& g) {
  if (g.m <= 0 || g.n <= 0) return;
  if (g.k <= 0 || g.alpha == 0.0f) return scale_output(g);
  if (is_thin(g)) return sgemm_thin(g, false);
  const Kernels& kern = kernels();
  GemmTile t = {};
  t.alpha = g.alpha;
  t.ldc = g.ldc;
  t.b_row = t.b_panel = kern.nr;
  t.b_packed = true;
  float* b_panel = scratch<0>(kKc * kern.nr);
  for (int64_t p = 0; p < g.k; p += kKc) {
    t.k = std::min(kKc, g.k - p);
    t.beta = p == 0 ? g.beta : 1.0f;
    for (int64_t i = 0; i < g.m; i += kTileRows) {
      t.m = std::min(kTileRows, g.m - i);
      float* packed = scratch<1>(kTileRows * kKc);
      kern.pack_a(at_a(g, i, p), g.lda, g.trans_a, t.m, t.k, packed);
      t.a = packed;
      t.a_packed = true;
      t.a_panel = kern.mr * t.k;
      for (int64_t j = 0; j < g.n; j += kern.nr) {
        t.n = std::min(kern.nr, g.n - j);
        kern.pack_b(at_b(g, p, j), g.ldb, g.trans_b, t.n, t.k, b_panel);
        t.b = b_panel;
        t.c = g.c + i * g.ldc + j;
        kern.tile(t);
      }
    }
  }
}

namespace {

// All threads pack a slice of A and of B, then share the tiles of C.
void sgemm_parallel(const Gemm& g) {
  const Kernels& kern = kernels();
  const int64_t pass_rows = std::min(round_up(g.m, kern.mr), kPassRows);
  const int64_t pass_columns = std::min(round_up(g.n, kern.nr), kPassColumns);
  float* a_packed = scratch<0>(pass_rows * kKc);
  float* b_packed = scratch<1>(pass_columns * kKc);
  GemmTile pass = {};
  pass.a_packed = pass.b_packed = true;
  pass.alpha = g.alpha;
  pass.ldc = g.ldc;
  for (int64_t j0 = 0; j0 < g.n; j0 += kPassColumns) {
    const int64_t n = std::min(kPassColumns, g.n - j0);
    for (int64_t p = 0; p < g.k; p += kKc) {
      const int64_t k = std::min(kKc, g.k - p);
      pass.k = k;
      pass.a_panel = kern.mr * k;
      pass.b_panel = kern.nr * k;
      pass.beta = p == 0 ? g.beta : 1.0f;
      parallel_for((n + kern.nr - 1) / kern.nr, 8, [&](int64_t begin, int64_t end) {
        const int64_t j = begin * kern.nr, columns = std::min(end * kern.nr, n) - j;
        kern.pack_b(at_b(g, p, j0 + j), g.ldb, g.trans_b, columns, k, b_packed + j * k);
      });
      for (int64_t i0 = 0; i0 < g.m; i0 += kPassRows) {
        const int64_t m = std::min(kPassRows, g.m - i0);
        parallel_for((m + kern.mr - 1) / kern.mr, 8, [&](int64_t begin, int64_t end) {
          const int64_t i = begin * kern.mr, rows = std::min(end * kern.mr, m) - i;
          kern.pack_a(at_a(g, i0 + i, p), g.lda, g.trans_a, rows, k, a_packed + i * k);
        });
        const int64_t tiles_down = (m + kTileRows - 1) / kTileRows;
        const int64_t tiles_across = (n + kTileColumns - 1) / kTileColumns;
        parallel_for(tiles_down * tiles_across, 1, [&](int64_t begin, int64_t end) {
          for (int64_t tile = begin; tile < end; ++tile) {
            const int64_t i = tile / tiles_across * kTileRows, j = tile % tiles_across * kTileColumns;
            GemmTile t = pass;
            t.m = std::min(kTileRows, m - i);
            t.n = std::min(kTileColumns, n - j);
            t.a = a_packed + i * k;
            t.b = b_packed + j * k;
            t.c = g.c + (i0 + i) * g.ldc + j0 + j;
            kern.tile(t);
          }
        });
      }
    }
  }
}

// Indices of the C interface to BLAS are 32-bit.
bool fits_blas(const Gemm& g) {
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  return std::max({g.m, g.n, g.k, g.lda, g.ldb, g.ldc}) <= kMost;
}

// An edge of a tile for BLAS: a few tiles per side, so that many threads find work, but not so small that
// packing A and B anew for every tile is felt. Depends on the shape alone, and so does the result.
int64_t blas_tile(int64_t extent) { return std::clamp<int64_t>(round_up(extent / 4, 64), 256, 1024); }

// BLAS on one thread for each tile of C. Its own threads would go on spinning after the call, on the cores
// that the next op needs.
void sgemm_blas(const Gemm& g, const Blas& library) {
  const int64_t rows = blas_tile(g.m), columns = blas_tile(g.n);
  const int64_t across = (g.n + columns - 1) / columns;
  parallel_for((g.m + rows - 1) / rows * across, 1, [&](int64_t begin, int64_t end) {
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t i = tile / across * rows, j = tile % across * columns;
      library.sgemm(kCblasRowMajor, g.trans_a ? kCblasTrans : kCblasNoTrans,
                    g.trans_b ? kCblasTrans : kCblasNoTrans, static_cast<int>(std::min(rows, g.m - i)),
                    static_cast<int>(std::min(columns, g.n - j)), static_cast<int>(g.k), g.alpha,
                    at_a(g, i, 0), static_cast<int>(g.lda), at_b(g, 0, j), static_cast<int>(g.ldb), g.beta,
                    g.c + i * g.ldc + j, static_cast<int>(g.ldc));
    }
  });
}

}  // namespace

void sgemm(const Gemm& g) {
  if (g.m <= 0 || g.n <= 0) return;
  if (g.k <= 0 || g.alpha == 0.0f) return scale_output(g);
  if (is_thin(g)) return sgemm_thin(g, true);
  if (static_cast<double>(g.m) * g.n * g.k < kSerialBelow) return sgemm_serial(g);
  const Blas* library = blas();
  if (library && fits_blas(g)) return sgemm_blas(g, *library);
  sgemm_parallel(g);
}

}  // namespace gsa::cpu
