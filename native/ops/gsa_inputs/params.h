// Arguments of the ops that turn the joined projections of a gated-slot-attention layer into the operator's
// inputs, shared by every backend. A row of x is [query | key | value | gate projection] of one token:
//   q, k, v = silu of theirs;  g = logsigmoid(f) / normalizer, s = 1 - exp(g) of the last.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../../abi/args.h"

namespace gsa::layer_inputs {

constexpr int kActivated = 3;  // q, k, v

struct Forward {
  int64_t rows;
  int64_t width[kActivated];  // of q, k, v
  int64_t slots;              // width of the gate projection: H * M
  int64_t row_width;          // of x: all of them together
  int32_t dtype;              // of x, q, k and v: float32 or bfloat16
  const void* x;              // [rows, row_width]
  void* y[kActivated];        // q, k, v: [rows, width]; NULL and widths of 0: not wanted
  float* g;                   // [rows, slots]; NULL: neither g nor s is wanted
  float* s;                   // [rows, slots]
  int64_t first, last;        // columns of x that are read
  float normalizer;
};

struct Backward {
  int64_t rows;
  int64_t width[kActivated];
  int64_t slots;
  int64_t row_width;
  int32_t dtype;               // of x, dx and the gradients of q, k and v
  const void* dy[kActivated];  // [rows, width]
  const float* dg;             // [rows, slots]
  const float* ds;
  const void* x;  // [rows, row_width], as the forward read it
  void* dx;       // the same shape; may be the memory of x
  float* absmax;  // of dx; NULL: not wanted
  float normalizer;
};

// The channels of a tensor for each of x's rows, however it divides them into dimensions.
inline int64_t read_width(const gsa_tensor& t, int32_t dtype, int64_t rows, const char* name) {
  expect_dtype(t, dtype, name);
  expect_contiguous(t, name);
  const int64_t count = element_count(t);
  if (rows == 0 ? count != 0 : count % rows != 0)
    fail(GSA_INVALID_ARGUMENT, "Expected as many elements for each of %lld rows of x for %s but received %s",
         static_cast<long long>(rows), name, shape_text(t).c_str());
  return rows == 0 ? 0 : count / rows;
}

template <typename Side>
void read_x(const gsa_tensor& x, Side& p) {
  expect_floating(x, "x");
  if (x.ndim < 1) fail(GSA_INVALID_ARGUMENT, "Expected at least 1 dimension for x but received []");
  p.dtype = x.dtype;
  p.rows = 1;
  for (int32_t i = 0; i + 1 < x.ndim; ++i) p.rows *= x.shape[i];
  p.row_width = x.shape[x.ndim - 1];
}

// Once all widths are known.
template <typename Side>
void expect_rows(const gsa_tensor& x, const Side& p, const char* name) {
  expect_dtype(x, p.dtype, name);
  expect_contiguous(x, name);
  const int64_t sum = p.width[0] + p.width[1] + p.width[2] + p.slots;
  if (element_count(x) != p.rows * p.row_width || (p.rows > 0 && p.row_width != sum))
    fail(GSA_INVALID_ARGUMENT,
         "Expected a last dimension of %lld + %lld + %lld + %lld for %s but received %s",
         static_cast<long long>(p.width[0]), static_cast<long long>(p.width[1]),
         static_cast<long long>(p.width[2]), static_cast<long long>(p.slots), name, shape_text(x).c_str());
}

// Whether all of the outputs from number `first` to `last` are there; none: not. Some of them are an error.
inline bool all_or_none(const Args& args, int first, int last, const char* names) {
  int there = 0;
  for (int i = first; i <= last; ++i) there += args.out_optional(i) != nullptr;
  if (there != 0 && there != last - first + 1)
    fail(GSA_INVALID_ARGUMENT, "Expected %s, all or none, but received %d of them", names, there);
  return there != 0;
}

// gsa_inputs_fwd: x -> q? k? v? g? s?, normalizer; q, k and v or g and s may be left out
inline Forward read_forward(const Args& args) {
  static const char* const names[] = {"q", "k", "v"};
  Forward p{};
  read_x(args.in(0), p);
  const bool rows = all_or_none(args, 0, 2, "q, k and v"), gates = all_or_none(args, 3, 4, "g and s");
  int64_t activated = 0;
  for (int i = 0; rows && i < kActivated; ++i) {
    activated += p.width[i] = read_width(args.out(i), p.dtype, p.rows, names[i]);
    p.y[i] = args.out(i).data;
  }
  if (gates) {
    p.slots = read_width(args.out(3), GSA_FLOAT32, p.rows, "g");
    expect_dtype(args.out(4), GSA_FLOAT32, "s");
    expect_same_shape(args.out(4), args.out(3), "s");
    expect_contiguous(args.out(4), "s");
    p.g = static_cast<float*>(args.out(3).data);
    p.s = static_cast<float*>(args.out(4).data);
  }
  // What is left out takes the rest of a row.
  p.first = rows ? 0 : std::max<int64_t>(p.row_width - p.slots, 0);
  p.last = gates ? p.row_width : std::min(activated, p.row_width);
  Forward whole = p;
  if (!gates) whole.slots = std::max<int64_t>(p.row_width - activated, 0);
  whole.width[0] += p.first;
  expect_rows(args.in(0), whole, "x");
  p.x = args.in(0).data;
  p.normalizer = read_normalizer(args, 0);
  return p;
}

// gsa_inputs_bwd: dq dk dv dg ds x -> dx absmax?, normalizer
inline Backward read_backward(const Args& args) {
  static const char* const names[] = {"dq", "dk", "dv"};
  Backward p{};
  read_x(args.in(5), p);
  for (int i = 0; i < kActivated; ++i) {
    p.width[i] = read_width(args.in(i), p.dtype, p.rows, names[i]);
    p.dy[i] = args.in(i).data;
  }
  p.slots = read_width(args.in(3), GSA_FLOAT32, p.rows, "dg");
  expect_dtype(args.in(4), GSA_FLOAT32, "ds");
  expect_same_shape(args.in(4), args.in(3), "ds");
  expect_contiguous(args.in(4), "ds");
  expect_rows(args.in(5), p, "x");
  expect_rows(args.out(0), p, "dx");
  p.dg = static_cast<const float*>(args.in(3).data);
  p.ds = static_cast<const float*>(args.in(4).data);
  p.x = args.in(5).data;
  p.dx = args.out(0).data;
  p.absmax = read_absmax(args.out_optional(1));
  p.normalizer = read_normalizer(args, 0);
  return p;
}

}  // namespace gsa::layer_inputs
