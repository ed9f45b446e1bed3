// The sweeps of gated slot attention, emulated, against the recurrence in float64 (native/ops/gsa/README.md).
// One line a case; exits with 1 where an error is past 1e-2, the bound of bfloat16 everywhere in this
// project.
#include <algorithm>
#include <cmath>
#include <random>
#include <string>

#include "native/ops/gsa/sweep_sm90.cuh"
#include "native/ops/gsa/sweeps_sm90.h"

using namespace gsa::slot_attention;
using Doubles = std::vector<double>;

namespace {

std::mt19937 engine(1);
double normal() {
  static std::normal_distribution<double> draw;
  return draw(engine);
}

// A tensor in the dtype of the op and in float64, of the same values.
struct Values {
  Doubles exact;
  std::vector<float> f;
  std::vector<__nv_bfloat16> half;
  template <class Draw>
  Values(size_t n, bool bfloat16, Draw draw) : exact(n), f(n), half(n) {
    for (size_t i = 0; i < n; ++i) {
      half[i] = __float2bfloat16_rn(f[i] = static_cast<float>(draw()));
      if (bfloat16) f[i] = __bfloat162float(half[i]);
      exact[i] = f[i];
    }
  }
};

struct Case {
  std::string name;
  int B, T, HQ, H, width;
  double gate;  // NaN: logsigmoid / 8; else uniform in [gate, 0]
  std::vector<int32_t> cu_seqlens;
  int clusters;
  double scale;
  int keeping = 0;  // so many slots forget a thousandth of what the others do
  int M = 64;
};

struct Problem {
  const Case& c;
  Dims d;
  size_t rows, state;
  Values q, k, v, d_o, g, s, hk0, hv0, dhkT, dhvT;
  explicit Problem(const Case& x)
      : c(x),
        d{x.B,     x.T,     x.HQ, x.H,
          x.width, x.width, x.M,  x.cu_seqlens.empty() ? x.B : static_cast<int64_t>(x.cu_seqlens.size()) - 1},
        rows(static_cast<size_t>(x.B) * x.T),
        state(static_cast<size_t>(d.N) * x.H * x.width * x.M),
        q(rows * x.HQ * x.width, true, silu),
        k(rows * x.H * x.width, true, silu),
        v(rows * x.H * x.width, true, silu),
        d_o(rows * x.HQ * x.width, true, normal),
        g(rows * x.H * x.M, false,
          [&, i = 0]() mutable { return gate(x.gate) * (i++ % x.M < x.keeping ? 1e-3 : 1); }),
        s(rows * x.H * x.M, false, [&, i = size_t{0}]() mutable { return -std::expm1(g.exact[i++]); }),
        hk0(state, false, small),
        hv0(state, false, small),
        dhkT(state, false, small),
        dhvT(state, false, small) {}
  static double silu() {
    const double x = normal();
    return x / (1 + std::exp(-x));
  }
  static double small() { return 0.1 * normal(); }
  static double gate(double low) {
    if (std::isnan(low)) return -std::log1p(std::exp(-normal())) / 8;
    return low * std::uniform_real_distribution<double>(0, 1)(engine);
  }
};

struct Results {
  Doubles o, dq, dk, dv, ds, dg, hkT, hvT, dhk0, dhv0;
  explicit Results(const Problem& p)
      : o(p.q.exact.size()),
        dq(o.size()),
        dk(p.k.exact.size()),
        dv(dk.size()),
        ds(p.g.exact.size()),
        dg(ds.size()),
        hkT(p.state),
        hvT(p.state),
        dhk0(p.state),
        dhv0(p.state) {}
};

// One sequence and key/value head, token by token.
struct Recurrence {
  const Problem& p;
  Results& r;
  const int M, W, G;
  const int64_t h, begin, end;
  const size_t at;                    // of its states
  std::vector<Doubles> keys, values;  // [W, M], [M, W] before each token and at the end
  Doubles d_keys, d_values, weights;  // weights: softmax, [token, G, M]
  Recurrence(const Problem& p_, Results& r_, int64_t n, int64_t h_)
      : p(p_),
        r(r_),
        M(p.c.M),
        W(p.c.width),
        G(p.c.HQ / p.c.H),
        h(h_),
        begin(p.c.cu_seqlens.empty() ? n * p.c.T : p.c.cu_seqlens[n]),
        end(p.c.cu_seqlens.empty() ? begin + p.c.T : p.c.cu_seqlens[n + 1]),
        at((n * p.c.H + h) * W * M),
        keys(end - begin + 1, Doubles(W * M)),
        values(keys),
        d_keys(W * M),
        d_values(W * M),
        weights((end - begin) * G * M) {
    for (int i = 0; i < W * M; ++i) {
      keys[0][i] = p.hk0.exact[at + i], values[0][i] = p.hv0.exact[at + i];
      d_keys[i] = p.dhkT.exact[at + i], d_values[i] = p.dhvT.exact[at + i];
    }
    for (int64_t t = begin; t < end; ++t) forward(t);
    for (int i = 0; i < W * M; ++i) r.hkT[at + i] = keys.back()[i], r.hvT[at + i] = values.back()[i];
    for (int64_t t = end; t-- > begin;) backward(t);
    for (int i = 0; i < W * M; ++i) r.dhk0[at + i] = d_keys[i], r.dhv0[at + i] = d_values[i];
  }
  void forward(int64_t t) {
    const size_t row = t * p.c.H + h;
    const Doubles &hk = keys[t - begin], &hv = values[t - begin];
    Doubles &hk_t = keys[t - begin + 1], &hv_t = values[t - begin + 1];
    for (int m = 0; m < M; ++m) {
      const double decay = std::exp(p.g.exact[row * M + m]), s = p.s.exact[row * M + m];
      for (int c = 0; c < W; ++c) {
        hk_t[c * M + m] = hk[c * M + m] * decay + p.k.exact[row * W + c] * s;
        hv_t[m * W + c] = hv[m * W + c] * decay + p.v.exact[row * W + c] * s;
      }
    }
    for (int j = 0; j < G; ++j) {
      const size_t query = t * p.c.HQ + h * G + j;
      double* w = &weights[((t - begin) * G + j) * M];
      double largest = -INFINITY, sum = 0;
      for (int m = 0; m < M; ++m) {
        for (int c = 0; c < W; ++c) w[m] += p.c.scale * hk_t[c * M + m] * p.q.exact[query * W + c];
        largest = std::max(largest, w[m]);
      }
      for (int m = 0; m < M; ++m) sum += w[m] = std::exp(w[m] - largest);
      for (int m = 0; m < M; ++m) {
        w[m] /= sum;
        for (int c = 0; c < W; ++c) r.o[query * W + c] += w[m] * hv_t[m * W + c];
      }
    }
  }
  void backward(int64_t t) {
    const size_t row = t * p.c.H + h;
    const Doubles &hk_t = keys[t - begin + 1], &hv_t = values[t - begin + 1];
    for (int j = 0; j < G; ++j) {
      const size_t query = t * p.c.HQ + h * G + j;
      const double* w = &weights[((t - begin) * G + j) * M];
      Doubles dp(M);
      double mean = 0;
      for (int m = 0; m < M; ++m) {
        for (int c = 0; c < W; ++c) dp[m] += hv_t[m * W + c] * p.d_o.exact[query * W + c];
        mean += w[m] * dp[m];
      }
      for (int m = 0; m < M; ++m) {
        const double dok = p.c.scale * w[m] * (dp[m] - mean);
        for (int c = 0; c < W; ++c) {
          r.dq[query * W + c] += hk_t[c * M + m] * dok;
          d_keys[c * M + m] += p.q.exact[query * W + c] * dok;
          d_values[m * W + c] += w[m] * p.d_o.exact[query * W + c];
        }
      }
    }
    for (int m = 0; m < M; ++m) {
      const double decay = std::exp(p.g.exact[row * M + m]), s = p.s.exact[row * M + m];
      for (int c = 0; c < W; ++c) {
        double &dk = d_keys[c * M + m], &dv = d_values[m * W + c];
        r.dk[row * W + c] += dk * s;
        r.dv[row * W + c] += dv * s;
        r.ds[row * M + m] += dk * p.k.exact[row * W + c] + dv * p.v.exact[row * W + c];
        r.dg[row * M + m] += decay * (dk * keys[t - begin][c * M + m] + dv * values[t - begin][m * W + c]);
        dk *= decay;
        dv *= decay;
      }
    }
  }
};

double value(float x) { return x; }
double value(__nv_bfloat16 x) { return __bfloat162float(x); }

struct Verdict {
  bool pass = true;
  template <class T>
  void compare(const char* name, const Doubles& expected, const std::vector<T>& got) {
    double error = 0, norm = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
      const double difference = value(got[i]) - expected[i];
      error += difference * difference;
      norm += expected[i] * expected[i];
    }
    // Of what float32 cannot hold the sweeps make zeros.
    const double relative = std::sqrt(error / std::max(norm, 1e-60));
    std::printf(" %s %.1e", name, relative);
    if (!(relative <= 1e-2)) pass = false, std::printf(" WRONG");
  }
};

