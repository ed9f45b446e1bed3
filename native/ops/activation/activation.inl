// Kernels of activation_cpu.cc for one instruction set; included through cpu/simd/foreach_isa.h.

static void silu_fwd_range(const float* x, float* y, int64_t n) {
  map(x, y, n, [](vf v) { return silu(v); });
}

static void silu_bwd_range(const float* dy, const float* x, float* dx, int64_t n) {
  map(dy, x, dx, n, [](vf g, vf v) { return g * silu_derivative(v); });
}

static void swiglu_fwd_range(const float* gate, const float* up, float* y, int64_t n) {
  map(gate, up, y, n, [](vf a, vf b) { return silu(a) * b; });
}

static void swiglu_bwd_range(const float* dy, const float* gate, const float* up, float* dgate, float* dup,
                             int64_t n) {
  for_lanes(n, [&](int64_t i, auto lanes) {
    const vf g = lanes.load(dy + i), a = lanes.load(gate + i), b = lanes.load(up + i);
    vf derivative;
    const vf y = silu_and_derivative(a, derivative);
    lanes.store(dgate + i, g * b * derivative);
    lanes.store(dup + i, g * y);
  });
}
