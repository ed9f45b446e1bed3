// Arguments of the reductions, shared by every backend: sums of float32 or bfloat16, in double and in a fixed
// order.
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

}  // namespace gsa::reduction
