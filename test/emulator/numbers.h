// Tensors for emulated ops that take any dtype.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "native/cuda/kernel.cuh"

// A tensor in the kernel's dtype, one guard of NaN before and after it, and the same numbers in double.
template <typename T>
struct Numbers {
  std::vector<int64_t> shape;
  size_t n = 1;
  std::vector<T> memory;
  T* at;
  std::vector<double> exact;
  gsa_tensor tensor{};

  Numbers(std::vector<int64_t> extents, int32_t dtype, size_t shift = 0) : shape(std::move(extents)) {
    for (const int64_t extent : shape) n *= static_cast<size_t>(extent);
    memory.assign(n + 32, gsa::cuda::from_float<T>(NAN));
    const size_t start = (16 - reinterpret_cast<uintptr_t>(memory.data()) % 16) % 16 / sizeof(T);
    at = memory.data() + start + shift;
    exact.assign(n, 0.0);
    tensor.data = at;
    tensor.dtype = dtype;
    tensor.ndim = static_cast<int32_t>(shape.size());
    int64_t stride = 1;
    for (size_t i = shape.size(); i-- > 0; stride *= shape[i]) {
      tensor.shape[i] = shape[i];
      tensor.strides[i] = stride;
    }
  }
  template <typename Draw>
  Numbers& fill(Draw draw) {
    for (size_t i = 0; i < n; ++i) {
      at[i] = gsa::cuda::from_float<T>(static_cast<float>(draw()));
      exact[i] = gsa::cuda::to_float(at[i]);
    }
    return *this;
  }
  // Distance of what was computed from `exact`, relative to it; NaN where something was not written, or
  // where something else was.
  double error() const {
    double distance = 0, size = 1e-30;
    for (size_t i = 0; i < n; ++i) {
      distance += std::pow(gsa::cuda::to_float(at[i]) - exact[i], 2);
      size += exact[i] * exact[i];
    }
    for (const T* p = memory.data(); p < memory.data() + memory.size(); ++p)
      if ((p < at || p >= at + n) && !std::isnan(gsa::cuda::to_float(*p))) return NAN;
    return std::sqrt(distance / size);
  }
};
