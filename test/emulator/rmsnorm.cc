// RMSNorm's kernels of whole 16-byte vectors, emulated, against the definition in float64. One line a case;
// exits with 1 where an error is past the bound.
#include <random>

#include "native/ops/rmsnorm/rows_sm90.cuh"
#include "numbers.h"

namespace {

using namespace gsa;

struct Case {
  std::string name;
  int64_t R, D;
  bool residual, silu;
  int processors;  // few: a block has many rows
  bool weight = true;
};

template <typename T>
bool run(const Case& c, int32_t dtype, double bound) {
  std::mt19937 random(5);
  std::normal_distribution<double> normal;
  const auto draw = [&] { return normal(random); };
  const std::vector<int64_t> rows{c.R, c.D};
  Numbers<T> x(rows, dtype), added(rows, dtype), y(rows, dtype), h(rows, dtype), dy(rows, dtype),
      dh(rows, dtype), dx(rows, dtype);
  Numbers<float> weight({c.D}, GSA_FLOAT32), dweight({c.D}, GSA_FLOAT32), rstd({c.R}, GSA_FLOAT32);
  x.fill(draw), added.fill(draw), dy.fill(draw), dh.fill(draw), weight.fill(draw);
  float absmax[2] = {0, 0};
  gsa_device device;
  device.multiprocessors = c.processors;

  norm::RmsNormFwd f{};
  f.R = c.R, f.D = c.D, f.dtype = dtype, f.eps = 1e-5f, f.silu = c.silu;
  f.x = x.at, f.residual = c.residual ? added.at : nullptr, f.weight = c.weight ? weight.at : nullptr;
  f.y = y.at, f.h = c.residual ? h.at : nullptr, f.rstd = rstd.at, f.absmax = absmax;
  bool took = cuda::norm_rows::forward<T>(device, f);
  norm::RmsNormBwd b{};
  b.R = c.R, b.D = c.D, b.dtype = dtype, b.silu = c.silu;
  b.dy = dy.at, b.dh = c.residual ? dh.at : nullptr, b.h = c.residual ? h.at : x.at, b.weight = f.weight;
  b.rstd = rstd.at, b.dx = dx.at, b.dweight = c.weight ? dweight.at : nullptr, b.absmax = absmax + 1;
  took &= cuda::norm_rows::backward<T>(device, b);

  double largest[2] = {0, 0};
  for (int64_t r = 0; r < c.R; ++r) {
    double squares = 0, dot = 0;
    const auto at = [&](int64_t d) { return static_cast<size_t>(r * c.D + d); };
    const auto weigh = [&](int64_t d) { return c.weight ? weight.exact[d] : 1.0; };
    // What is normalised is the rounded sum, as it was written.
    for (int64_t d = 0; d < c.D; ++d) {
      h.exact[at(d)] = c.residual ? x.exact[at(d)] + added.exact[at(d)] : x.exact[at(d)];
      const double v = c.residual ? cuda::to_float(h.at[at(d)]) : x.exact[at(d)];
      const double a = c.silu ? v / (1 + std::exp(-v)) : v;
      squares += a * a;
    }
    rstd.exact[r] = 1 / std::sqrt(squares / c.D + f.eps);
    for (int pass = 0; pass < 2; ++pass)
      for (int64_t d = 0; d < c.D; ++d) {
        const double v = c.residual ? cuda::to_float(h.at[at(d)]) : x.exact[at(d)];
        const double sg = c.silu ? 1 / (1 + std::exp(-v)) : 1, n = v * sg * rstd.exact[r];
        const double u = dy.exact[at(d)] * weigh(d);
        y.exact[at(d)] = n * weigh(d);
        if (pass == 0) {
          dot += u * n;
          dweight.exact[d] += dy.exact[at(d)] * n;
          continue;
        }
        const double slope = c.silu ? sg * (1 + v * (1 - sg)) : 1;
        dx.exact[at(d)] = rstd.exact[r] * (u - n * dot / c.D) * slope + (c.residual ? dh.exact[at(d)] : 0.0);
        largest[0] = std::max(largest[0], std::fabs(static_cast<double>(cuda::to_float(y.at[at(d)]))));
        largest[1] = std::max(largest[1], std::fabs(static_cast<double>(cuda::to_float(dx.at[at(d)]))));
      }
  }
  double error = std::max({y.error(), dx.error(), rstd.error()});
  if (c.residual) error = std::max(error, h.error());
  if (c.weight) error = std::max(error, dweight.error());
  const bool pass = took && error < bound && largest[0] == absmax[0] && largest[1] == absmax[1];
  std::printf("%s %s: %.1e%s\n", c.name.c_str(), sizeof(T) == 2 ? "bf16" : "float", error,
              pass   ? ""
              : took ? " TOO FAR"
                     : " NOT TAKEN");
  return pass;
}

}  // namespace

int main() {
  const Case cases[] = {
      {"13 rows of 2048, residual", 13, 2048, true, false, 1},
      {"13 rows of 1024, silu", 13, 1024, false, true, 1},
      {"40 rows of 2048, silu, many of a block", 40, 2048, false, true, 1},
      {"41 rows of 1000, residual, silu", 41, 1000, true, true, 2},
      {"23 rows of 4096, fewer than blocks", 23, 4096, true, false, 132},
      {"1 row of 8, no weight", 1, 8, false, false, 132, false},
  };
  bool pass = true;
  for (const Case& c : cases)
    pass &= run<float>(c, GSA_FLOAT32, 2e-6) & run<__nv_bfloat16>(c, GSA_BFLOAT16, 4e-3);
  const Case wide{"9 rows of 8192, residual, two vectors a thread", 9, 8192, true, false, 1};
  return run<__nv_bfloat16>(wide, GSA_BFLOAT16, 4e-3) && pass ? 0 : 1;
}
