// Arguments of the elementwise ops, shared by every backend.
#pragma once

#include <cmath>
#include <cstdint>
#include <utility>

#include "../../abi/args.h"

namespace gsa::elementwise {

// fill: -> y, value. Any dtype; contiguous.
struct Fill {
  int64_t n;
  int32_t dtype;
  void* y;
  double value;
};

inline Fill read_fill(const Args& args) {
  const gsa_tensor& y = args.out(0);
  expect_contiguous(y, "y");
  return {element_count(y), y.dtype, y.data, args.attr(0)};
}

// cast: x -> y. x may be strided, y is contiguous; any dtypes. float32 to bfloat16 rounds to nearest even;
// floats become integers by truncation, what does not fit becomes the nearest bound and NaN becomes 0.
struct Cast {
  gsa_tensor x;
  int64_t n;
  int32_t y_dtype;
  void* y;
};

inline Cast read_cast(const Args& args) {
  const gsa_tensor &x = args.in(0), &y = args.out(0);
  expect_same_shape(y, x, "y");
  expect_contiguous(y, "y");
  return {x, element_count(x), y.dtype, y.data};
}

// add: y = alpha a + beta b, all float32 or all bfloat16, one shape; without b: y = alpha a. y may be a or b.
struct Add {
  int64_t n;
  int32_t dtype;
  const void* a;
  const void* b;
  void* y;
  float alpha, beta;
};

inline Add read_add(const Args& args) {
  const gsa_tensor &a = args.in(0), &y = args.out(0);
  const gsa_tensor* b = args.in_optional(1);
  expect_floating(a, "a");
  expect_contiguous(a, "a");
  for (const auto& [t, name] : {std::pair<const gsa_tensor*, const char*>{b, "b"}, {&y, "y"}}) {
    if (!t) continue;
    expect_dtype(*t, a.dtype, name);
    expect_same_shape(*t, a, name);
    expect_contiguous(*t, name);
  }
  return {element_count(a),
          a.dtype,
          a.data,
          b ? b->data : nullptr,
          y.data,
          static_cast<float>(args.attr(0)),
          static_cast<float>(args.attr(1))};
}

// random_normal: y[i] = mean + std * z(seed, stream, i). seed and stream: integers 0 .. 2^53.
struct RandomNormal {
  int64_t n;
  int32_t dtype;
  void* y;
  uint64_t seed, stream;
  float mean, std;
};

inline uint64_t read_counter(double value, const char* name) {
  if (!(value >= 0 && value <= 9007199254740992.0 && value == std::floor(value)))
    fail(GSA_INVALID_ARGUMENT, "Expected an integer from 0 to 2^53 for %s but received %g", name, value);
  return static_cast<uint64_t>(value);
}

inline RandomNormal read_random_normal(const Args& args) {
  const gsa_tensor& y = args.out(0);
  expect_floating(y, "y");
  expect_contiguous(y, "y");
  return {element_count(y),
          y.dtype,
          y.data,
          read_counter(args.attr(0), "seed"),
          read_counter(args.attr(1), "stream"),
          static_cast<float>(args.attr(2)),
          static_cast<float>(args.attr(3))};
}

}  // namespace gsa::elementwise
