// What the host code of every backend uses to read and check the arguments of an op: C++ over gsa_abi.h, no
// backend in it. Ops are `void op(gsa_device&, const Args&)` and throw OpError; guard() is the only way
// into them from the C table, so that no exception crosses the ABI.
#pragma once

#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <initializer_list>
#include <new>
#include <string>

#include "gsa_abi.h"

namespace gsa {

class OpError : public std::exception {
 public:
  OpError(gsa_status status, std::string message) : status_(status), message_(std::move(message)) {}
  gsa_status status() const { return status_; }
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  gsa_status status_;
  std::string message_;
};

// fail(GSA_INVALID_ARGUMENT, "Expected %s but received %d", ...): printf-style, throws OpError.
[[noreturn]] __attribute__((format(printf, 2, 3))) inline void fail(gsa_status status, const char* format,
                                                                    ...) {
  char text[GSA_MAX_MESSAGE];
  va_list list;
  va_start(list, format);
  std::vsnprintf(text, sizeof text, format, list);
  va_end(list);
  throw OpError(status, text);
}

inline const char* dtype_name(int32_t dtype) {
  static const char* const names[] = {"float32",     "bfloat16",    "int32", "int64",
                                      "float8_e4m3", "float8_e5m2", "int16"};
  return dtype >= 0 && dtype < 7 ? names[dtype] : "an unknown dtype";
}

inline bool is_float8(int32_t dtype) { return dtype == GSA_FLOAT8_E4M3 || dtype == GSA_FLOAT8_E5M2; }

inline int64_t dtype_bytes(int32_t dtype) {
  return is_float8(dtype) ? 1 : dtype == GSA_BFLOAT16 || dtype == GSA_INT16 ? 2 : dtype == GSA_INT64 ? 8 : 4;
}

inline int64_t element_count(const gsa_tensor& t) {
  int64_t n = 1;
  for (int32_t i = 0; i < t.ndim; ++i) n *= t.shape[i];
  return n;
}

inline bool is_contiguous(const gsa_tensor& t) {
  if (element_count(t) == 0) return true;  // strides over nothing mean nothing
  int64_t expected = 1;
  for (int32_t i = t.ndim - 1; i >= 0; --i) {
    if (t.shape[i] != 1 && t.strides[i] != expected) return false;
    expected *= t.shape[i];
  }
  return true;
}

inline std::string shape_text(const gsa_tensor& t) {
  std::string s = "[";
  for (int32_t i = 0; i < t.ndim; ++i) s += (i ? ", " : "") + std::to_string(t.shape[i]);
  return s + "]";
}

// The checks say "Expected <what> for <name> but received <what>".
inline void expect_dtype(const gsa_tensor& t, int32_t dtype, const char* name) {
  if (t.dtype != dtype)
    fail(GSA_INVALID_ARGUMENT, "Expected %s for %s but received %s", dtype_name(dtype), name,
         dtype_name(t.dtype));
}

inline void expect_floating(const gsa_tensor& t, const char* name) {
  if (t.dtype != GSA_FLOAT32 && t.dtype != GSA_BFLOAT16)
    fail(GSA_INVALID_ARGUMENT, "Expected float32 or bfloat16 for %s but received %s", name,
         dtype_name(t.dtype));
}

inline void expect_contiguous(const gsa_tensor& t, const char* name) {
  if (!is_contiguous(t))
    fail(GSA_INVALID_ARGUMENT,
         "Expected a contiguous tensor for %s but received a strided view; copy it first", name);
}

inline void expect_ndim(const gsa_tensor& t, int32_t ndim, const char* name) {
  if (t.ndim != ndim)
    fail(GSA_INVALID_ARGUMENT, "Expected %d dimensions for %s but received %s", ndim, name,
         shape_text(t).c_str());
}

inline void expect_shape(const gsa_tensor& t, std::initializer_list<int64_t> shape, const char* name) {
  bool same = t.ndim == static_cast<int32_t>(shape.size());
  if (same) {
    int32_t i = 0;
    for (int64_t extent : shape) same = same && t.shape[i++] == extent;
  }
  if (same) return;
  std::string wanted = "[";
  for (int64_t extent : shape) wanted += (wanted.size() > 1 ? ", " : "") + std::to_string(extent);
  fail(GSA_INVALID_ARGUMENT, "Expected shape %s] for %s but received %s", wanted.c_str(), name,
       shape_text(t).c_str());
}

inline void expect_same_shape(const gsa_tensor& t, const gsa_tensor& like, const char* name) {
  bool same = t.ndim == like.ndim;
  for (int32_t i = 0; same && i < t.ndim; ++i) same = t.shape[i] == like.shape[i];
  if (!same)
    fail(GSA_INVALID_ARGUMENT, "Expected shape %s for %s but received %s", shape_text(like).c_str(), name,
         shape_text(t).c_str());
}

// What is added to a product as it is stored: laid out as the result is.
inline void expect_addend(const gsa_tensor& t, const gsa_tensor& c, double beta) {
  expect_dtype(t, c.dtype, "addend");
  expect_same_shape(t, c, "addend");
  for (int32_t d = 0; d < c.ndim; ++d)
    if (c.shape[d] > 1 && t.strides[d] != c.strides[d])
      fail(GSA_INVALID_ARGUMENT, "Expected the layout of c for addend; copy it first");
  if (beta != 0) fail(GSA_INVALID_ARGUMENT, "Expected 0 for beta beside an addend but received %g", beta);
}

// dtype, shape and contiguity in one: what almost every op asks of almost every tensor.
inline void expect_dense(const gsa_tensor& t, int32_t dtype, std::initializer_list<int64_t> shape,
                         const char* name) {
  expect_dtype(t, dtype, name);
  expect_shape(t, shape, name);
  expect_contiguous(t, name);
}

// Sequence boundaries along `tokens` joined tokens: n + 1 numbers from 0 to tokens that do not decrease (a
// sequence may be empty). For who can read them: on a GPU they are in device memory.
inline void check_cu_seqlens(const int32_t* boundaries, int64_t n, int64_t tokens) {
  if (boundaries[0] != 0)
    fail(GSA_INVALID_ARGUMENT, "Expected cu_seqlens to start with 0 but received %d", boundaries[0]);
  for (int64_t i = 0; i < n; ++i)
    if (boundaries[i + 1] < boundaries[i])
      fail(GSA_INVALID_ARGUMENT, "Expected cu_seqlens not to decrease but received %d after %d at index %lld",
           boundaries[i + 1], boundaries[i], static_cast<long long>(i + 1));
  if (boundaries[n] != tokens)
    fail(GSA_INVALID_ARGUMENT, "Expected cu_seqlens to end with T = %lld but received %d",
         static_cast<long long>(tokens), boundaries[n]);
}

class Args {
 public:
  explicit Args(const gsa_args& raw) : raw_(raw) {}
  // Counts were checked against ops.def by the addon; a required tensor is never NULL.
  const gsa_tensor& in(int i) const { return *raw_.in[i]; }
  const gsa_tensor& out(int i) const { return *raw_.out[i]; }
  const gsa_tensor* in_optional(int i) const { return raw_.in[i]; }
  const gsa_tensor* out_optional(int i) const { return raw_.out[i]; }
  double attr(int i) const { return raw_.attr[i]; }
  const char* op() const { return raw_.op; }
  // All tensors that are there.
  template <typename Body>
  void for_each(Body&& body) const {
    for (int i = 0; i < raw_.n_in; ++i)
      if (raw_.in[i]) body(*raw_.in[i]);
    for (int i = 0; i < raw_.n_out; ++i)
      if (raw_.out[i]) body(*raw_.out[i]);
  }
  int n_in() const { return raw_.n_in; }
  int n_out() const { return raw_.n_out; }

