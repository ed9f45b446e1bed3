// Kernels of rmsnorm_cpu.cc for one instruction set; included through cpu/simd/foreach_isa.h.

// One row: h (written when wanted), sum of squares of the activated values, y. Returns rstd.
static float rmsnorm_row(const float* x, const float* residual, const float* weight, float* y, float* h_out, int64_t D,
                         float eps, bool use_silu) {
  double squares = 0;
  vf lanes = {};
  for (int64_t d = 0; d < D; d += kLanes) {
    vf h = load_upto(x, d, D);
    if (residual) h += load_upto(residual, d, D);
    if (h_out) store_upto(h_out, h, d, D);
    const vf a = use_silu ? silu(h) : h;
    store_upto(y, a, d, D);
    lanes += a * a;
    // Emptied now and then: a long row's sum would drown its last addends.
    if ((d / kLanes) % 64 == 63) {
      squares += hsum(lanes);
      lanes = vf{};
    }
  }
  squares += hsum(lanes);
  const float rstd = static_cast<float>(1.0 / __builtin_sqrt(squares / static_cast<double>(D) + eps));
  for (int64_t d = 0; d < D; d += kLanes) {
    vf value = load_upto(y, d, D) * rstd;
    if (weight) value *= load_upto(weight, d, D);
    store_upto(y, value, d, D);
  }
  return rstd;
}

// With u = dy * weight and n = a * rstd: dx = rstd (u - n mean(u n)) act'(h) + dh; dweight += dy n.
static void rmsnorm_row_bwd(const float* dy, const float* dh, const float* h, const float* weight, float rstd,
                            float* dx, float* dweight, int64_t D, bool use_silu) {
  vf lanes = {};
  for (int64_t d = 0; d < D; d += kLanes) {
    const vf hd = load_upto(h, d, D);
    const vf n = (use_silu ? silu(hd) : hd) * rstd;
    const vf g = load_upto(dy, d, D);
    if (dweight) store_upto(dweight, load_upto(dweight, d, D) + g * n, d, D);
    lanes += (weight ? g * load_upto(weight, d, D) : g) * n;
  }
  const float mean = hsum(lanes) / static_cast<float>(D);
  for (int64_t d = 0; d < D; d += kLanes) {
    const vf hd = load_upto(h, d, D);
    const vf n = (use_silu ? silu(hd) : hd) * rstd;
    vf u = load_upto(dy, d, D);
    if (weight) u *= load_upto(weight, d, D);
    vf da = (u - n * mean) * rstd;
    if (use_silu) da *= silu_derivative(hd);
    if (dh) da += load_upto(dh, d, D);
    store_upto(dx, da, d, D);
  }
}
