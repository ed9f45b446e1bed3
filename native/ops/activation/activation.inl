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
  for (int64_t i = 0; i < n; i += kLanes) {
    const vf g = load_upto(dy, i, n), a = load_upto(gate, i, n), b = load_upto(up, i, n);
    store_upto(dgate, g * b * silu_derivative(a), i, n);
    store_upto(dup, g * silu(a), i, n);
  }
}
