#include "../../cpu/parallel.h"
#include "params.h"

namespace gsa::cpu {

constexpr int64_t kScaleGrain = 16384;  // elements that are worth a thread

void scale_by(gsa_device&, const Args& args) {
  const scaling::ScaleBy p = scaling::read_scale_by(args);
  if (p.dtype != GSA_FLOAT32)
    fail(GSA_UNSUPPORTED, "Expected a float32 tensor on the CPU but received %s; convert it first",
         dtype_name(p.dtype));
  const float factor = *p.factor;
  const float* x = static_cast<const float*>(p.x);
  float* y = static_cast<float*>(p.y);
  parallel_for(p.n, kScaleGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) y[i] = factor * x[i];
  });
}

}  // namespace gsa::cpu
