#include <algorithm>
#include <cstring>
#include <limits>

#include "../../cpu/parallel.h"
#include "chunks_cpu.h"
#include "recurrent_cpu.h"

#define GSA_SIMD_FILE "../../ops/gsa/recurrent.inl"
#include "../../cpu/simd/foreach_isa.h"

namespace gsa::cpu {
namespace {

using slot_attention::Recurrent;
using slot_attention::RowRange;

// Columns of a state that one thread steps when there are fewer (sequence, head) pairs than threads. Columns
// do not mix, and the width is a multiple of what the kernel takes at once, so that the split changes no bit.
constexpr int64_t kColumns = 64;

struct Split {
  int64_t width, parts;
};
Split split_columns(const Dims& d, int64_t columns) {
  const int64_t width = d.N * d.H < thread_count() ? std::min(columns, kColumns) : columns;
  return {width, (columns + width - 1) / width};
}

void copy_columns(const float* from, float* to, int64_t rows, int64_t columns, int64_t begin, int64_t end) {
  if (from == to) return;
  for (int64_t i = 0; i < rows; ++i, to += columns) {
    const size_t bytes = static_cast<size_t>(end - begin) * sizeof(float);
    if (from)
      std::memcpy(to + begin, from + i * columns + begin, bytes);
    else
      std::memset(to + begin, 0, bytes);
  }
}

// Runs all steps of all sequences on one of the two states. step_at(row, h) fills what depends on the token.
template <typename StepAt>
void step_states(const Recurrent& p, int64_t rows, int64_t columns, const float* from, float* to,
                 StepAt step_at) {
  static const auto kernel = GSA_SIMD_SELECT(state_step);
  const Dims& d = p.dims;
  const Split split = split_columns(d, columns);
  parallel_for(d.N * d.H * split.parts, 1, [&](int64_t task, int64_t last) {
    for (; task < last; ++task) {
      const int64_t state = task / split.parts, n = state / d.H, h = state % d.H;
      const RowRange tokens = slot_attention::sequence_rows(d, p.in.cu_seqlens, n);
      const float* old = from ? from + state * rows * columns : nullptr;
      float* now = to + state * rows * columns;
      const int64_t begin = task % split.parts * split.width, end = std::min(columns, begin + split.width);
      if (tokens.begin == tokens.end) copy_columns(old, now, rows, columns, begin, end);
      for (int64_t row = tokens.begin; row < tokens.end; ++row, old = now) {
        StateStep s = step_at(row, h);
        s.rows = rows;
        s.columns = columns;
        s.begin = begin;
        s.end = end;
        s.from = old;
        s.to = now;
        s.readers = d.group();
        kernel(s);
      }
    }
  });
}

}  // namespace

void gsa_recurrent(gsa_device& device, const Args& args) {
  expect_float32(args);
  const Recurrent p = slot_attention::read_recurrent(args, GSA_FLOAT32);
  const Dims& d = p.dims;
  if (p.in.cu_seqlens) slot_attention::check_cu_seqlens(p.in.cu_seqlens, d);
  const float *q = static_cast<const float*>(p.in.q), *k = static_cast<const float*>(p.in.k);
  const float* v = static_cast<const float*>(p.in.v);
  float* o = static_cast<float*>(p.o);
  const int64_t tokens = d.B * d.T;
  const Scratch<float> decay(device, tokens * d.H * d.M), logits(device, tokens * d.HQ * d.M);

  static const auto exp_kernel = GSA_SIMD_SELECT(exp_range);
  static const auto softmax_kernel = GSA_SIMD_SELECT(softmax_range);
  parallel_for(tokens * d.H, std::max<int64_t>(1, 8192 / d.M), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) exp_kernel(p.in.g + i * d.M, decay.data() + i * d.M, d.M);
  });
  step_states(p, d.K, d.M, p.in.hk0, p.hk_out, [&](int64_t row, int64_t h) {
    const int64_t at = row * d.H + h, q_at = row * d.HQ + h * d.group();
    StateStep s{};
    s.decay_by_column = true;
    s.decay = decay.data() + at * d.M;
    s.row_write = k + at * d.K;
    s.column_write = p.in.s + at * d.M;
    s.read = q + q_at * d.K;
    s.out = logits.data() + q_at * d.M;
    s.scale = p.in.scale;
    return s;
  });
  parallel_for(tokens * d.HQ, std::max<int64_t>(1, 4096 / d.M), [&](int64_t begin, int64_t end) {
    softmax_kernel(logits.data() + begin * d.M, end - begin, d.M);
  });
  step_states(p, d.M, d.V, p.in.hv0, p.hv_out, [&](int64_t row, int64_t h) {
    const int64_t at = row * d.H + h, q_at = row * d.HQ + h * d.group();
    StateStep s{};
    s.decay = decay.data() + at * d.M;
    s.row_write = p.in.s + at * d.M;
    s.column_write = v + at * d.V;
    s.read = logits.data() + q_at * d.M;
    s.out = o + q_at * d.V;
    s.scale = 1.0f;
    return s;
  });
}

}  // namespace gsa::cpu
