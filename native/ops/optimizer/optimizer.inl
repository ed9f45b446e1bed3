// Kernels of optimizer_cpu.cc for one instruction set; included through cpu/simd/foreach_isa.h.

GSA_INLINE vf root(vf x) {
  vf y;
  for (int64_t i = 0; i < kLanes; ++i) y[i] = __builtin_sqrtf(x[i]);
  return y;
}

static void adamw_range(const float* grad, float* param, float* m, float* v, int64_t n, float scale,
                        const optimizer::AdamWRates& given) {
  const optimizer::AdamWRates r = given;  // a copy cannot alias what is stored
  for (int64_t i = 0; i < n; i += kLanes) {
    const vf g = load_upto(grad, i, n) * scale;
    const vf first = load_upto(m, i, n) * r.beta1 + g * r.one_minus_beta1;
    const vf second = load_upto(v, i, n) * r.beta2 + g * g * r.one_minus_beta2;
    store_upto(m, first, i, n);
    store_upto(v, second, i, n);
    const vf step = first * r.step_size / (root(second) / r.correction2_sqrt + r.eps);
    store_upto(param, load_upto(param, i, n) * r.keep - step, i, n);
  }
}
