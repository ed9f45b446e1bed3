// Arguments of the reductions, shared by every backend. All float32; results are summed in double in a fixed
// order.
#pragma once

#include <cstdint>
#include <vector>

#include "../../abi/args.h"

namespace gsa::reduction {

inline float* read_one(const gsa_tensor& t, const char* name) {
  expect_dtype(t, GSA_FLOAT32, name);
  if (element_count(t) != 1)
    fail(GSA_INVALID_ARGUMENT, "Expected one element for %s but received shape %s", name,
         shape_text(t).c_str());
  return static_cast<float*>(t.data);
}

struct Part {
  int64_t n;
  const float* x;
};

// sum, sum_squares: x (any shapes) -> y, one element
struct Sum {
  std::vector<Part> parts;
  float* y;
};

inline Sum read_sum(const Args& args) {
  Sum p{{}, read_one(args.out(0), "y")};
  for (int i = 0; i < args.n_in(); ++i) {
    const gsa_tensor& x = args.in(i);
    expect_dtype(x, GSA_FLOAT32, "x");
    expect_contiguous(x, "x");
    p.parts.push_back({element_count(x), static_cast<const float*>(x.data)});
  }
  return p;
}

// column_sum: x [R, C] -> y [C]: y = sum over rows + beta y
struct ColumnSum {
  int64_t R, C;
  const float* x;
  float* y;
  float beta;
};

inline ColumnSum read_column_sum(const Args& args) {
  const gsa_tensor &x = args.in(0), &y = args.out(0);
  expect_ndim(x, 2, "x");
  expect_dense(x, GSA_FLOAT32, {x.shape[0], x.shape[1]}, "x");
  expect_dense(y, GSA_FLOAT32, {x.shape[1]}, "y");
  return {x.shape[0], x.shape[1], static_cast<const float*>(x.data), static_cast<float*>(y.data),
          static_cast<float>(args.attr(0))};
}

}  // namespace gsa::reduction
