// The short convolution's kernels, emulated, against the definition in float64: the walk and the general
// form. One line a case; exits with 1 where an error is past the bound.
#include <random>

#include "native/ops/short_conv/params.h"
#include "numbers.h"

namespace gsa::cuda {
void short_conv_fwd(gsa_device& device, const Args& args);
void short_conv_bwd(gsa_device& device, const Args& args);
}  // namespace gsa::cuda

namespace {

struct Case {
  std::string name;
  int64_t B, T, D, W;
  bool silu, state;
  std::vector<int32_t> cu;  // empty: B sequences of T
  bool shifted = false;     // x starts off 16 bytes
};

template <typename T>
bool run(const Case& c, int32_t dtype, double bound) {
  std::mt19937 random(7);
  std::normal_distribution<double> normal;
  const auto draw = [&] { return normal(random); };
  std::vector<int32_t> starts = c.cu;
  if (starts.empty())
    for (int64_t n = 0; n <= c.B; ++n) starts.push_back(static_cast<int32_t>(n * c.T));
  const int64_t N = static_cast<int64_t>(starts.size()) - 1, D = c.D, W = c.W;
  const std::vector<int64_t> rows{c.B, c.T, D}, states{N, D, W - 1};
  Numbers<T> x(rows, dtype, c.shifted), dy(rows, dtype), y(rows, dtype), dx(rows, dtype);
  Numbers<T> weight({D, W}, dtype), dweight({D, W}, dtype);
  Numbers<T> state(states, dtype), next(states, dtype), dnext(states, dtype), dstate(states, dtype);
  x.fill(draw), dy.fill(draw), weight.fill(draw), state.fill(draw), dnext.fill(draw);
  if (!c.state) state.exact.assign(state.n, 0.0);

  for (int64_t n = 0; n < N; ++n)
    for (int64_t ch = 0; ch < D; ++ch) {
      const int64_t length = starts[n + 1] - starts[n];
      const auto row = [&](int64_t t) { return static_cast<size_t>((starts[n] + t) * D + ch); };
      const auto held = [&](int64_t i) { return static_cast<size_t>((n * D + ch) * (W - 1) + i); };
      const auto input = [&](int64_t t) { return t >= 0 ? x.exact[row(t)] : state.exact[held(W - 1 + t)]; };
      const auto give = [&](int64_t t, double d) {
        (t >= 0 ? dx.exact[row(t)] : dstate.exact[held(W - 1 + t)]) += d;
      };
      for (int64_t i = 0; i < W - 1; ++i) {
        next.exact[held(i)] = input(length - (W - 1) + i);
        give(length - (W - 1) + i, c.state ? dnext.exact[held(i)] : 0.0);
      }
      for (int64_t t = 0; t < length; ++t) {
        double z = 0;
        for (int64_t j = 0; j < W; ++j) z += weight.exact[ch * W + j] * input(t - (W - 1) + j);
        const double s = 1 / (1 + std::exp(-z));
        y.exact[row(t)] = c.silu ? z * s : z;
        const double dz = dy.exact[row(t)] * (c.silu ? s * (1 + z * (1 - s)) : 1.0);
        for (int64_t j = 0; j < W; ++j) {
          give(t - (W - 1) + j, weight.exact[ch * W + j] * dz);
          dweight.exact[ch * W + j] += dz * input(t - (W - 1) + j);
        }
      }
    }

  gsa_tensor offsets{};
  offsets.data = starts.data();
  offsets.dtype = GSA_INT32;
  offsets.ndim = 1;
  offsets.shape[0] = N + 1;
  offsets.strides[0] = 1;
  const gsa_tensor* cu = c.cu.empty() ? nullptr : &offsets;
  const gsa_tensor* before = c.state ? &state.tensor : nullptr;
  const double silu = c.silu;
  gsa_device device;
  device.multiprocessors = 1;  // few are filled by long runs already
  const gsa_tensor* fwd_in[] = {&x.tensor, &weight.tensor, before, cu};
  const gsa_tensor* fwd_out[] = {&y.tensor, &next.tensor};
  const gsa_tensor* bwd_in[] = {&dy.tensor, &x.tensor, &weight.tensor,
                                before,     cu,        c.state ? &dnext.tensor : nullptr};
  const gsa_tensor* bwd_out[] = {&dx.tensor, &dweight.tensor, c.state ? &dstate.tensor : nullptr};
  gsa_args fwd{}, bwd{};
  fwd.op = "short_conv_fwd", fwd.in = fwd_in, fwd.n_in = 4, fwd.out = fwd_out, fwd.n_out = 2,
  fwd.attr = &silu;
  bwd.op = "short_conv_bwd", bwd.in = bwd_in, bwd.n_in = 6, bwd.out = bwd_out, bwd.n_out = 3,
  bwd.attr = &silu;
  gsa::cuda::short_conv_fwd(device, gsa::Args(fwd));
  gsa::cuda::short_conv_bwd(device, gsa::Args(bwd));

  bool pass = true;
  std::printf("%s %s:", c.name.c_str(), sizeof(T) == 2 ? "bf16" : "float");
  const auto report = [&](const char* name, const Numbers<T>& numbers) {
    const double error = numbers.error();
    pass &= error < bound;
    std::printf(" %s %.1e", name, error);
  };
  report("y", y), report("state_out", next), report("dx", dx), report("dweight", dweight);
  if (c.state) report("dstate", dstate);
  std::printf("%s\n", pass ? "" : " TOO FAR");
  return pass;
}

}  // namespace

int main() {
  const std::vector<int32_t> ragged{0, 0, 1, 3, 3, 5, 40, 41, 77, 150, 150};
  const Case cases[] = {
      {"walk W 4", 2, 70, 72, 4, true, false, {}},
      {"walk W 4, states", 2, 70, 16, 4, true, true, {}},
      {"walk W 3, states, no silu", 3, 33, 40, 3, false, true, {}},
      {"walk W 2, states", 2, 50, 24, 2, true, true, {}},
      {"walk W 4, documents", 1, 150, 16, 4, true, false, ragged},
      {"walk W 4, documents, states, runs of 1 row", 1, 150, 8, 4, true, true, ragged},
      {"walk W 4, documents, states, runs of 4 to 19", 1, 150, 264, 4, true, true, ragged},
      {"walk W 4, documents, states, runs of 16 and 32", 1, 150, 888, 4, true, true, ragged},
      {"walk W 3, documents, runs of 16 and 32", 1, 150, 888, 3, true, false, ragged},
      {"walk W 2, documents, states, runs of 16 and 32", 1, 150, 888, 2, false, true, ragged},
      {"walk W 4, states, runs of 16 and 32", 3, 50, 888, 4, true, true, {}},
      {"walk W 4, one token, states", 5, 1, 32, 4, true, true, {}},
      {"walk W 4, two tokens, states", 5, 2, 8, 4, true, true, {}},
      {"walk W 4, many rows", 1, 5000, 8, 4, true, true, {}},
      {"general W 4, odd width", 2, 40, 3, 4, true, true, {}},
      {"general W 5, documents, states", 1, 150, 8, 5, true, true, ragged},
      {"general W 1", 2, 9, 8, 1, true, false, {}},
      {"general W 4, x off 16 bytes", 2, 40, 16, 4, true, true, {}, true},
      {"no rows", 2, 0, 8, 4, true, true, {}},
  };
  bool pass = true;
  for (const Case& c : cases)
    pass &= run<float>(c, GSA_FLOAT32, 1e-5) & run<__nv_bfloat16>(c, GSA_BFLOAT16, 3e-3);
  return pass ? 0 : 1;
}
