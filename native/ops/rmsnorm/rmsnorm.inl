// Kernels of rmsnorm_cpu.cc for one instruction set; included through cpu/simd/foreach_isa.h.

// Vectors whose squares are summed in single precision before the sum goes on in double: a long row's sum
// would drown its last addends.
constexpr int64_t kSquaresBlock = 64 * kLanes;

// One row: h (written when wanted), sum of squares of the activated values, y. Returns rstd.
template <bool kSilu>
static float rmsnorm_row(const float* x, const float* residual, const float* weight, float* y, float* h_out,
                         int64_t D, float eps) {
  double squares = 0;
  for (int64_t first = 0; first < D; first += kSquaresBlock) {
    vf sum = {};
    for_lanes(D - first < kSquaresBlock ? D - first : kSquaresBlock, [&](int64_t i, auto lanes) {
      const int64_t d = first + i;
      vf h = lanes.load(x + d);
      if (residual) h += lanes.load(residual + d);
      if (h_out) lanes.store(h_out + d, h);
      const vf a = kSilu ? silu(h) : h;
      if (kSilu || residual) lanes.store(y + d, a);
      sum += a * a;
    });
    squares += hsum(sum);
  }
  const float rstd = static_cast<float>(1.0 / __builtin_sqrt(squares / static_cast<double>(D) + eps));
  const float* a = kSilu || residual ? y : x;
  if (weight)
    map(a, weight, y, D, [=](vf v, vf w) { return v * rstd * w; });
  else
    map(a, y, D, [=](vf v) { return v * rstd; });
  return rstd;
}

// With u = dy * weight and n = a * rstd: dx = rstd (u - n mean(u n)) act'(h) + dh; dweight += dy n.
template <bool kSilu>
static void rmsnorm_row_bwd(const float* dy, const float* dh, const float* h, const float* weight, float rstd,
                            float* dx, float* dweight, int64_t D) {
  vf sum = {};
  for_lanes(D, [&](int64_t d, auto lanes) {
    const vf hd = lanes.load(h + d);
    const vf gn = lanes.load(dy + d) * ((kSilu ? silu(hd) : hd) * rstd);
    if (dweight) lanes.store(dweight + d, lanes.load(dweight + d) + gn);
    sum += weight ? gn * lanes.load(weight + d) : gn;
  });
  const float mean = hsum(sum) / static_cast<float>(D);
  for_lanes(D, [&](int64_t d, auto lanes) {
    const vf hd = lanes.load(h + d);
    vf derivative = splat(1.0f);
    const vf n = (kSilu ? silu_and_derivative(hd, derivative) : hd) * rstd;
    vf u = lanes.load(dy + d);
    if (weight) u *= lanes.load(weight + d);
    vf da = (u - n * mean) * rstd;
    if (kSilu) da *= derivative;
    if (dh) da += lanes.load(dh + d);
    lanes.store(dx + d, da);
  });
}
