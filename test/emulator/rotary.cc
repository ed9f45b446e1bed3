// The rotary embedding's kernels, emulated, against float64. One line a case; exits with 1 where an error is
// past the bound.
#include <random>

#include "native/ops/rotary/params.h"
#include "numbers.h"

namespace gsa::cuda {
void rotary(gsa_device& device, const Args& args);
}  // namespace gsa::cuda

namespace {

struct Case {
  std::string name;
  int64_t B, T, H, D;
  double offset, inverse;
  int processors;
  bool shifted = false, in_place = false;
};

template <typename T>
bool run(const Case& c, int32_t dtype, double bound) {
  std::mt19937 random(3);
  std::normal_distribution<double> normal;
  Numbers<T> x({c.B, c.T, c.H, c.D}, dtype, c.shifted), y({c.B, c.T, c.H, c.D}, dtype);
  x.fill([&] { return normal(random); });
  const double theta = 10000;
  for (int64_t row = 0; row < c.B * c.T * c.H; ++row)
    for (int64_t i = 0; i < c.D / 2; ++i) {
      const double turns = (c.offset + row / c.H % c.T) * std::pow(theta, -2.0 * i / c.D);
      const double sine = std::sin(turns) * (c.inverse ? -1 : 1), cosine = std::cos(turns);
      const size_t low = row * c.D + i, high = low + c.D / 2;
      y.exact[low] = x.exact[low] * cosine - x.exact[high] * sine;
      y.exact[high] = x.exact[high] * cosine + x.exact[low] * sine;
    }
  if (c.in_place) x.exact = y.exact;
  Numbers<T>& result = c.in_place ? x : y;
  const double attributes[] = {theta, c.offset, c.inverse};
  const gsa_tensor *in[] = {&x.tensor}, *out[] = {&result.tensor};
  gsa_args args{};
  args.op = "rotary";
  args.in = in;
  args.n_in = 1;
  args.out = out;
  args.n_out = 1;
  args.attr = attributes;
  args.n_attr = 3;
  gsa_device device;
  device.multiprocessors = c.processors;
  gsa::cuda::rotary(device, gsa::Args(args));
  const double error = result.error();
  const bool pass = error < bound;
  std::printf("%s %s: %.1e%s\n", c.name.c_str(), sizeof(T) == 2 ? "bf16" : "float", error,
              pass ? "" : " TOO FAR");
  return pass;
}

}  // namespace

int main() {
  const Case cases[] = {
      {"wide D 64", 2, 9, 5, 64, 0, 0, 1},
      {"wide D 64, several blocks a position, in place", 9, 3, 40, 64, 100000, 0, 132, false, true},
      {"wide D 64, several rounds", 9, 2, 65, 64, 3, 1, 1},
      {"wide D 16, inverse", 3, 5, 1, 16, 7, 1, 132},
      {"wide D 48", 2, 5, 3, 48, 0, 0, 132},
      {"wide D 512", 1, 3, 3, 512, 0, 0, 132},
      {"general D 6", 2, 5, 3, 6, 2, 1, 132},
      {"general D 528", 1, 2, 2, 528, 0, 0, 132},
      {"general, x off 16 bytes", 1, 3, 2, 64, 0, 0, 132, true},
  };
  bool pass = true;
  for (const Case& c : cases)
    pass &= run<float>(c, GSA_FLOAT32, 1e-6) & run<__nv_bfloat16>(c, GSA_BFLOAT16, 3e-3);
  return pass ? 0 : 1;
}
