// Arguments of scale_by, shared by every backend: y = factor[0] * x, with the factor in device memory, so
// that nobody waits for it.
#pragma once

#include <cstdint>

#include "../../abi/args.h"

namespace gsa::scaling {

struct ScaleBy {
  int64_t n;      // elements of x
  int32_t dtype;  // of x and y: float32 or bfloat16
  const void* x;
  const float* factor;  // one element
  void* y;              // like x; may be the memory of x
};

// scale_by: x factor -> y
inline ScaleBy read_scale_by(const Args& args) {
  const gsa_tensor &x = args.in(0), &factor = args.in(1), &y = args.out(0);
  expect_floating(x, "x");
  expect_contiguous(x, "x");
  expect_dtype(factor, GSA_FLOAT32, "factor");
  if (element_count(factor) != 1)
    fail(GSA_INVALID_ARGUMENT, "Expected one element for factor but received shape %s",
         shape_text(factor).c_str());
  expect_dtype(y, x.dtype, "y");
  expect_same_shape(y, x, "y");
  expect_contiguous(y, "y");
  return {element_count(x), x.dtype, x.data, static_cast<const float*>(factor.data), y.data};
}

}  // namespace gsa::scaling
