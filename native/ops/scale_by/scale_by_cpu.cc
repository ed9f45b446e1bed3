#include "../../cpu/parallel.h"
#include "params.h"

namespace gsa::cpu {

constexpr int64_t kScaleGrain = 16384;  // elements that are worth a thread

void scale_by(gsa_device&, const Args& args) {
  const scaling::ScaleBy p = scaling::read_scale_by(args);
  const float factor = *p.factor;
  parallel_for(p.n, kScaleGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) p.y[i] = factor * p.x[i];
  });
}

}  // namespace gsa::cpu
