#include <algorithm>
#include <cstring>

#include "../../cpu/parallel.h"
#include "params.h"

namespace gsa::cpu {

namespace {

constexpr int64_t kRowGrain = 32;
constexpr int64_t kColumnGrain = 16;

void expect_float32(const lookup::Embedding& p) {
  if (p.dtype != GSA_FLOAT32)
    fail(GSA_UNSUPPORTED, "Expected a float32 gradient on the CPU but received %s; convert it first",
         dtype_name(p.dtype));
}

}  // namespace

void embedding_fwd(gsa_device&, const Args& args) {
  const lookup::Embedding p = lookup::read_embedding_fwd(args);
  lookup::check_ids(p);
  const size_t row_bytes = static_cast<size_t>(p.width * dtype_bytes(p.dtype));
  const char* weight = static_cast<const char*>(args.in(0).data);
  char* y = static_cast<char*>(args.out(0).data);
  if (row_bytes == 0) return;
  parallel_for(p.n, kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      std::memcpy(y + static_cast<size_t>(i) * row_bytes, weight + static_cast<size_t>(p.ids[i]) * row_bytes,
                  row_bytes);
  });
}

// Each thread owns a range of columns and adds the rows in order: deterministic, and no two threads meet.
void embedding_bwd(gsa_device&, const Args& args) {
  const lookup::Embedding p = lookup::read_embedding_bwd(args);
  expect_float32(p);
  lookup::check_ids(p);
  const float* dy = static_cast<const float*>(args.in(0).data);
  float* dweight = static_cast<float*>(args.out(0).data);
  parallel_for(p.vocabulary, kRowGrain, [&](int64_t begin, int64_t end) {
    std::fill(dweight + begin * p.width, dweight + end * p.width, 0.0f);
  });
  parallel_for(p.width, kColumnGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = 0; i < p.n; ++i)
      for (int64_t j = begin; j < end; ++j) dweight[p.ids[i] * p.width + j] += dy[i * p.width + j];
  });
}

}  // namespace gsa::cpu
