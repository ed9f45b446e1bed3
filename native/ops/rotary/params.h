// Arguments of the rotary position embedding, shared by every backend. Channels i and i + D/2 of a head at
// position p turn by the angle (offset + p) * theta^(-2i/D) (Su et al. 2021, in the layout of Llama
// checkpoints):
//   y[i]       = x[i] cos - x[i + D/2] sin
//   y[i + D/2] = x[i + D/2] cos + x[i] sin
// `inverse` turns the other way: the gradient of a rotation is its inverse.
#pragma once

#include <cmath>
#include <cstdint>

#include "../../abi/args.h"

namespace gsa::rotation {

struct Rotary {
  int64_t B, T, H, D;
  int32_t dtype;  // of x and y: float32 or bfloat16
  const void* x;  // [B, T, H, D]
  void* y;        // [B, T, H, D]; may be the memory of x
  double theta;
  int64_t offset;  // position of the first token
  bool inverse;

  double angle(int64_t t, int64_t i) const {
    const double a = static_cast<double>(offset + t) *
                     std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(D));
    return inverse ? -a : a;
  }
};

// rotary: x -> y, theta offset inverse
inline Rotary read_rotary(const Args& args) {
  const gsa_tensor &x = args.in(0), &y = args.out(0);
  expect_ndim(x, 4, "x");
  expect_floating(x, "x");
  expect_contiguous(x, "x");
  expect_dense(y, x.dtype, {x.shape[0], x.shape[1], x.shape[2], x.shape[3]}, "y");
  if (x.shape[3] % 2 != 0)
    fail(GSA_INVALID_ARGUMENT, "Expected an even last dimension for x but received %s",
         shape_text(x).c_str());
  const double theta = args.attr(0), offset = args.attr(1);
  if (!(std::isfinite(theta) && theta > 0))
    fail(GSA_INVALID_ARGUMENT, "Expected a positive finite number for theta but received %g", theta);
  if (!(offset >= 0 && offset <= 9007199254740992.0 && offset == std::floor(offset)))
    fail(GSA_INVALID_ARGUMENT, "Expected an integer of at least 0 for offset but received %g", offset);
  return {x.shape[0],       x.shape[1], x.shape[2],
          x.shape[3],       x.dtype,    x.data,
          y.data,           theta,      static_cast<int64_t>(offset),
          args.attr(2) != 0};
}

}  // namespace gsa::rotation
