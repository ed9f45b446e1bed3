// Kernels of optimizer_cpu.cc for one instruction set; included through cpu/simd/foreach_isa.h.

GSA_INLINE vf root(vf x) {
  vf y;
  for (int64_t i = 0; i < kLanes; ++i) y[i] = __builtin_sqrtf(x[i]);
  return y;
}

static void adamw_range(const float* grad, float* param, float* m, float* v, int64_t n, float scale, float beta1,
                        float beta2, float keep, float step_size, float correction2_sqrt, float eps) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const vf g = load_upto(grad, i, n) * scale;
    const vf first = load_upto(m, i, n) * beta1 + g * (1.0f - beta1);
    const vf second = load_upto(v, i, n) * beta2 + g * g * (1.0f - beta2);
    store_upto(m, first, i, n);
    store_upto(v, second, i, n);
    store_upto(param, load_upto(param, i, n) * keep - first * step_size / (root(second) / correction2_sqrt + eps), i, n);
  }
}
