// Kernels of short_conv_cpu.cc for one instruction set; included through cpu/simd/foreach_isa.h. A row is the D channels
// of one token; rows[j] is the row under tap j, taps is [W, D].

static void conv_row(const float* const* rows, const float* taps, int64_t W, int64_t D, float* y, bool use_silu) {
  for (int64_t d = 0; d < D; d += kLanes) {
    vf z = {};
    for (int64_t j = 0; j < W; ++j) z += load_upto(taps + j * D, d, D) * load_upto(rows[j], d, D);
    store_upto(y, use_silu ? silu(z) : z, d, D);
  }
}

// dz = dy * silu'(z)
static void conv_row_dz(const float* const* rows, const float* taps, int64_t W, int64_t D, const float* dy, float* dz) {
  for (int64_t d = 0; d < D; d += kLanes) {
    vf z = {};
    for (int64_t j = 0; j < W; ++j) z += load_upto(taps + j * D, d, D) * load_upto(rows[j], d, D);
    store_upto(dz, load_upto(dy, d, D) * silu_derivative(z), d, D);
  }
}

// sums[j, :columns] += dz * rows[j], for a range of channels
static void conv_dtaps(const float* const* rows, const float* dz, int64_t W, int64_t first, int64_t columns,
                       double* sums) {
  for (int64_t j = 0; j < W; ++j)
    for (int64_t d = 0; d < columns; ++d)
      sums[j * columns + d] += static_cast<double>(dz[first + d] * rows[j][first + d]);
}

// dx = sum over j of taps[j] * dz_rows[j], where a NULL row counts as zeros
static void conv_row_dx(const float* const* dz_rows, const float* taps, int64_t W, int64_t D, float* dx) {
  for (int64_t d = 0; d < D; d += kLanes) {
    vf sum = {};
    for (int64_t j = 0; j < W; ++j)
      if (dz_rows[j]) sum += load_upto(taps + j * D, d, D) * load_upto(dz_rows[j], d, D);
    store_upto(dx, sum, d, D);
  }
}
