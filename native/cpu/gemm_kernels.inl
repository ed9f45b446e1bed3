// The inner kernels of gemm.cc, compiled once per instruction set (simd/foreach_isa.h). Names follow the BLIS
// papers: a micro-tile of kMr rows and kNr columns of C stays in registers while k runs.

#if GSA_SIMD_BYTES == 64
constexpr int kMr = 14;  // 28 of 32 registers hold C
#else
constexpr int kMr = 6;  // 12 of 16 registers hold C
#endif
constexpr int64_t kNr = 2 * kLanes;

// out[p * stride + r] = in[r * ld + p]: `rows` strided rows become the columns of a panel.
GSA_INLINE void transpose_into(const float* in, int64_t ld, int64_t rows, int64_t k, float* out,
                               int64_t stride) {
  typedef float v4 __attribute__((vector_size(16)));
  typedef float v4_unaligned __attribute__((vector_size(16), aligned(4), may_alias));
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) {
    const float* x = in + r * ld;
    int64_t p = 0;
    for (; p + 4 <= k; p += 4) {
      const v4 a = *reinterpret_cast<const v4_unaligned*>(x + p);
      const v4 b = *reinterpret_cast<const v4_unaligned*>(x + ld + p);
      const v4 c = *reinterpret_cast<const v4_unaligned*>(x + 2 * ld + p);
      const v4 d = *reinterpret_cast<const v4_unaligned*>(x + 3 * ld + p);
      const v4 ab_lo = GSA_SHUFFLE4(a, b, 0, 4, 1, 5), ab_hi = GSA_SHUFFLE4(a, b, 2, 6, 3, 7);
      const v4 cd_lo = GSA_SHUFFLE4(c, d, 0, 4, 1, 5), cd_hi = GSA_SHUFFLE4(c, d, 2, 6, 3, 7);
      float* y = out + p * stride + r;
      *reinterpret_cast<v4_unaligned*>(y) = GSA_SHUFFLE4(ab_lo, cd_lo, 0, 1, 4, 5);
      *reinterpret_cast<v4_unaligned*>(y + stride) = GSA_SHUFFLE4(ab_lo, cd_lo, 2, 3, 6, 7);
      *reinterpret_cast<v4_unaligned*>(y + 2 * stride) = GSA_SHUFFLE4(ab_hi, cd_hi, 0, 1, 4, 5);
      *reinterpret_cast<v4_unaligned*>(y + 3 * stride) = GSA_SHUFFLE4(ab_hi, cd_hi, 2, 3, 6, 7);
    }
    for (; p < k; ++p)
      for (int64_t i = 0; i < 4; ++i) out[p * stride + r + i] = x[i * ld + p];
  }
  for (; r < rows; ++r)
    for (int64_t p = 0; p < k; ++p) out[p * stride + r] = in[r * ld + p];
}

// Rows that already run along the panels are cut into panels of kWidth columns: out[i * k * kWidth + p *
// kWidth + j] = in[p * ld + i * kWidth + j], zeros past `columns`. Several panels in one sweep over p, so
// that `in` is read by lines.
template <int64_t kWidth>
GSA_INLINE void copy_into(const float* in, int64_t ld, int64_t columns, int64_t k, float* out) {
  constexpr int64_t kTogether = 8 * kWidth;
  int64_t first = 0;
  for (; first + kWidth <= columns; first += kTogether) {
    const int64_t end = (columns - first < kTogether ? columns - first : kTogether) / kWidth * kWidth;
    for (int64_t p = 0; p < k; ++p)
      for (int64_t i = 0; i < end; i += kWidth)
        std::memcpy(out + (first + i) * k + p * kWidth, in + p * ld + first + i, kWidth * sizeof(float));
  }
  const int64_t last = columns / kWidth * kWidth;
  for (int64_t p = 0; last < columns && p < k; ++p)
    for (int64_t i = 0; i < kWidth; ++i)
      out[last * k + p * kWidth + i] = last + i < columns ? in[p * ld + last + i] : 0.0f;
}

