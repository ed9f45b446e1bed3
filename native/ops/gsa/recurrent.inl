// Kernels of gsa_recurrent_cpu.cc for one instruction set; included through cpu/simd/foreach_isa.h.

GSA_INLINE void load_into(vf& x, const float* p) { x = load(p); }
GSA_INLINE void load_into(float& x, const float* p) { x = *p; }
GSA_INLINE void store_from(float* p, vf x) { store(p, x); }
GSA_INLINE void store_from(float* p, float x) { *p = x; }

// kCount vectors (or floats) of columns side by side: enough independent sums to hide the latency of an
// addition.
template <typename F, int kCount, bool kDecayByColumn>
GSA_INLINE void step_columns(const StateStep& s, int64_t column) {
  constexpr int64_t kWidth = sizeof(F) / sizeof(float);
  F decay[kCount], write[kCount], sum[kCount] = {};
  for (int c = 0; c < kCount; ++c) {
    if (kDecayByColumn) load_into(decay[c], s.decay + column + c * kWidth);
    load_into(write[c], s.column_write + column + c * kWidth);
  }
  const float *from = s.from ? s.from + column : nullptr, *read = s.read, *row_write = s.row_write,
              *gates = s.decay;
  float* to = s.to + column;
  for (int64_t i = 0; i < s.rows; ++i)
    for (int c = 0; c < kCount; ++c) {
      F x = write[c] * row_write[i];
      if (from) {
        F old;
        load_into(old, from + i * s.columns + c * kWidth);
        x += kDecayByColumn ? old * decay[c] : old * gates[i];
      }
      store_from(to + i * s.columns + c * kWidth, x);
      sum[c] += x * read[i];
    }
  for (int64_t r = 0;;) {
    for (int c = 0; c < kCount; ++c)
      store_from(s.out + r * s.columns + column + c * kWidth, sum[c] * s.scale);
    if (++r == s.readers) return;
    for (int c = 0; c < kCount; ++c) sum[c] = F{};
    for (int64_t i = 0; i < s.rows; ++i)
      for (int c = 0; c < kCount; ++c) {
        F x;
        load_into(x, to + i * s.columns + c * kWidth);
        sum[c] += x * read[r * s.rows + i];
      }
  }
}

template <bool kDecayByColumn>
GSA_INLINE void step_all(const StateStep& s) {
  int64_t c = s.begin;
  for (; c + 4 * kLanes <= s.end; c += 4 * kLanes) step_columns<vf, 4, kDecayByColumn>(s, c);
  for (; c + kLanes <= s.end; c += kLanes) step_columns<vf, 1, kDecayByColumn>(s, c);
  for (; c < s.end; ++c) step_columns<float, 1, kDecayByColumn>(s, c);
}

static void state_step(const StateStep& s) {
  if (s.decay_by_column)
    step_all<true>(s);
  else
    step_all<false>(s);
}

static void exp_range(const float* x, float* y, int64_t n) {
  map(x, y, n, [](vf v) { return exp(v); });
}

// Softmax of each of `rows` rows of n floats, in place.
static void softmax_range(float* x, int64_t rows, int64_t n) {
  for (; rows > 0; --rows, x += n) {
    float highest = x[0];
    for (int64_t i = 1; i < n; ++i) highest = x[i] > highest ? x[i] : highest;
    map(x, x, n, [highest](vf v) { return exp(v - highest); });
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += x[i];
    const float inverse = static_cast<float>(1.0 / sum);
    for (int64_t i = 0; i < n; ++i) x[i] *= inverse;
  }
}
