// Kernels of optimizer_cpu.cc for one instruction set; included through cpu/simd/foreach_isa.h.

GSA_INLINE vf root(vf x) {
  vf y;
  for (int64_t i = 0; i < kLanes; ++i) y[i] = __builtin_sqrtf(x[i]);
  return y;
}

// The masters of n bfloat16 weights, and back; float32 between them.
static void join_range(const uint16_t* weights, const int16_t* remainders, float* v, float* masters,
                       int64_t n) {
  for (int64_t i = 0; i < n; ++i) masters[i] = optimizer::join_master(weights[i], remainders[i], v[i]);
}

static void split_range(const float* masters, uint16_t* weights, int16_t* remainders, float* v, int64_t n) {
  for (int64_t i = 0; i < n; ++i) optimizer::split_master(masters[i], weights[i], remainders[i], v[i]);
}

static void adamw_range(const float* grad, float* param, float* m, float* v, int64_t n, float scale,
                        const optimizer::AdamWRates& given) {
  const optimizer::AdamWRates r = given;  // a copy cannot alias what is stored
  for_lanes(n, [&](int64_t i, auto lanes) {
    const vf g = lanes.load(grad + i) * scale;
    const vf first = lanes.load(m + i) * r.beta1 + g * r.one_minus_beta1;
    const vf second = lanes.load(v + i) * r.beta2 + g * g * r.one_minus_beta2;
    lanes.store(m + i, first);
    lanes.store(v + i, second);
    const vf step = first * r.step_size / (root(second) / r.correction2_sqrt + r.eps);
    lanes.store(param + i, lanes.load(param + i) * r.keep - step);
  });
}