 private:
  const gsa_args& raw_;
};

template <typename T>
inline T* data_or_null(const gsa_tensor* t) {
  return t ? static_cast<T*>(t->data) : nullptr;
}

inline gsa_status report(gsa_error* error, gsa_status status, const char* message) {
  if (error) std::snprintf(error->message, sizeof error->message, "%s", message);
  return status;
}

// Runs `body` and turns whatever it throws into a status.
template <typename Body>
inline gsa_status guard(gsa_error* error, Body&& body) noexcept {
  try {
    body();
    return GSA_OK;
  } catch (const OpError& e) {
    return report(error, e.status(), e.what());
  } catch (const std::bad_alloc&) {
    return report(error, GSA_OUT_OF_MEMORY, "The host has no memory left for the scratch space of this call");
  } catch (const std::exception& e) {
    return report(error, GSA_INTERNAL, e.what());
  } catch (...) {
    return report(error, GSA_INTERNAL, "An unknown exception was thrown");
  }
}

// A tensor of one float32.
inline float* read_one(const gsa_tensor& t, const char* name) {
  expect_dtype(t, GSA_FLOAT32, name);
  if (element_count(t) != 1)
    fail(GSA_INVALID_ARGUMENT, "Expected one element for %s but received shape %s", name,
         shape_text(t).c_str());
  return static_cast<float*>(t.data);
}
// An optional output: the largest magnitude of what the op writes beside it.
inline float* read_absmax(const gsa_tensor* t) { return t ? read_one(*t, "absmax") : nullptr; }
// A divisor, attribute `at`.
inline float read_normalizer(const Args& args, int at) {
  const double normalizer = args.attr(at);
  if (!(std::isfinite(normalizer) && normalizer > 0.0))
    fail(GSA_INVALID_ARGUMENT, "Expected a positive finite number for normalizer but received %g",
         normalizer);
  return static_cast<float>(normalizer);
}

using Op = void (*)(gsa_device&, const Args&);

}  // namespace gsa
