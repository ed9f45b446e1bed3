// Kernels of reduce_cpu.cc for one instruction set; included through cpu/simd/foreach_isa.h. Sums run in
// double: single precision would lose a gradient norm's small parts.

template <bool kSquares>
static double sum_block(const float* x, int64_t n) {
  vd sums[4] = {};
  constexpr int64_t kStep = kLanes / 2;
  int64_t i = 0;
  for (; i + 4 * kStep <= n; i += 4 * kStep)
    for (int64_t j = 0; j < 4; ++j) {
      const vd v = load_double(x + i + j * kStep);
      sums[j] += kSquares ? v * v : v;
    }
  double total = hsum((sums[0] + sums[1]) + (sums[2] + sums[3]));
  for (; i < n; ++i) total += kSquares ? static_cast<double>(x[i]) * x[i] : x[i];
  return total;
}

static void column_sum_block(const float* x, int64_t rows, int64_t ld, int64_t columns, double* y) {
  for (int64_t j = 0; j < columns; ++j) y[j] = 0;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t j = 0; j < columns; ++j) y[j] += x[r * ld + j];
}
