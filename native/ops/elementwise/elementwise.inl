// Kernels of elementwise_cpu.cc for one instruction set; included through cpu/simd/foreach_isa.h.

static void add_range(const float* a, const float* b, float* y, int64_t n, float alpha, float beta) {
  map(a, b, y, n, [=](vf u, vf v) { return u * alpha + v * beta; });
}

static void scale_range(const float* a, float* y, int64_t n, float alpha) {
  map(a, y, n, [=](vf u) { return u * alpha; });
}
