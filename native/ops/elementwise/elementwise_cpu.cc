#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "../../cpu/bfloat16.h"
#include "../../cpu/parallel.h"
#include "params.h"
#include "philox.h"

#define GSA_SIMD_FILE "../../ops/elementwise/elementwise.inl"
#include "../../cpu/simd/foreach_isa.h"

namespace gsa::cpu {

namespace {

using namespace gsa::elementwise;

constexpr int64_t kGrain = 16384;  // elements that are worth a thread

template <typename To, typename From>
To convert(From x) {
  if constexpr (std::is_same_v<To, From>) {
    return x;
  } else if constexpr (std::is_same_v<From, BFloat16>) {
    return convert<To>(widen(x));
  } else if constexpr (std::is_same_v<To, BFloat16>) {
    return narrow(static_cast<float>(x));
  } else if constexpr (std::is_floating_point_v<From> && std::is_integral_v<To>) {
    if (x != x) return 0;
    // The largest integer is not a float: the smallest float above it is the bound.
    constexpr From kEnd = static_cast<From>(std::numeric_limits<To>::max());
    if (x >= kEnd) return std::numeric_limits<To>::max();
    if (x <= static_cast<From>(std::numeric_limits<To>::min())) return std::numeric_limits<To>::min();
    return static_cast<To>(x);
  } else if constexpr (std::is_integral_v<From> && std::is_integral_v<To> && sizeof(From) > sizeof(To)) {
    if (x > std::numeric_limits<To>::max()) return std::numeric_limits<To>::max();
    if (x < std::numeric_limits<To>::min()) return std::numeric_limits<To>::min();
    return static_cast<To>(x);
  } else {
    return static_cast<To>(x);
  }
}

// Calls body(T{}) with the C++ type of a dtype.
template <typename Body>
void with_type(int32_t dtype, Body&& body) {
  switch (dtype) {
    case GSA_FLOAT32:
      return body(float{});
    case GSA_BFLOAT16:
      return body(BFloat16{});
    case GSA_INT16:
      return body(int16_t{});
    case GSA_INT32:
      return body(int32_t{});
    case GSA_INT64:
      return body(int64_t{});
    default:
      fail(GSA_INVALID_ARGUMENT, "Expected a known dtype but received number %d", dtype);
  }
}

// Converts elements begin .. end of a strided view, taken in row-major order, by runs along its last
// dimension.
template <typename From, typename To>
void convert_view(const gsa_tensor& x, int64_t begin, int64_t end, To* y) {
  const From* data = static_cast<const From*>(x.data);
  const int32_t last = x.ndim - 1;
  int64_t index[GSA_MAX_DIMS] = {};
  int64_t offset = 0;
  for (int64_t d = last, rest = begin; d >= 0; --d) {
    index[d] = rest % x.shape[d];
    rest /= x.shape[d];
    offset += index[d] * x.strides[d];
  }
  const int64_t stride = x.strides[last];
  for (int64_t i = begin; i < end;) {
    const int64_t run = std::min(x.shape[last] - index[last], end - i);
    const From* from = data + offset;
    if (stride == 1)
      for (int64_t j = 0; j < run; ++j) y[i + j] = convert<To>(from[j]);
    else
      for (int64_t j = 0; j < run; ++j) y[i + j] = convert<To>(from[j * stride]);
    i += run;
    offset -= index[last] * stride;
    index[last] = 0;
    for (int64_t d = last - 1; d >= 0; --d) {
      offset += x.strides[d];
      if (++index[d] < x.shape[d]) break;
      offset -= index[d] * x.strides[d];
      index[d] = 0;
    }
  }
}

void add_bfloat16(const Add& p) {
  const auto* a = static_cast<const BFloat16*>(p.a);
  const auto* b = static_cast<const BFloat16*>(p.b);
  auto* y = static_cast<BFloat16*>(p.y);
  parallel_for(p.n, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      y[i] = narrow(p.alpha * widen(a[i]) + (b ? p.beta * widen(b[i]) : 0.0f));
  });
}

}  // namespace

void fill(gsa_device&, const Args& args) {
  const Fill p = read_fill(args);
  with_type(p.dtype, [&](auto type) {
    using T = decltype(type);
    const T value = convert<T>(p.value);
    parallel_for(p.n, kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) static_cast<T*>(p.y)[i] = value;
    });
  });
}

void cast(gsa_device&, const Args& args) {
  const Cast p = read_cast(args);
  const bool dense = is_contiguous(p.x);
  with_type(p.x.dtype, [&](auto from) {
    with_type(p.y_dtype, [&](auto to) {
      using From = decltype(from);
      using To = decltype(to);
      const From* x = static_cast<const From*>(p.x.data);
      To* y = static_cast<To*>(p.y);
      parallel_for(p.n, kGrain, [&](int64_t begin, int64_t end) {
        if (!dense) return convert_view<From>(p.x, begin, end, y);
        for (int64_t i = begin; i < end; ++i) y[i] = convert<To>(x[i]);
      });
    });
  });
}

void add(gsa_device&, const Args& args) {
  static const auto kernel = GSA_SIMD_SELECT(add_range);
  static const auto scale_kernel = GSA_SIMD_SELECT(scale_range);
  const Add p = read_add(args);
  if (p.dtype == GSA_BFLOAT16) return add_bfloat16(p);
  const auto* a = static_cast<const float*>(p.a);
  const auto* b = static_cast<const float*>(p.b);
  auto* y = static_cast<float*>(p.y);
  parallel_for(p.n, kGrain, [&](int64_t begin, int64_t end) {
    if (b)
      kernel(a + begin, b + begin, y + begin, end - begin, p.alpha, p.beta);
    else
      scale_kernel(a + begin, y + begin, end - begin, p.alpha);
  });
}

void random_normal(gsa_device&, const Args& args) {
  const RandomNormal p = read_random_normal(args);
  const int64_t quads = (p.n + 3) / 4;  // one counter gives four numbers
  parallel_for(quads, kGrain / 16, [&](int64_t begin, int64_t end) {
    for (int64_t q = begin; q < end; ++q) {
      const Words w = philox(static_cast<uint64_t>(q), p.stream, p.seed);
      float z[4];
      box_muller(w.x[0], w.x[1], &z[0], &z[1]);
      box_muller(w.x[2], w.x[3], &z[2], &z[3]);
      for (int64_t i = 0; i < 4 && q * 4 + i < p.n; ++i) {
        const float value = p.mean + p.std * z[i];
        if (p.dtype == GSA_FLOAT32)
          static_cast<float*>(p.y)[q * 4 + i] = value;
        else
          static_cast<BFloat16*>(p.y)[q * 4 + i] = narrow(value);
      }
    }
  });
}

}  // namespace gsa::cpu
