#include <algorithm>
#include <cmath>
#include <limits>

#include "../../cpu/bfloat16.h"
#include "../../cpu/parallel.h"
#include "master.h"
#include "params.h"

#define GSA_SIMD_FILE "../../ops/optimizer/optimizer.inl"
#include "../../cpu/simd/foreach_isa.h"

namespace gsa::cpu {

namespace {

constexpr int64_t kBlock = 16384;  // elements of one piece of work; a multiple of every vector width

void update(const optimizer::AdamW& p, const optimizer::AdamWTensor& t, int64_t begin, int64_t n,
            float scale) {
  static const auto kernel = GSA_SIMD_SELECT(adamw_range);
  static const auto join = GSA_SIMD_SELECT(join_range);
  static const auto split = GSA_SIMD_SELECT(split_range);
  thread_local float widened[kBlock], masters[kBlock];
  const float* grad = static_cast<const float*>(t.grad) + begin;
  if (t.grad_dtype == GSA_BFLOAT16) {
    for (int64_t i = 0; i < n; ++i) widened[i] = widen(static_cast<const BFloat16*>(t.grad)[begin + i]);
    grad = widened;
  }
  float *m = t.m + begin, *v = t.v + begin;
  if (!t.remainder) return kernel(grad, static_cast<float*>(t.param) + begin, m, v, n, scale, p.rates);
  uint16_t* weights = static_cast<uint16_t*>(t.param) + begin;
  join(weights, t.remainder + begin, v, masters, n);
  kernel(grad, masters, m, v, n, scale, p.rates);
  split(masters, weights, t.remainder + begin, v, n);
}

void read_state(const optimizer::AdamWState& s, int64_t begin, int64_t n) {
  static const auto join = GSA_SIMD_SELECT(join_range);
  thread_local float masters[kBlock], moments[kBlock];
  float* clean = s.exp_avg_sq ? s.exp_avg_sq + begin : moments;
  std::copy_n(s.v + begin, n, clean);
  join(s.param + begin, s.remainder + begin, clean, s.master ? s.master + begin : masters, n);
}

void write_state(const optimizer::AdamWState& s, int64_t begin, int64_t n) {
  static const auto split = GSA_SIMD_SELECT(split_range);
  float* v = s.v + begin;
  if (s.exp_avg_sq)
    for (int64_t i = 0; i < n; ++i) v[i] = std::copysign(s.exp_avg_sq[begin + i], v[i]);
  if (s.master) split(s.master + begin, s.param + begin, s.remainder + begin, v, n);
}

// body(begin, n) for every piece of `total` elements.
template <typename Body>
void for_blocks(int64_t total, const Body& body) {
  parallel_for((total + kBlock - 1) / kBlock, 1, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block)
      body(block * kBlock, std::min(kBlock, total - block * kBlock));
  });
}

}  // namespace

void clip_scale(gsa_device&, const Args& args) {
  const optimizer::ClipScale p = optimizer::read_clip_scale(args);
  const float norm = p.grad_scale * std::sqrt(*p.sum_squares);
  const bool clips = p.max_norm > 0 && std::isfinite(p.max_norm);
  *p.norm = norm;
  *p.scale = !std::isfinite(norm) ? std::numeric_limits<float>::quiet_NaN()
             : clips              ? p.grad_scale * std::min(1.0f, p.max_norm / (norm + 1e-6f))
                                  : p.grad_scale;
}

void adamw(gsa_device&, const Args& args) {
  const optimizer::AdamW p = optimizer::read_adamw(args);
  const float scale = p.scale ? *p.scale : 1.0f;
  if (!std::isfinite(scale)) return;
  for (const optimizer::AdamWTensor& t : p.tensors)
    for_blocks(t.n, [&](int64_t begin, int64_t n) { update(p, t, begin, n, scale); });
}

void adamw_state_read(gsa_device&, const Args& args) {
  const optimizer::AdamWState s = optimizer::read_adamw_state_read(args);
  for_blocks(s.n, [&](int64_t begin, int64_t n) { read_state(s, begin, n); });
}

void adamw_state_write(gsa_device&, const Args& args) {
  const optimizer::AdamWState s = optimizer::read_adamw_state_write(args);
  for_blocks(s.n, [&](int64_t begin, int64_t n) { write_state(s, begin, n); });
}

}  // namespace gsa::cpu
