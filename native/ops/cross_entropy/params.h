// Arguments of the cross-entropy ops, shared by every backend: loss = lse - logits[label] by rows, lse the
// log of the sum of exponentials. A row whose label is ignore_index has loss and gradient 0.
#pragma once

#include <cmath>
#include <cstdint>

#include "../../abi/args.h"

namespace gsa::loss {

struct CrossEntropyFwd {
  int64_t R, C;           // rows, classes
  int32_t dtype;          // of logits: float32 or bfloat16
  const void* logits;     // [R, C]
  const int32_t* labels;  // [R], each in 0 .. C - 1 or ignore_index
  float* loss;            // [R]
  float* lse;             // [R]
  void* dlogits;          // [R, C] gradient of the losses' sum; may be the memory of logits; NULL: not wanted
  int32_t ignore_index;
};

struct CrossEntropyBwd {
  int64_t R, C;
  int32_t dtype;       // of logits and dlogits
  const float* dloss;  // [R], or one element for all rows
  bool one_dloss;
  const void* logits;
  const int32_t* labels;
  const float* lse;
  void* dlogits;  // [R, C]; may be the memory of logits
  int32_t ignore_index;
};

struct LogSoftmax {
  int64_t R, C;
  int32_t dtype;
  const void* x;  // [R, C]
  void* y;        // [R, C]; may be the memory of x
};

inline int32_t read_logits(const gsa_tensor& t, const char* name) {
  expect_ndim(t, 2, name);
  expect_floating(t, name);
  expect_contiguous(t, name);
  if (t.shape[1] < 1)
    fail(GSA_INVALID_ARGUMENT, "Expected at least one class but received %s", shape_text(t).c_str());
  return t.dtype;
}

inline int32_t read_ignore_index(double value) {
  if (!(value >= INT32_MIN && value <= INT32_MAX && value == std::floor(value)))
    fail(GSA_INVALID_ARGUMENT, "Expected a 32-bit integer for ignore_index but received %g", value);
  return static_cast<int32_t>(value);
}

// cross_entropy_fwd: logits labels -> loss lse dlogits?, ignore_index
inline CrossEntropyFwd read_cross_entropy_fwd(const Args& args) {
  const gsa_tensor &logits = args.in(0), &labels = args.in(1);
  const int32_t dtype = read_logits(logits, "logits");
  const int64_t R = logits.shape[0];
  expect_dense(labels, GSA_INT32, {R}, "labels");
  expect_dense(args.out(0), GSA_FLOAT32, {R}, "loss");
  expect_dense(args.out(1), GSA_FLOAT32, {R}, "lse");
  const gsa_tensor* dlogits = args.out_optional(2);
  if (dlogits) expect_dense(*dlogits, dtype, {R, logits.shape[1]}, "dlogits");
  return {R,
          logits.shape[1],
          dtype,
          logits.data,
          static_cast<const int32_t*>(labels.data),
          static_cast<float*>(args.out(0).data),
          static_cast<float*>(args.out(1).data),
          data_or_null<void>(dlogits),
          read_ignore_index(args.attr(0))};
}

// cross_entropy_bwd: dloss logits labels lse -> dlogits, ignore_index
inline CrossEntropyBwd read_cross_entropy_bwd(const Args& args) {
  const gsa_tensor &dloss = args.in(0), &logits = args.in(1), &labels = args.in(2), &lse = args.in(3);
  const int32_t dtype = read_logits(logits, "logits");
  const int64_t R = logits.shape[0], C = logits.shape[1];
  const bool one = R != 1 && element_count(dloss) == 1;
  expect_dtype(dloss, GSA_FLOAT32, "dloss");
  if (!one) expect_dense(dloss, GSA_FLOAT32, {R}, "dloss");
  expect_dense(labels, GSA_INT32, {R}, "labels");
  expect_dense(lse, GSA_FLOAT32, {R}, "lse");
  expect_dense(args.out(0), dtype, {R, C}, "dlogits");
  return {R,
          C,
          dtype,
          static_cast<const float*>(dloss.data),
          one,
          logits.data,
          static_cast<const int32_t*>(labels.data),
          static_cast<const float*>(lse.data),
          args.out(0).data,
          read_ignore_index(args.attr(0))};
}

// log_softmax: x -> y, over the last dimension
inline LogSoftmax read_log_softmax(const Args& args) {
  const gsa_tensor &x = args.in(0), &y = args.out(0);
  const int32_t dtype = read_logits(x, "x");
  expect_dense(y, dtype, {x.shape[0], x.shape[1]}, "y");
  return {x.shape[0], x.shape[1], dtype, x.data, y.data};
}

// For who can read the labels: checked before anything is written.
inline void check_labels(const int32_t* labels, int64_t R, int64_t C, int32_t ignore_index) {
  for (int64_t r = 0; r < R; ++r)
    if (labels[r] != ignore_index && (labels[r] < 0 || labels[r] >= C))
      fail(GSA_INVALID_ARGUMENT,
           "Expected labels from 0 to %lld (or %d to ignore) but received %d in row %lld",
           static_cast<long long>(C - 1), ignore_index, labels[r], static_cast<long long>(r));
}

}  // namespace gsa::loss
