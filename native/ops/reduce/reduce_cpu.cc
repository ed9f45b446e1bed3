#include <algorithm>
#include <vector>

#include "../../cpu/parallel.h"
#include "params.h"

#define GSA_SIMD_FILE "../../ops/reduce/reduce.inl"
#include "../../cpu/simd/foreach_isa.h"

namespace gsa::cpu {

namespace {

// Partial sums are of fixed blocks, so that no result depends on the thread count.
constexpr int64_t kBlock = 16384;
constexpr int64_t kColumnBlock = 64;

const float* float32_data(int32_t dtype, const void* data) {
  if (dtype != GSA_FLOAT32)
    fail(GSA_UNSUPPORTED, "Expected float32 tensors on the CPU but received %s; convert them first",
         dtype_name(dtype));
  return static_cast<const float*>(data);
}

using BlockSum = double (*)(const float*, int64_t);

void sum_parts(const reduction::Sum& p, BlockSum kernel) {
  double total = 0;
  std::vector<double> partial;
  for (const reduction::Part& part : p.parts) {
    const float* x = float32_data(part.dtype, part.x);
    partial.resize(static_cast<size_t>((part.n + kBlock - 1) / kBlock));
    parallel_for(static_cast<int64_t>(partial.size()), 1, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b)
        partial[static_cast<size_t>(b)] = kernel(x + b * kBlock, std::min(kBlock, part.n - b * kBlock));
    });
    for (double value : partial) total += value;
  }
  *p.y = static_cast<float>(total);
}

}  // namespace

void sum(gsa_device&, const Args& args) {
  static const auto kernel = GSA_SIMD_SELECT(sum_block<false>);
  sum_parts(reduction::read_sum(args), kernel);
}

void sum_squares(gsa_device&, const Args& args) {
  static const auto kernel = GSA_SIMD_SELECT(sum_block<true>);
  sum_parts(reduction::read_sum(args), kernel);
}

void column_sum(gsa_device&, const Args& args) {
  static const auto kernel = GSA_SIMD_SELECT(column_sum_block);
  const reduction::ColumnSum p = reduction::read_column_sum(args);
  const float* x = float32_data(p.dtype, p.x);
  float* y = static_cast<float*>(p.y);
  parallel_for((p.C + kColumnBlock - 1) / kColumnBlock, 1, [&](int64_t begin, int64_t end) {
    double sums[kColumnBlock];
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * kColumnBlock, columns = std::min(kColumnBlock, p.C - first);
      kernel(x + first, p.R, p.C, columns, sums);
      for (int64_t j = 0; j < columns; ++j)
        y[first + j] =
            static_cast<float>(sums[j] + (p.beta == 0.0f ? 0.0 : static_cast<double>(p.beta) * y[first + j]));
    }
  });
}

void argmax(gsa_device&, const Args& args) {
  const reduction::ArgMax p = reduction::read_argmax(args);
  const float* x = float32_data(p.dtype, p.x);
  parallel_for(p.R, 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* row = x + r * p.C;
      int64_t best = 0;
      for (int64_t c = 1; c < p.C && row[best] == row[best]; ++c)
        if (!(row[c] <= row[best])) best = c;  // NaN too, and then the loop ends
      p.index[r] = static_cast<int32_t>(best);
      p.value[r] = row[best];
    }
  });
}

}  // namespace gsa::cpu