bool run(const Case& c) {
  const Problem p(c);
  Results r(p);
  for (int64_t n = 0; n < p.d.N; ++n)
    for (int64_t h = 0; h < c.H; ++h) Recurrence(p, r, n, h);
  emulator::clusters_of_device = c.clusters;
  gsa_device device;
  // Everything that the kernels must write is NaN before.
  const auto poisoned = [](size_t n) { return std::vector<float>(n, NAN); };
  const auto poisoned_half = [](size_t n) { return std::vector<__nv_bfloat16>(n, __float2bfloat16_rn(NAN)); };
  auto o = poisoned_half(r.o.size()), dq = o, dk = poisoned_half(r.dk.size()), dv = dk;
  auto ok = poisoned(p.rows * c.HQ * c.M), ds = poisoned(r.ds.size()), dg = ds, hkT = poisoned(p.state),
       hvT = hkT, dhk0 = hkT, dhv0 = hkT;
  const Inputs in{p.q.half.data(),
                  p.k.half.data(),
                  p.v.half.data(),
                  p.s.f.data(),
                  p.g.f.data(),
                  p.hk0.f.data(),
                  p.hv0.f.data(),
                  c.cu_seqlens.empty() ? nullptr : c.cu_seqlens.data(),
                  static_cast<float>(c.scale)};
  if (!gsa::sm90::sweep_takes(p.d, GSA_BFLOAT16))
    return std::printf("%s: not a shape of the sweeps\n", c.name.c_str()), false;
  gsa::sm90::sweep_fwd(device, {p.d, in, o.data(), ok.data(), hkT.data(), hvT.data()});
  Verdict verdict;
  std::printf("%s:", c.name.c_str());
  verdict.compare("o", r.o, o);
  verdict.compare("hkT", r.hkT, hkT);
  verdict.compare("hvT", r.hvT, hvT);
  gsa::sm90::sweep_bwd(
      device, {p.d, in, ok.data(), p.d_o.half.data(), p.dhkT.f.data(), p.dhvT.f.data(), dq.data(), dk.data(),
               dv.data(), ds.data(), dg.data(), dhk0.data(), dhv0.data()});
  verdict.compare("dq", r.dq, dq);
  verdict.compare("dk", r.dk, dk);
  verdict.compare("dv", r.dv, dv);
  verdict.compare("ds", r.ds, ds);
  verdict.compare("dg", r.dg, dg);
  verdict.compare("dhk0", r.dhk0, dhk0);
  verdict.compare("dhv0", r.dhv0, dhv0);
  std::printf("\n");
  return verdict.pass;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<int32_t> ragged{0, 0, 1, 17, 17, 80, 144, 209, 209};
  std::vector<Case> cases{
      {"3 walks cut into 2 clusters, T 130 K=V=64", 3, 130, 1, 1, 64, NAN, {}, 2, 0.5},
      {"5 walks cut into 4 clusters, T 200 K=V=64", 5, 200, 1, 1, 64, NAN, {}, 4, 1},
      {"3 walks cut into 2 clusters of 4 blocks, T 130 K=V=512", 3, 130, 1, 1, 512, NAN, {}, 2, 0.2},
      {"clusters of 2 blocks, gates to 6 nats, T 200 K=V=256", 1, 200, 1, 1, 256, -6, {}, 9, 1},
      {"gates to 0.5 nats, T 300 K=V=128", 1, 300, 1, 1, 128, -0.5, {}, 4, 1},
      {"gates to 20 nats, T 100 K=V=128", 1, 100, 1, 1, 128, -20, {}, 4, 1},
      {"gates to 5 nats, about 40 in 16 rows, T 130 K=V=64", 1, 130, 1, 1, 64, -5, {}, 4, 1},
      {"gates to 10,000 nats, T 70 K=V=64", 1, 70, 1, 1, 64, -1e4, {}, 4, 1},
      {"documents, some empty, K=V=64", 1, 209, 2, 2, 64, NAN, ragged, 9, 1},
      {"grouped queries, T 100 HQ 4 H 2 K=V=128", 2, 100, 4, 2, 128, NAN, {}, 5, 0.5},
      {"grouped queries, walks cut, clusters of 2 blocks, T 130 HQ 3 H 1 K=V=256",
       1,
       130,
       3,
       1,
       256,
       -6,
       {},
       2,
       0.5},
      {"grouped queries, documents, some empty, HQ 8 H 2 K=V=64", 1, 209, 8, 2, 64, NAN, ragged, 9, 1},
  };
  // Fewer walks than clusters: the states at the cuts are there before the sweep.
  const std::vector<int32_t> few{0, 700, 700, 716, 1100, 1100};
  const std::vector<Case> long_ones{
      {"a walk in 4 clusters, T 1000 K=V=64", 1, 1000, 1, 1, 64, NAN, {}, 9, 0.5},
      {"a walk in 3 clusters, gates to 1e-3 nats, T 1000 K=V=128", 1, 1000, 1, 1, 128, -1e-3, {}, 3, 0.1},
      {"2 walks in 5 clusters, T 700 K=V=64", 1, 700, 2, 2, 64, NAN, {}, 5, 0.5},
      {"a walk in 2 clusters, 20 slots keep what the others forget, T 1500 K=V=64",
       1,
       1500,
       1,
       1,
       64,
       -1,
       {},
       2,
       0.2,
       20},
      {"a walk in 2 clusters, gates to 10,000 nats, T 600 K=V=64", 1, 600, 1, 1, 64, -1e4, {}, 2, 1},
      {"a walk in 3 clusters of 2 blocks, T 900 K=V=256", 1, 900, 1, 1, 256, NAN, {}, 3, 0.3},
      {"a walk in 3 clusters of 4 blocks, T 770 K=V=512", 1, 770, 1, 1, 512, NAN, {}, 3, 0.2},
      {"grouped queries in 7 clusters, T 700 HQ 4 H 2 K=V=128", 1, 700, 4, 2, 128, NAN, {}, 7, 0.3},
      {"a document in 3 of 4 clusters, gates to 1e-2 nats, T 960 K=V=64",
       1,
       960,
       1,
       1,
       64,
       -1e-2,
       {0, 960},
       4,
       0.1},
      {"documents cut into 7 clusters, T 1100 K=V=64", 1, 1100, 2, 2, 64, NAN, few, 7, 0.5},
      {"documents cut into 3 clusters of 2 blocks, T 1100 K=V=256", 1, 1100, 1, 1, 256, NAN, few, 3, 0.3},
  };
  cases.insert(cases.end(), long_ones.begin(), long_ones.end());
  for (const int T : {0, 1, 15, 16, 17, 63, 64, 65, 127})
    cases.push_back({"T " + std::to_string(T) + " K=V=64", 1, T, 1, 1, 64, NAN, {}, 9, 1});
  // 128 slots: two halves, in clusters of twice as many blocks forward.
  const std::vector<Case> slots{
      {"T 130 K=V=64", 2, 130, 2, 2, 64, NAN, {}, 9, 0.5},
      {"T 17 K=V=64", 1, 17, 1, 1, 64, NAN, {}, 9, 1},
      {"T 40 K=V=128", 1, 40, 1, 1, 128, NAN, {}, 9, 1},
      {"gates to 6 nats, T 200 K=V=128", 1, 200, 1, 1, 128, -6, {}, 9, 1},
      {"3 walks cut into 2 clusters, T 130 K=V=256", 3, 130, 1, 1, 256, NAN, {}, 2, 0.3},
      {"clusters of 8 blocks, T 200 K=V=512", 1, 200, 2, 2, 512, NAN, {}, 1, 0.2},
      {"gates to 10,000 nats, T 70 K=V=64", 1, 70, 1, 1, 64, -1e4, {}, 9, 1},
      {"documents, some empty, K=V=64", 1, 209, 2, 2, 64, NAN, ragged, 3, 1},
  };
  for (Case c : slots) {
    c.M = 128;
    c.name = "M 128, " + c.name;
    cases.push_back(c);
  }
  // With an argument: those whose names it is part of.
  bool pass = true;
  for (const Case& c : cases)
    if (argc < 2 || c.name.find(argv[1]) != std::string::npos) pass &= run(c);
  return pass ? 0 : 1;
}
