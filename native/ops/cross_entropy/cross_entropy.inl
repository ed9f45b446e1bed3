// Kernels of cross_entropy_cpu.cc for one instruction set; included through cpu/simd/foreach_isa.h.

// log(sum of exp(x)). NaN anywhere gives NaN.
static float log_sum_exp(const float* x, int64_t n) {
  vf largest = splat(-kInf);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) largest = vmax(largest, load(x + i));
  float top = hmax(largest);
  for (; i < n; ++i) top = x[i] > top ? x[i] : top;
  if (top == -kInf || top == kInf) top = 0.0f;  // the sum itself is then 0, infinite or NaN, as it should be
  double total = 0;
  vf lanes = {};
  for (i = 0; i + kLanes <= n; i += kLanes) {
    lanes += exp(load(x + i) - top);
    // Emptied now and then: a sum over a large vocabulary would drown its last addends.
    if ((i / kLanes) % 64 == 63) {
      total += hsum(lanes);
      lanes = vf{};
    }
  }
  total += hsum(lanes);
  for (; i < n; ++i) total += exp(x[i] - top);
  return top + log(static_cast<float>(total));
}

// dlogits = factor * (softmax - one at `label`)
static void softmax_gradient(const float* x, float* y, int64_t n, float lse, float factor, int64_t label) {
  map(x, y, n, [=](vf v) { return exp(v - lse) * factor; });
  y[label] -= factor;
}

static void subtract_range(const float* x, float* y, int64_t n, float lse) {
  map(x, y, n, [=](vf v) { return v - lse; });
}
