// Gated slot attention in float64, token by token (native/ops/gsa/README.md), for what the emulator runs:
// random problems, their results, and the comparison.
#pragma once

#include <algorithm>
#include <cmath>
#include <random>
#include <string>

#include "emulator.h"
#include "native/cuda/device.h"
#include "native/ops/gsa/params.h"

using namespace gsa::slot_attention;
using Doubles = std::vector<double>;

inline std::mt19937 engine(1);
inline double normal() {
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
  double gate;  // NaN: logsigmoid / 8; else uniform in [gate, least * gate]
  std::vector<int32_t> cu_seqlens;
  int clusters;
  double scale;
  int keeping = 0;    // so many slots forget a thousandth of what the others do
  int M = 64, V = 0;  // V: width, where it is 0
  // With strong gates all slots would be nearly equal, and dq and dk rounding: where `least` is not 0, write
  // strengths are drawn apart from the gates.
  double least = 0, state = 0.1;  // state: the size of initial states and of gradients of final ones
};

struct Problem {
  const Case& c;
  const int K, V, M;
  Dims d;
  size_t rows, state_k, state_v;
  Values raw_q, raw_k, raw_v;  // projections; silu of them:
  Values q, k, v, d_o, g, s, hk0, hv0, dhkT, dhvT;
  // `layer`: the projections are bfloat16, too.
  explicit Problem(const Case& x, bool layer = false)
      : c(x),
        K(x.width),
        V(x.V ? x.V : x.width),
        M(x.M),
        d{x.B, x.T, x.HQ, x.H,
          K,   V,   M,    x.cu_seqlens.empty() ? x.B : static_cast<int64_t>(x.cu_seqlens.size()) - 1},
        rows(static_cast<size_t>(x.B) * x.T),
        state_k(static_cast<size_t>(d.N) * x.H * K * M),
        state_v(static_cast<size_t>(d.N) * x.H * V * M),
        raw_q(rows * x.HQ * K, layer, normal),
        raw_k(rows * x.H * K, layer, normal),
        raw_v(rows * x.H * V, layer, normal),
        q(silu(raw_q)),
        k(silu(raw_k)),
        v(silu(raw_v)),
        d_o(rows * x.HQ * V, true, normal),
        g(rows * x.H * M, false,
          [&, i = 0]() mutable { return gate(x.gate, x.least) * (i++ % M < x.keeping ? 1e-3 : 1); }),
        s(rows * x.H * M, false,
          [&, i = size_t{0}]() mutable {
            const double forgotten = -std::expm1(g.exact[i++]);
            return x.least > 0 ? uniform(0) : forgotten;
          }),
        hk0(state_k, false, [&] { return x.state * normal(); }),
        hv0(state_v, false, [&] { return x.state * normal(); }),
        dhkT(state_k, false, [&] { return x.state * normal(); }),
        dhvT(state_v, false, [&] { return x.state * normal(); }) {}
  static Values silu(const Values& raw) {
    return Values(raw.exact.size(), true, [x = raw.exact.begin()]() mutable {
      const double value = *x++;
      return value / (1 + std::exp(-value));
    });
  }
  static double uniform(double least) { return std::uniform_real_distribution<double>(least, 1)(engine); }
  static double gate(double low, double least) {
    if (std::isnan(low)) return -std::log1p(std::exp(-normal())) / 8;
    return low * uniform(least);
  }
};

struct Results {
  Doubles o, dq, dk, dv, ds, dg, hkT, hvT, dhk0, dhv0;
  explicit Results(const Problem& p)
      : o(p.d_o.exact.size()),
        dq(p.q.exact.size()),
        dk(p.k.exact.size()),
        dv(p.v.exact.size()),
        ds(p.g.exact.size()),
        dg(ds.size()),
        hkT(p.state_k),
        hvT(p.state_v),
        dhk0(p.state_k),
        dhv0(p.state_v) {}
};

