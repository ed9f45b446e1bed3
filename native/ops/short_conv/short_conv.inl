// Kernels of short_conv_cpu.cc for one instruction set; included through cpu/simd/foreach_isa.h. A row is the
// D channels of one token; rows[j] is the row under tap j, taps is [W, D].

template <typename Lanes>
GSA_INLINE vf conv_at(const float* const* rows, const float* taps, int64_t W, int64_t D, int64_t d,
                      Lanes lanes) {
  vf z = {};
  for (int64_t j = 0; j < W; ++j) z += lanes.load(taps + j * D + d) * lanes.load(rows[j] + d);
  return z;
}

static void conv_row(const float* const* rows, const float* taps, int64_t W, int64_t D, float* y,
                     bool use_silu) {
  if (use_silu)
    for_lanes(D,
              [&](int64_t d, auto lanes) { lanes.store(y + d, silu(conv_at(rows, taps, W, D, d, lanes))); });
  else
    for_lanes(D, [&](int64_t d, auto lanes) { lanes.store(y + d, conv_at(rows, taps, W, D, d, lanes)); });
}

// dz = dy * silu'(z)
static void conv_row_dz(const float* const* rows, const float* taps, int64_t W, int64_t D, const float* dy,
                        float* dz) {
  for_lanes(D, [&](int64_t d, auto lanes) {
    lanes.store(dz + d, lanes.load(dy + d) * silu_derivative(conv_at(rows, taps, W, D, d, lanes)));
  });
}

// dx = sum over j of taps[j] * dz_rows[j], where a NULL row counts as zeros
static void conv_row_dx(const float* const* dz_rows, const float* taps, int64_t W, int64_t D, float* dx) {
  for_lanes(D, [&](int64_t d, auto lanes) {
    vf sum = {};
    for (int64_t j = 0; j < W; ++j)
      if (dz_rows[j]) sum += lanes.load(taps + j * D + d) * lanes.load(dz_rows[j] + d);
    lanes.store(dx + d, sum);
  });
}

// sums[j, d] += dz * rows[j], both [W, D]; sums of a block of rows only, so single precision holds them.
static void conv_row_dtaps(const float* const* rows, const float* dz, int64_t W, int64_t D, float* sums) {
  for_lanes(D, [&](int64_t d, auto lanes) {
    const vf g = lanes.load(dz + d);
    for (int64_t j = 0; j < W; ++j) {
      float* sum = sums + j * D + d;
      lanes.store(sum, lanes.load(sum) + g * lanes.load(rows[j] + d));
    }
  });
}
