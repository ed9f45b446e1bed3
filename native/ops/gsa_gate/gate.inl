// Kernels of gsa_gate_cpu.cc for one instruction set; included through cpu/simd/foreach_isa.h.

static void gate_fwd_range(const float* f, float* g, float* s, int64_t n, float inverse_normalizer) {
  map(f, g, n, [=](vf x) { return log_sigmoid(x) * inverse_normalizer; });
  // expm1: where almost nothing is forgotten, 1 - exp(g) would keep only the last bits of s.
  map(g, s, n, [](vf x) { return vf{} - expm1(x); });
}

// dg / df = sigmoid(-f) / normalizer and ds / dg = -exp(g).
static void gate_bwd_range(const float* dg, const float* ds, const float* f, float* df, int64_t n,
                           float inverse_normalizer) {
  const auto gradient = [=](vf to_g, vf to_s, vf x) {
    const vf kept = exp(log_sigmoid(x) * inverse_normalizer);
    return (to_g - to_s * kept) * sigmoid(vf{} - x) * inverse_normalizer;
  };
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(df + i, gradient(load(dg + i), load(ds + i), load(f + i)));
  if (i < n) {
    const int64_t rest = n - i;
    store_partial(df + i,
                  gradient(load_partial(dg + i, rest), load_partial(ds + i, rest), load_partial(f + i, rest)),
                  rest);
  }
}