// One sequence and key/value head, token by token.
struct Recurrence {
  const Problem& p;
  Results& r;
  const int M, K, V, G;
  const int64_t h, begin, end;
  const size_t at_k, at_v;            // of its states
  std::vector<Doubles> keys, values;  // [K, M], [M, V] before each token and at the end
  Doubles d_keys, d_values, weights;  // weights: softmax, [token, G, M]
  Recurrence(const Problem& p_, Results& r_, int64_t n, int64_t h_)
      : p(p_),
        r(r_),
        M(p.M),
        K(p.K),
        V(p.V),
        G(p.c.HQ / p.c.H),
        h(h_),
        begin(p.c.cu_seqlens.empty() ? n * p.c.T : p.c.cu_seqlens[n]),
        end(p.c.cu_seqlens.empty() ? begin + p.c.T : p.c.cu_seqlens[n + 1]),
        at_k((n * p.c.H + h) * K * M),
        at_v((n * p.c.H + h) * V * M),
        keys(end - begin + 1, Doubles(K * M)),
        values(end - begin + 1, Doubles(V * M)),
        d_keys(K * M),
        d_values(V * M),
        weights((end - begin) * G * M) {
    for (int i = 0; i < K * M; ++i) keys[0][i] = p.hk0.exact[at_k + i], d_keys[i] = p.dhkT.exact[at_k + i];
    for (int i = 0; i < V * M; ++i)
      values[0][i] = p.hv0.exact[at_v + i], d_values[i] = p.dhvT.exact[at_v + i];
    for (int64_t t = begin; t < end; ++t) forward(t);
    for (int i = 0; i < K * M; ++i) r.hkT[at_k + i] = keys.back()[i];
    for (int i = 0; i < V * M; ++i) r.hvT[at_v + i] = values.back()[i];
    for (int64_t t = end; t-- > begin;) backward(t);
    for (int i = 0; i < K * M; ++i) r.dhk0[at_k + i] = d_keys[i];
    for (int i = 0; i < V * M; ++i) r.dhv0[at_v + i] = d_values[i];
  }
  void forward(int64_t t) {
    const size_t row = t * p.c.H + h;
    const Doubles &hk = keys[t - begin], &hv = values[t - begin];
    Doubles &hk_t = keys[t - begin + 1], &hv_t = values[t - begin + 1];
    for (int m = 0; m < M; ++m) {
      const double decay = std::exp(p.g.exact[row * M + m]), s = p.s.exact[row * M + m];
      for (int c = 0; c < K; ++c) hk_t[c * M + m] = hk[c * M + m] * decay + p.k.exact[row * K + c] * s;
      for (int c = 0; c < V; ++c) hv_t[m * V + c] = hv[m * V + c] * decay + p.v.exact[row * V + c] * s;
    }
    for (int j = 0; j < G; ++j) {
      const size_t query = t * p.c.HQ + h * G + j;
      double* w = &weights[((t - begin) * G + j) * M];
      double largest = -INFINITY, sum = 0;
      for (int m = 0; m < M; ++m) {
        for (int c = 0; c < K; ++c) w[m] += p.c.scale * hk_t[c * M + m] * p.q.exact[query * K + c];
        largest = std::max(largest, w[m]);
      }
      for (int m = 0; m < M; ++m) sum += w[m] = std::exp(w[m] - largest);
      for (int m = 0; m < M; ++m) {
        w[m] /= sum;
        for (int c = 0; c < V; ++c) r.o[query * V + c] += w[m] * hv_t[m * V + c];
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
        for (int c = 0; c < V; ++c) dp[m] += hv_t[m * V + c] * p.d_o.exact[query * V + c];
        mean += w[m] * dp[m];
      }
      for (int m = 0; m < M; ++m) {
        const double dok = p.c.scale * w[m] * (dp[m] - mean);
        for (int c = 0; c < K; ++c) {
          r.dq[query * K + c] += hk_t[c * M + m] * dok;
          d_keys[c * M + m] += p.q.exact[query * K + c] * dok;
        }
        for (int c = 0; c < V; ++c) d_values[m * V + c] += w[m] * p.d_o.exact[query * V + c];
      }
    }
    for (int m = 0; m < M; ++m) {
      const double decay = std::exp(p.g.exact[row * M + m]), s = p.s.exact[row * M + m];
      const auto side = [&](double& gradient, double past, double& of_row, double own) {
        of_row += gradient * s;
        r.ds[row * M + m] += gradient * own;
        r.dg[row * M + m] += decay * gradient * past;
        gradient *= decay;
      };
      for (int c = 0; c < K; ++c)
        side(d_keys[c * M + m], keys[t - begin][c * M + m], r.dk[row * K + c], p.k.exact[row * K + c]);
      for (int c = 0; c < V; ++c)
        side(d_values[m * V + c], values[t - begin][m * V + c], r.dv[row * V + c], p.v.exact[row * V + c]);
    }
  }
};

