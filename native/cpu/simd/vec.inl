// Vectors of float in GCC's vector extension: kLanes of them fill one register of the instruction set being
// compiled. Arithmetic (also with a scalar operand), comparisons and `mask ? a : b` are the language's own.

typedef float vf __attribute__((vector_size(GSA_SIMD_BYTES)));
typedef int32_t vi __attribute__((vector_size(GSA_SIMD_BYTES)));
typedef uint32_t vu __attribute__((vector_size(GSA_SIMD_BYTES)));
typedef double vd __attribute__((vector_size(GSA_SIMD_BYTES)));
typedef float vf_unaligned __attribute__((vector_size(GSA_SIMD_BYTES), aligned(4), may_alias));
typedef float vf_half __attribute__((vector_size(GSA_SIMD_BYTES / 2), aligned(4), may_alias));

constexpr int64_t kLanes = GSA_SIMD_BYTES / 4;

GSA_INLINE vf splat(float x) { return x - vf{}; }  // x - 0, not x + 0: keeps the sign of -0
GSA_INLINE vf load(const float* p) { return *reinterpret_cast<const vf_unaligned*>(p); }
GSA_INLINE void store(float* p, vf x) { *reinterpret_cast<vf_unaligned*>(p) = x; }

// The first n < kLanes floats; the other lanes are zero.
GSA_INLINE vf load_partial(const float* p, int64_t n) {
  vf x = {};
  for (int64_t i = 0; i < n; ++i) x[i] = p[i];
  return x;
}
GSA_INLINE void store_partial(float* p, vf x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) p[i] = x[i];
}

// kLanes / 2 floats, widened.
GSA_INLINE vd load_double(const float* p) {
  return __builtin_convertvector(*reinterpret_cast<const vf_half*>(p), vd);
}

GSA_INLINE vf vmax(vf a, vf b) { return a > b ? a : b; }
GSA_INLINE vf vmin(vf a, vf b) { return a < b ? a : b; }

// Across the lanes, pairwise: the order depends on the instruction set only.
GSA_INLINE float hsum(vf x) {
  for (int64_t half = kLanes / 2; half > 0; half /= 2)
    for (int64_t i = 0; i < half; ++i) x[i] += x[i + half];
  return x[0];
}
GSA_INLINE double hsum(vd x) {
  for (int64_t half = kLanes / 4; half > 0; half /= 2)
    for (int64_t i = 0; i < half; ++i) x[i] += x[i + half];
  return x[0];
}
GSA_INLINE float hmax(vf x) {
  float m = x[0];
  for (int64_t i = 1; i < kLanes; ++i) m = x[i] > m ? x[i] : m;
  return m;
}

// What a loop's body loads and stores with: whole vectors, or the last, shorter one.
struct Whole {
  GSA_MEMBER vf load(const float* p) const { return *reinterpret_cast<const vf_unaligned*>(p); }
  GSA_MEMBER void store(float* p, vf x) const { *reinterpret_cast<vf_unaligned*>(p) = x; }
};
struct Part {
  int64_t n;
  GSA_MEMBER vf load(const float* p) const { return load_partial(p, n); }
  GSA_MEMBER void store(float* p, vf x) const { store_partial(p, x, n); }
};

// body(i, lanes) for i = 0, kLanes, 2 kLanes, ... below n. The body takes `auto lanes`: it is compiled once
// for whole vectors, as a loop without a branch, and once for the rest.
template <typename Body>
GSA_INLINE void for_lanes(int64_t n, Body&& body) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) body(i, Whole{});
  if (i < n) body(i, Part{n - i});
}

// y[i] = f(x[i]), y[i] = f(a[i], b[i]); f takes vf. y may be one of the inputs.
template <typename F>
GSA_INLINE void map(const float* x, float* y, int64_t n, F f) {
  for_lanes(n, [&](int64_t i, auto lanes) { lanes.store(y + i, f(lanes.load(x + i))); });
}
template <typename F>
GSA_INLINE void map(const float* a, const float* b, float* y, int64_t n, F f) {
  for_lanes(n, [&](int64_t i, auto lanes) { lanes.store(y + i, f(lanes.load(a + i), lanes.load(b + i))); });
}
