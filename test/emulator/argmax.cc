// The largest of rows, emulated, against a search. One line a case; exits with 1 where a place is wrong.
#include <random>

#include "native/ops/reduce/params.h"
#include "numbers.h"

namespace gsa::cuda {
void argmax(gsa_device& device, const Args& args);
}  // namespace gsa::cuda

namespace {

// Rows of few different numbers, so that most largest ones come several times; of both signs, with zeros of
// both, and in every fifth a NaN.
template <typename T>
bool run(int64_t R, int64_t C, int32_t dtype, bool shifted) {
  std::mt19937 random(static_cast<unsigned>(C));
  Numbers<T> x({R, C}, dtype, shifted);
  Numbers<float> value({R}, GSA_FLOAT32);
  std::vector<int32_t> index(static_cast<size_t>(R), -1);
  int64_t i = 0;
  x.fill([&] {
    const int64_t row = i / C, column = i++ % C;
    if (row % 5 == 4 && column == C / 2) return static_cast<double>(NAN);
    const double number = random() % 64 / 64.0 - (row % 3 == 0 ? 1 : 0.5);
    return number == 0 && random() % 2 ? -0.0 : number;
  });
  gsa_tensor places = value.tensor;
  places.dtype = GSA_INT32;
  places.data = index.data();
  const gsa_tensor *in[] = {&x.tensor}, *out[] = {&places, &value.tensor};
  gsa_args args{};
  args.op = "argmax";
  args.in = in;
  args.n_in = 1;
  args.out = out;
  args.n_out = 2;
  gsa_device device;
  gsa::cuda::argmax(device, gsa::Args(args));
  bool pass = true;
  for (int64_t r = 0; r < R; ++r) {
    const double* row = &x.exact[static_cast<size_t>(r * C)];
    int64_t best = 0;
    for (int64_t c = 1; c < C && !std::isnan(row[best]); ++c)
      if (!(row[c] <= row[best])) best = c;
    const double found = value.at[r];
    pass &= index[r] == best && (found == row[best] || (std::isnan(found) && std::isnan(row[best])));
  }
  std::printf("[%lld, %lld] %s%s%s\n", static_cast<long long>(R), static_cast<long long>(C),
              sizeof(T) == 2 ? "bf16" : "float", shifted ? " off 16 bytes" : "", pass ? "" : " WRONG");
  return pass;
}

}  // namespace

int main() {
  bool pass = true;
  for (const int64_t C : {1, 7, 8, 1000, 1001, 33000})
    for (const bool shifted : {false, true})
      pass &= run<float>(10, C, GSA_FLOAT32, shifted) & run<__nv_bfloat16>(10, C, GSA_BFLOAT16, shifted);
  return pass ? 0 : 1;
}