inline double value(float x) { return x; }
inline double value(__nv_bfloat16 x) { return __bfloat162float(x); }

struct Verdict {
  double stored = 1e-2, summed = 1e-2;  // bounds of what is stored in bfloat16, and in float32
  bool pass = true;
  template <class T>
  void compare(const char* name, const Doubles& expected, const std::vector<T>& got) {
    double error = 0, norm = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
      const double difference = value(got[i]) - expected[i];
      error += difference * difference;
      norm += expected[i] * expected[i];
    }
    // What float32 cannot hold is zero to kernels.
    const double relative = std::sqrt(error / std::max(norm, 1e-60));
    std::printf(" %s %.1e", name, relative);
    if (!(relative <= (sizeof(T) == 2 ? stored : summed))) pass = false, std::printf(" WRONG");
  }
};

// What an operator writes: NaN before.
struct Outputs {
  using Floats = std::vector<float>;
  using Halves = std::vector<__nv_bfloat16>;
  Halves o, dq, dk, dv;
  Floats ok, ds, dg, hkT, hvT, dhk0, dhv0;
  explicit Outputs(const Problem& p)
      : o(half(p.d_o.exact.size())),
        dq(half(p.q.exact.size())),
        dk(half(p.k.exact.size())),
        dv(half(p.v.exact.size())),
        ok(p.rows * p.c.HQ * p.M, NAN),
        ds(p.g.exact.size(), NAN),
        dg(ds),
        hkT(p.state_k, NAN),
        hvT(p.state_v, NAN),
        dhk0(hkT),
        dhv0(hvT) {}
  static Halves half(size_t n) { return Halves(n, __float2bfloat16_rn(NAN)); }
};

// Forward and backward of `op`, which takes a ChunkFwd or a ChunkBwd, against float64. One line. `more`: what
// else is to be compared, with the results, the arguments of the backward and the verdict.
inline void nothing_more(const Results&, const ChunkBwd&, Verdict&) {}
template <class Operator, class More = decltype(&nothing_more)>
bool check(const Problem& p, Verdict verdict, Operator op, More more = nothing_more) {
  const Case& c = p.c;
  Results r(p);
  for (int64_t n = 0; n < p.d.N; ++n)
    for (int64_t h = 0; h < c.H; ++h) Recurrence(p, r, n, h);
  Outputs x(p);
  const Inputs in{p.q.half.data(),
                  p.k.half.data(),
                  p.v.half.data(),
                  p.s.f.data(),
                  p.g.f.data(),
                  p.hk0.f.data(),
                  p.hv0.f.data(),
                  c.cu_seqlens.empty() ? nullptr : c.cu_seqlens.data(),
                  static_cast<float>(c.scale)};
  op(ChunkFwd{p.d, in, x.o.data(), x.ok.data(), x.hkT.data(), x.hvT.data()});
  std::printf("%s:", c.name.c_str());
  verdict.compare("o", r.o, x.o);
  verdict.compare("hkT", r.hkT, x.hkT);
  verdict.compare("hvT", r.hvT, x.hvT);
  const ChunkBwd backward{
      p.d,         in,          x.ok.data(), p.d_o.half.data(), p.dhkT.f.data(), p.dhvT.f.data(), x.dq.data(),
      x.dk.data(), x.dv.data(), x.ds.data(), x.dg.data(),       x.dhk0.data(),   x.dhv0.data()};
  op(backward);
  verdict.compare("dq", r.dq, x.dq);
  verdict.compare("dk", r.dk, x.dk);
  verdict.compare("dv", r.dv, x.dv);
  verdict.compare("ds", r.ds, x.ds);
  verdict.compare("dg", r.dg, x.dg);
  verdict.compare("dhk0", r.dhk0, x.dhk0);
  verdict.compare("dhv0", r.dhv0, x.dhv0);
  more(r, backward, verdict);
  std::printf("\n");
  return verdict.pass;
}
