// Kernels of gsa_inputs_cpu.cc for one instruction set; included through cpu/simd/foreach_isa.h.

static void silu_part(const float* x, float* y, int64_t n) {
  map(x, y, n, [](vf v) { return silu(v); });
}

static void silu_part_bwd(const float* dy, const float* x, float* dx, int64_t n) {
  map(dy, x, dx, n, [](vf g, vf v) { return g * silu_derivative(v); });
}

static void gate_part(const float* f, float* g, float* s, int64_t n, float inverse_normalizer) {
  map(f, g, n, [=](vf x) { return log_sigmoid(x) * inverse_normalizer; });
  // expm1: where almost nothing is forgotten, 1 - exp(g) would keep only the last bits of s.
  map(g, s, n, [](vf x) { return vf{} - expm1(x); });
}

// dg / df = sigmoid(-f) / normalizer and ds / dg = -exp(g).
static void gate_part_bwd(const float* dg, const float* ds, const float* f, float* df, int64_t n,
                          float inverse_normalizer) {
  for_lanes(n, [&](int64_t i, auto lanes) {
    const vf x = lanes.load(f + i), kept = exp(log_sigmoid(x) * inverse_normalizer);
    lanes.store(df + i,
                (lanes.load(dg + i) - lanes.load(ds + i) * kept) * sigmoid(vf{} - x) * inverse_normalizer);
  });
}
