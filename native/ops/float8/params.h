// Arguments of the 8-bit float ops, shared by every backend. A matrix x [R, C] is copied as q [R, C], qt [C,
// R] or both, in E4M3 or E5M2 (Micikevicius et al. 2022, arXiv 2209.05433), with one scale: x = q * scale.
// The scale is a power of two, so that x / scale is exact and every backend rounds alike.
#pragma once

#include <cstdint>
#include <cstring>

#include "../../abi/args.h"

namespace gsa::float8 {

constexpr int64_t kMultiple = 16;  // of rows and columns: what the tensor cores' products take

#ifdef __CUDACC__
#define GSA_FLOAT8_BOTH __host__ __device__
#else
#define GSA_FLOAT8_BOTH
#endif

// Both formats have 1.75 2^n as their largest number: 448 and 57344.
GSA_FLOAT8_BOTH constexpr int largest_exponent(int32_t format) { return format == GSA_FLOAT8_E4M3 ? 8 : 15; }

// The bits of the smallest power of two by which numbers up to the magnitude with these bits fit the format.
// 1 for nothing but zeros, and NaN for an infinite magnitude: everything copied with it is NaN then.
GSA_FLOAT8_BOTH constexpr uint32_t scale_bits(uint32_t absmax_bits, int32_t format) {
  if (absmax_bits == 0) return 127u << 23;
  if (absmax_bits >= 0x7f800000u) return 0x7fc00000u;
  const int exponent = static_cast<int>(absmax_bits >> 23) - 127;  // -127 for what is below normal numbers
  int power = exponent - largest_exponent(format) + ((absmax_bits & 0x7fffffu) > 0x600000u ? 1 : 0);
  if (power < -100) power = -100;  // the inverse has to be a normal number
  return static_cast<uint32_t>(power + 127) << 23;
}

struct AbsMax {
  int64_t n;      // elements of x
  int32_t dtype;  // of x: float32 or bfloat16
  const void* x;
  float* y;  // one element
};

struct Quantize {
  int64_t rows, columns;
  int32_t dtype;        // of x: float32 or bfloat16
  int32_t format;       // of q and qt
  const void* x;        // [rows, columns]
  const float* absmax;  // one element, the largest magnitude of x; what is larger saturates
  uint8_t* q;           // [rows, columns]; NULL: not wanted
  uint8_t* qt;          // [columns, rows]; NULL: not wanted
  float* scale;         // one element
};

struct Product {
  int64_t m, n, k;
  int32_t a_format, b_format;
  int32_t c_dtype;   // float32 or bfloat16
  const uint8_t* a;  // [m, k]
  const uint8_t* b;  // [n, k]
  const float *a_scale, *b_scale;
  void* c;             // [m, n]; read only when beta is not 0 and there is no addend
  const void* addend;  // as c, or NULL
  float beta;          // of c, or 1 for an addend
  bool fast;           // sums may be kept in fewer bits than float32 has
};

inline void expect_format(const gsa_tensor& t, const char* name) {
  if (!is_float8(t.dtype))
    fail(GSA_INVALID_ARGUMENT, "Expected float8_e4m3 or float8_e5m2 for %s but received %s", name,
         dtype_name(t.dtype));
}

inline void expect_multiples(const gsa_tensor& t, const char* name) {
  expect_ndim(t, 2, name);
  if (t.shape[0] % kMultiple != 0 || t.shape[1] % kMultiple != 0)
    fail(GSA_INVALID_ARGUMENT, "Expected extents that are multiples of %d for %s but received %s",
         static_cast<int>(kMultiple), name, shape_text(t).c_str());
}

// absmax: x -> y
inline AbsMax read_absmax_op(const Args& args) {
  const gsa_tensor& x = args.in(0);
  expect_floating(x, "x");
  expect_contiguous(x, "x");
  return {element_count(x), x.dtype, x.data, read_one(args.out(0), "y")};
}

// float8_quantize: x absmax -> q? qt? scale
inline Quantize read_quantize(const Args& args) {
  const gsa_tensor& x = args.in(0);
  expect_floating(x, "x");
  expect_contiguous(x, "x");
  expect_multiples(x, "x");
  const gsa_tensor *q = args.out_optional(0), *qt = args.out_optional(1);
  if (!q && !qt) fail(GSA_INVALID_ARGUMENT, "Expected q, qt or both but received neither");
  const int32_t format = (q ? q : qt)->dtype;
  expect_format(q ? *q : *qt, q ? "q" : "qt");
  if (q) expect_dense(*q, format, {x.shape[0], x.shape[1]}, "q");
  if (qt) expect_dense(*qt, format, {x.shape[1], x.shape[0]}, "qt");
  return {x.shape[0],
          x.shape[1],
          x.dtype,
          format,
          x.data,
          read_one(args.in(1), "absmax"),
          data_or_null<uint8_t>(q),
          data_or_null<uint8_t>(qt),
          read_one(args.out(2), "scale")};
}

// float8_matmul: a b a_scale b_scale addend? -> c, beta fast
inline Product read_product(const Args& args) {
  const gsa_tensor &a = args.in(0), &b = args.in(1), &c = args.out(0);
  expect_format(a, "a");
  expect_format(b, "b");
  expect_multiples(a, "a");
  expect_multiples(b, "b");
  expect_contiguous(a, "a");
  expect_contiguous(b, "b");
  if (a.dtype == GSA_FLOAT8_E5M2 && b.dtype == GSA_FLOAT8_E5M2)
    fail(GSA_INVALID_ARGUMENT, "Expected float8_e4m3 for a or b but received float8_e5m2 for both");
  expect_floating(c, "c");
  if (a.shape[1] != b.shape[1])
    fail(GSA_INVALID_ARGUMENT, "Expected rows of equal length but received %s for a and %s for b",
         shape_text(a).c_str(), shape_text(b).c_str());
  expect_shape(c, {a.shape[0], b.shape[0]}, "c");
  expect_contiguous(c, "c");
  const gsa_tensor* addend = args.in_optional(4);
  if (addend) expect_addend(*addend, c, args.attr(0));
  return {a.shape[0],
          b.shape[0],
          a.shape[1],
          a.dtype,
          b.dtype,
          c.dtype,
          static_cast<const uint8_t*>(a.data),
          static_cast<const uint8_t*>(b.data),
          read_one(args.in(2), "a_scale"),
          read_one(args.in(3), "b_scale"),
          c.data,
          data_or_null<const void>(addend),
          addend ? 1.0f : static_cast<float>(args.attr(0)),
          args.attr(1) != 0};
}

}  // namespace gsa::float8
