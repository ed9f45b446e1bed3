#include <cmath>
#include <vector>

#include "../../cpu/parallel.h"
#include "params.h"

namespace gsa::cpu {

namespace {

constexpr int64_t kPositionGrain = 4;

void rotate(const float* x, float* y, const float* cosine, const float* sine, int64_t half) {
  for (int64_t i = 0; i < half; ++i) {
    const float a = x[i], b = x[i + half];
    y[i] = a * cosine[i] - b * sine[i];
    y[i + half] = b * cosine[i] + a * sine[i];
  }
}

}  // namespace

void rotary(gsa_device&, const Args& args) {
  const rotation::Rotary p = rotation::read_rotary(args);
  if (p.dtype != GSA_FLOAT32)
    fail(GSA_UNSUPPORTED, "Expected a float32 tensor on the CPU but received %s; convert it first",
         dtype_name(p.dtype));
  const int64_t half = p.D / 2;
  // By positions: the angles of one serve every sequence and head.
  parallel_for(p.T, kPositionGrain, [&](int64_t begin, int64_t end) {
    std::vector<float> cosine(static_cast<size_t>(half)), sine(static_cast<size_t>(half));
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t i = 0; i < half; ++i) {
        const double angle = p.angle(t, i);  // in double: at position 100,000 a float angle is off by 1e-2
        cosine[static_cast<size_t>(i)] = static_cast<float>(std::cos(angle));
        sine[static_cast<size_t>(i)] = static_cast<float>(std::sin(angle));
      }
      for (int64_t b = 0; b < p.B; ++b)
        for (int64_t h = 0; h < p.H; ++h) {
          const int64_t row = ((b * p.T + t) * p.H + h) * p.D;
          rotate(static_cast<const float*>(p.x) + row, static_cast<float*>(p.y) + row, cosine.data(),
                 sine.data(), half);
        }
    }
  });
}

}  // namespace gsa::cpu