// Panels of kMr rows of op(A), and of kNr columns of op(B), k-major. `transposed` says that the stored matrix
// is the transpose of the factor.
static void pack_a(const float* a, int64_t lda, bool transposed, int64_t rows, int64_t k, float* out) {
  if (transposed) return copy_into<kMr>(a, lda, rows, k, out);
  for (int64_t i = 0; i < rows; i += kMr)
    transpose_into(a + i * lda, lda, rows - i < kMr ? rows - i : kMr, k, out + i * k, kMr);
}
static void pack_b(const float* b, int64_t ldb, bool transposed, int64_t columns, int64_t k, float* out) {
  if (!transposed) return copy_into<kNr>(b, ldb, columns, k, out);
  for (int64_t j = 0; j < columns; j += kNr) {
    const int64_t width = columns - j < kNr ? columns - j : kNr;
    transpose_into(b + j * ldb, ldb, width, k, out + j * k, kNr);
    for (int64_t p = 0; width < kNr && p < k; ++p)
      std::memset(out + j * k + p * kNr + width, 0, static_cast<size_t>(kNr - width) * sizeof(float));
  }
}

// C[R, kNr] = alpha A B + beta C with A(r, p) = a[r * a_row + p * a_column], B(p, j) = b[p * b_row + j].
template <int R>
GSA_INLINE void micro_tile(int64_t k, const float* a, int64_t a_row, int64_t a_column, const float* b,
                           int64_t b_row, float alpha, float beta, float* c, int64_t ldc) {
  vf acc[R][2] = {};
  for (int r = 0; r < R; ++r) {
    __builtin_prefetch(c + r * ldc);
    __builtin_prefetch(c + r * ldc + kNr - 1);
  }
#pragma GCC unroll 4
  for (int64_t p = 0; p < k; ++p) {
    const vf b0 = load(b), b1 = load(b + kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const float x = a[r * a_row];
      acc[r][0] += b0 * x;
      acc[r][1] += b1 * x;
    }
    a += a_column;
    b += b_row;
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    float* row = c + r * ldc;
    vf y0 = acc[r][0] * alpha, y1 = acc[r][1] * alpha;
    if (beta != 0.0f) {
      y0 += load(row) * beta;
      y1 += load(row + kLanes) * beta;
    }
    store(row, y0);
    store(row + kLanes, y1);
  }
}

// `rows` <= R of them. The strides of a packed panel are constants, which is worth several registers.
template <int R>
static void micro_rows(int64_t rows, const GemmTile& t, const float* a, const float* b, float* c,
                       int64_t ldc) {
  if constexpr (R > 1) {
    if (rows < R) return micro_rows<R - 1>(rows, t, a, b, c, ldc);
  }
  if (t.a_packed && t.b_packed)
    micro_tile<R>(t.k, a, 1, kMr, b, kNr, t.alpha, t.beta, c, ldc);
  else
    micro_tile<R>(t.k, a, t.a_row, t.a_column, b, t.b_row, t.alpha, t.beta, c, ldc);
}

// Columns past the matrix' edge are computed (B is padded with zeros) and dropped.
static void micro_edge(int64_t rows, int64_t columns, const GemmTile& t, const float* a, const float* b,
                       float* c) {
  float tile[kMr * kNr];
  for (int64_t r = 0; r < rows && t.beta != 0.0f; ++r)
    for (int64_t j = 0; j < kNr; ++j) tile[r * kNr + j] = j < columns ? c[r * t.ldc + j] : 0.0f;
  micro_rows<kMr>(rows, t, a, b, tile, kNr);
  for (int64_t r = 0; r < rows; ++r)
    std::memcpy(c + r * t.ldc, tile + r * kNr, static_cast<size_t>(columns) * sizeof(float));
}

static void gemm_tile(const GemmTile& t) {
  for (int64_t j = 0; j < t.n; j += kNr) {
    const float* b = t.b + j / kNr * t.b_panel;
    const int64_t columns = t.n - j < kNr ? t.n - j : kNr;
    for (int64_t i = 0; i < t.m; i += kMr) {
      const float* a = t.a + i / kMr * t.a_panel;
      const int64_t rows = t.m - i < kMr ? t.m - i : kMr;
      float* c = t.c + i * t.ldc + j;
      if (columns == kNr)
        micro_rows<kMr>(rows, t, a, b, c, t.ldc);
      else
        micro_edge(rows, columns, t, a, b, c);
    }
  }
}
