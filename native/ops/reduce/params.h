// Arguments of the reductions, shared by every backend: sums of float32 or bfloat16, in double and in a fixed
// order, and the largest of rows.
#pragma once

#include <cstdint>
#include <vector>

#include "../../abi/args.h"

namespace gsa::reduction {

inline int32_t read_dtype(const gsa_tensor& x) {
  expect_floating(x, "x");
  return x.dtype;
}

struct Part {
  int64_t n;
  int32_t dtype;
  const void* x;
};

// sum, sum_squares: x (any shapes and dtypes) -> y, one float32 element
struct Sum {
  std::vector<Part> parts;
  float* y;
};

inline Sum read_sum(const Args& args) {
  Sum p{{}, read_one(args.out(0), "y")};
  for (int i = 0; i < args.n_in(); ++i) {
    const gsa_tensor& x = args.in(i);
    expect_contiguous(x, "x");
    p.parts.push_back({element_count(x), read_dtype(x), x.data});
  }
  return p;
}

// column_sum: x [R, C] -> y [C]: y = sum over rows + beta y
struct ColumnSum {
  int64_t R, C;
  int32_t dtype;  // of x and y
  const void* x;
  void* y;
  float beta;
};

inline ColumnSum read_column_sum(const Args& args) {
  const gsa_tensor &x = args.in(0), &y = args.out(0);
  expect_ndim(x, 2, "x");
  expect_contiguous(x, "x");
  expect_dense(y, read_dtype(x), {x.shape[1]}, "y");
  return {x.shape[0], x.shape[1], x.dtype, x.data, y.data, static_cast<float>(args.attr(0))};
}

// argmax: x [R, C] -> index [R], int32, of the largest element of each row (the first of equals), and value
// [R], float32: that element. A NaN counts as the largest.
struct ArgMax {
  int64_t R, C;
  int32_t dtype;
  const void* x;
  int32_t* index;
  float* value;
};

inline ArgMax read_argmax(const Args& args) {
  const gsa_tensor& x = args.in(0);
  expect_ndim(x, 2, "x");
  expect_contiguous(x, "x");
  if (x.shape[1] < 1 || x.shape[1] > INT32_MAX)
    fail(GSA_INVALID_ARGUMENT, "Expected 1 to 2^31 - 1 columns for x but received %s", shape_text(x).c_str());
  expect_dense(args.out(0), GSA_INT32, {x.shape[0]}, "index");
  expect_dense(args.out(1), GSA_FLOAT32, {x.shape[0]}, "value");
  return {x.shape[0],
          x.shape[1],
          read_dtype(x),
          x.data,
          static_cast<int32_t*>(args.out(0).data),
          static_cast<float*>(args.out(1).data)};
}

}  // namespace gsa::reduction
