// The largest magnitude of a matrix: what an op notes beside its output for 8-bit copies of it.
#pragma once

#include <cmath>
#include <cstdint>
#include <mutex>

#include "parallel.h"

namespace gsa::cpu {

// Of `rows` runs of `columns` elements, `stride` apart. NaN does not count; 0 for nothing. The order of the
// comparisons makes no difference.
inline float absmax_of(const float* x, int64_t rows, int64_t columns, int64_t stride) {
  constexpr int64_t kGrain = 16384;  // elements that are worth a thread
  float largest = 0;
  std::mutex mutex;
  for (int64_t row = 0; row < rows; ++row, x += stride)
    parallel_for(columns, kGrain, [&](int64_t begin, int64_t end) {
      float mine = 0;
      for (int64_t i = begin; i < end; ++i) {
        const float size = std::fabs(x[i]);
        if (size > mine) mine = size;
      }
      const std::lock_guard<std::mutex> lock(mutex);
      if (mine > largest) largest = mine;
    });
  return largest;
}

}  // namespace gsa::cpu
