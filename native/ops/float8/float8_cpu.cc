// 8-bit floats on the CPU: so that what a GPU computes with them can be tested anywhere. Rounding by bits,
// products by a table and float32 arithmetic.
#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "../../cpu/absmax.h"
#include "../../cpu/gemm.h"
#include "../../cpu/parallel.h"
#include "params.h"

namespace gsa::cpu {

namespace {

constexpr int64_t kRowGrain = 16;

float from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

uint32_t to_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

struct Format {
  int mantissa;      // bits
  int lowest;        // exponent of the smallest normal number
  uint32_t largest;  // codes of the largest number and of NaN, without the sign
  uint32_t nan;
};

constexpr Format kE4M3{3, -6, 0x7e, 0x7f}, kE5M2{2, -14, 0x7b, 0x7f};

Format format_of(int32_t format) { return format == GSA_FLOAT8_E4M3 ? kE4M3 : kE5M2; }

// To the nearest, ties to even; what is larger than the largest number becomes it.
uint8_t encode(float value, const Format& f) {
  const uint32_t bits = to_bits(value), sign = bits >> 31 << 7, size = bits & 0x7fffffffu;
  if (size > 0x7f800000u) return static_cast<uint8_t>(f.nan);
  const int exponent = std::max(static_cast<int>(size >> 23) - 127, f.lowest);
  // In units of the last place of that exponent: below 2^(mantissa + 1), so the conversion is exact and
  // nearbyint rounds as the format does. The codes of numbers in order are numbers in order.
  const float units = std::nearbyint(std::ldexp(from_bits(size), f.mantissa - exponent));
  const double code = static_cast<double>(units) + std::ldexp(exponent - f.lowest, f.mantissa);
  return static_cast<uint8_t>(sign | (code > f.largest ? f.largest : static_cast<uint32_t>(code)));
}

float decode(uint32_t code, const Format& f) {
  const uint32_t size = code & 0x7fu;
  const int exponent = static_cast<int>(size >> f.mantissa);
  const uint32_t rest = size & ((1u << f.mantissa) - 1);
  const float sign = code & 0x80u ? -1.0f : 1.0f;
  if (size > f.largest) return f.mantissa == 2 && rest == 0 ? sign * INFINITY : NAN;
  const uint32_t units = exponent == 0 ? rest : rest | 1u << f.mantissa;
  return sign * std::ldexp(static_cast<float>(units), f.lowest + std::max(exponent - 1, 0) - f.mantissa);
}

void expect_float32(int32_t dtype, const char* name) {
  if (dtype != GSA_FLOAT32)
    fail(GSA_UNSUPPORTED, "Expected float32 for %s on the CPU but received %s; convert it first", name,
         dtype_name(dtype));
}

std::vector<float> widened(const uint8_t* x, int64_t n, int32_t format) {
  std::array<float, 256> table;
  for (uint32_t code = 0; code < 256; ++code) table[code] = decode(code, format_of(format));
  std::vector<float> y(static_cast<size_t>(n));
  parallel_for(n, 16384, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) y[static_cast<size_t>(i)] = table[x[i]];
  });
  return y;
}

}  // namespace

void absmax(gsa_device&, const Args& args) {
  const float8::AbsMax p = float8::read_absmax_op(args);
  expect_float32(p.dtype, "x");
  *p.y = absmax_of(static_cast<const float*>(p.x), 1, p.n, 0);
}

void float8_quantize(gsa_device&, const Args& args) {
  const float8::Quantize p = float8::read_quantize(args);
  expect_float32(p.dtype, "x");
  const Format f = format_of(p.format);
  const float scale = from_bits(float8::scale_bits(to_bits(*p.absmax), p.format)), inverse = 1.0f / scale;
  *p.scale = scale;
  const float* x = static_cast<const float*>(p.x);
  parallel_for(p.rows, kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      for (int64_t column = 0; column < p.columns; ++column) {
        const uint8_t code = encode(x[row * p.columns + column] * inverse, f);
        if (p.q) p.q[row * p.columns + column] = code;
        if (p.qt) p.qt[column * p.rows + row] = code;
      }
  });
}

void float8_matmul(gsa_device&, const Args& args) {
  const float8::Product p = float8::read_product(args);
  expect_float32(p.c_dtype, "c");
  const std::vector<float> a = widened(p.a, p.m * p.k, p.a_format), b = widened(p.b, p.n * p.k, p.b_format);
  if (p.addend) std::copy_n(static_cast<const float*>(p.addend), p.m * p.n, static_cast<float*>(p.c));
  Gemm g;
  g.trans_b = true;
  g.m = p.m;
  g.n = p.n;
  g.k = p.k;
  g.alpha = *p.a_scale * *p.b_scale;
  g.beta = p.beta;
  g.a = a.data();
  g.b = b.data();
  g.c = static_cast<float*>(p.c);
  g.lda = g.ldb = p.k;
  g.ldc = p.n;
  sgemm(g);
}

}  // namespace gsa::cpu
