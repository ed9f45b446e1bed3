// Elementary functions, written once for a single float and for a vector of them (vf of vec.inl, when
// GSA_SIMD_BYTES is set): no branches, no table, no library call, so that a plain loop over the scalar form
// vectorises as well. NaN stays NaN, infinities and denormals are right; measured errors are in README.md.
// Include through foreach_isa.h or math.h.

// Bit patterns are unsigned, whose arithmetic wraps: NaN and negative arguments pass through all of it.
GSA_INLINE uint32_t bits_of(float x) {
  uint32_t i;
  std::memcpy(&i, &x, sizeof i);
  return i;
}
GSA_INLINE float float_of(uint32_t i) {
  float x;
  std::memcpy(&x, &i, sizeof x);
  return x;
}
// Shifts right with copies of the sign bit.
GSA_INLINE uint32_t shift_signed(uint32_t i, int by) {
  return static_cast<uint32_t>(static_cast<int32_t>(i) >> by);
}
#ifdef GSA_SIMD_BYTES
GSA_INLINE vu bits_of(vf x) { return reinterpret_cast<vu>(x); }
GSA_INLINE vf float_of(vu i) { return reinterpret_cast<vf>(i); }
GSA_INLINE vu shift_signed(vu i, int by) { return reinterpret_cast<vu>(reinterpret_cast<vi>(i) >> by); }
#endif

// Adding and subtracting 1.5 * 2^23 rounds to the nearest integer and leaves that integer in the low bits.
constexpr float kRoundMagic = 12582912.0f;
constexpr uint32_t kRoundMagicBits = 0x4B400000u;
constexpr float kInf = std::numeric_limits<float>::infinity();

// x = n ln 2 + r, |r| <= ln 2 / 2. ln 2 is split so that n * kLn2Hi is exact without fused multiply-add too.
constexpr float kLog2E = 1.44269504088896341f;
constexpr float kLn2Hi = 0.693359375f;
constexpr float kLn2Lo = -2.12194440054690583e-4f;

// e^r - 1 on |r| <= ln 2 / 2.
template <typename F>
GSA_INLINE F expm1_reduced(F r) {
  F p = r * 0.000198527617612853646278381f + 0.00139304355252534151077271f;
  p = p * r + 0.00833336077630519866943359f;
  p = p * r + 0.0416664853692054748535156f;
  p = p * r + 0.166666671633720397949219f;
  p = p * r + 0.5f;
  return p * (r * r) + r;
}

template <typename F>
GSA_INLINE F exp(F x) {
  // Past these bounds the result is 0 or infinity; the clamp keeps n in range and NaN as it is.
  x = x < -104.0f ? F{} - 104.0f : x;
  x = x > 89.0f ? F{} + 89.0f : x;
  const F shifted = x * kLog2E + kRoundMagic;
  const F n = shifted - kRoundMagic;
  const F r = (x - n * kLn2Hi) - n * kLn2Lo;
  // 2^n in two factors: one alone cannot reach 2^128 nor the denormals.
  const auto i = bits_of(shifted) - kRoundMagicBits;
  const auto half = shift_signed(i, 1);
  return (expm1_reduced(r) + 1.0f) * float_of((half + 127u) << 23) * float_of((i - half + 127u) << 23);
}

template <typename F>
GSA_INLINE F expm1(F x) {
  x = x < -20.0f ? F{} - 20.0f : x;  // -1 to the last bit from about -17.4 down
  x = x > 89.0f ? F{} + 89.0f : x;
  const F shifted = x * kLog2E + kRoundMagic;
  const F n = shifted - kRoundMagic;
  const F r = (x - n * kLn2Hi) - n * kLn2Lo;
  // 2^n (e^r - 1) + (2^n - 1), with 2^(n-1) in the middle because 2^128 is not a float.
  const F half_scale = float_of((bits_of(shifted) - (kRoundMagicBits - 126u)) << 23);
  const F result = (half_scale * expm1_reduced(r) + (half_scale - 0.5f)) * 2.0f;
  return n == 0.0f ? expm1_reduced(r) : result;
}

// log(1 + f) for 1 + f in [sqrt(1/2), sqrt(2)), plus n ln 2, plus a small correction c.
template <typename F>
GSA_INLINE F log_reduced(F f, F n, F c) {
  const F s = f / (f + 2.0f);
  const F z = s * s;
  const F w = z * z;
  const F odd = w * (w * 0.24279078841f + 0.40000972152f);
  const F even = z * (w * 0.28498786688f + 0.66666662693f);
  const F half_square = f * f * 0.5f;
  return (s * (half_square + (odd + even)) + (n * 9.0580006145e-06f + c)) - half_square + f +
         n * 6.9313812256e-01f;
}

// x = 2^n m with m in [sqrt(1/2), sqrt(2)) for a positive normal x; returns m - 1.
template <typename F>
GSA_INLINE F split_exponent(F x, F& n) {
  const auto i = bits_of(x);
  const auto e = shift_signed(i - 0x3f3504f3u, 23);
  n = float_of(e + kRoundMagicBits) - kRoundMagic;
  return float_of(i - (e << 23)) - 1.0f;
}

template <typename F>
GSA_INLINE F log(F x) {
  const F normal = x < 1.17549435e-38f ? x * 8388608.0f : x;
  const F offset = x < 1.17549435e-38f ? F{} - 23.0f : F{};
  F n;
  const F f = split_exponent(normal, n);
  F y = log_reduced(f, n + offset, F{});
  y = x == 0.0f ? F{} - kInf : y;
  y = x < 0.0f ? F{} + std::numeric_limits<float>::quiet_NaN() : y;
  y = x == kInf ? F{} + kInf : y;
  return x != x ? x : y;
}

template <typename F>
GSA_INLINE F log1p(F x) {
  const F u = x + 1.0f;
  F n;
  const F f = split_exponent(u, n);
  // What was lost when 1 + x was rounded, relative to u.
  F y = log_reduced(f, n, (x > 1.0f ? 1.0f - (u - x) : x - (u - 1.0f)) / u);
  y = u == 0.0f ? F{} - kInf : y;
  y = u < 0.0f ? F{} + std::numeric_limits<float>::quiet_NaN() : y;
  y = u == kInf ? F{} + kInf : y;
  return x != x ? x : y;
}

template <typename F>
GSA_INLINE F abs(F x) {
  return float_of(bits_of(x) & 0x7fffffffu);
}

template <typename F>
GSA_INLINE F sigmoid(F x) {
  const F e = exp(F{} - abs(x));  // in (0, 1]: neither overflow nor loss of the small side
  return (x < 0.0f ? e : F{} + 1.0f) / (e + 1.0f);
}

template <typename F>
GSA_INLINE F silu(F x) {
  return x * sigmoid(x);
}

// silu(x) and its derivative sigma (1 + x (1 - sigma)), where 1 - sigma(x) = sigma(-x) has no cancellation.
template <typename F>
GSA_INLINE F silu_and_derivative(F x, F& derivative) {
  const F e = exp(F{} - abs(x));
  const F inverse = 1.0f / (e + 1.0f);
  const F p = x < 0.0f ? e * inverse : inverse;
  const F q = x < 0.0f ? inverse : e * inverse;
  const F y = x * p;
  derivative = y * q + p;
  return y;
}

template <typename F>
GSA_INLINE F silu_derivative(F x) {
  F derivative;
  silu_and_derivative(x, derivative);
  return derivative;
}

template <typename F>
GSA_INLINE F log_sigmoid(F x) {
  return (x < 0.0f ? x : F{}) - log1p(exp(F{} - abs(x)));
}
