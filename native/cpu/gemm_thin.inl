// Products with at most four rows (gemm_thin.cc), compiled once per instruction set. They are bound by
// reading B once.

// out[i * out_row + j * out_column] = dot(x_i, row j of b) for j < n: B is stored transposed.
template <int M>
static void thin_dots(const ThinBlock& t) {
  for (int64_t j = 0; j < t.n; ++j) {
    const float* b = t.b + j * t.ldb;
    vf acc[M][4] = {};
    int64_t p = 0;
    for (; p + 4 * kLanes <= t.k; p += 4 * kLanes) {
#pragma GCC unroll 4
      for (int u = 0; u < 4; ++u) {
        const vf value = load(b + p + u * kLanes);
#pragma GCC unroll 4
        for (int i = 0; i < M; ++i) acc[i][u] += value * load(t.x + i * t.ldx + p + u * kLanes);
      }
    }
    for_lanes(t.k - p, [&](int64_t q, auto lanes) {
      const vf value = lanes.load(b + p + q);
      for (int i = 0; i < M; ++i) acc[i][0] += value * lanes.load(t.x + i * t.ldx + p + q);
    });
    for (int i = 0; i < M; ++i) {
      float* out = t.c + i * t.c_row + j * t.c_column;
      const float sum = hsum((acc[i][0] + acc[i][1]) + (acc[i][2] + acc[i][3])) * t.alpha;
      *out = t.beta == 0.0f ? sum : sum + t.beta * *out;
    }
  }
}

// The same for B as stored, n <= kThinColumns: four rows of B at a time are added to sums that stay in the
// first cache.
template <int M>
static void thin_rows(const ThinBlock& t) {
  float sums[M][kThinColumns] = {};
  int64_t p = 0;
  for (; p + 4 <= t.k; p += 4) {
    const float* b = t.b + p * t.ldb;
    for_lanes(t.n, [&](int64_t j, auto lanes) {
      const vf b0 = lanes.load(b + j), b1 = lanes.load(b + t.ldb + j);
      const vf b2 = lanes.load(b + 2 * t.ldb + j), b3 = lanes.load(b + 3 * t.ldb + j);
#pragma GCC unroll 4
      for (int i = 0; i < M; ++i) {
        const float* x = t.x + i * t.ldx + p;
        store(sums[i] + j, load(sums[i] + j) + b0 * x[0] + b1 * x[1] + b2 * x[2] + b3 * x[3]);
      }
    });
  }
  for (; p < t.k; ++p)
    for_lanes(t.n, [&](int64_t j, auto lanes) {
      const vf value = lanes.load(t.b + p * t.ldb + j);
      for (int i = 0; i < M; ++i) store(sums[i] + j, load(sums[i] + j) + value * t.x[i * t.ldx + p]);
    });
  for (int i = 0; i < M; ++i) {
    for (int64_t j = 0; j < t.n; ++j) {
      float* out = t.c + i * t.c_row + j * t.c_column;
      *out = t.beta == 0.0f ? sums[i][j] * t.alpha : sums[i][j] * t.alpha + t.beta * *out;
    }
  }
}

static void thin_block(const ThinBlock& t) {
  switch (t.m) {
    case 1:
      return t.trans_b ? thin_dots<1>(t) : thin_rows<1>(t);
    case 2:
      return t.trans_b ? thin_dots<2>(t) : thin_rows<2>(t);
    case 3:
      return t.trans_b ? thin_dots<3>(t) : thin_rows<3>(t);
    default:
      return t.trans_b ? thin_dots<4>(t) : thin_rows<4>(t);
  }
}
