// The layer form of the sweeps, beside the plain one in the emulator: activations before the operator, their
// slopes after its backward (native/ops/gsa/layer_params.h).
#pragma once

#include <algorithm>
#include <cstring>

#include "native/ops/gsa/sweeps_sm90.h"
#include "native/sm90/math.cuh"
#include "reference.h"

// Rows [q | k | v | f] of the problem's raw projections, and of f drawn anew: what makes gates does not need
// to know that g and s are not made of it.
inline Values join_rows(const Problem& p, std::mt19937& own) {
  const size_t heads = p.c.H, W = p.c.width, width = heads * (3 * W + 64);
  std::normal_distribution<double> draw(0, 2);
  const Values f(p.rows * heads * 64, true, [&] { return draw(own); });
  size_t at = 0;
  return Values(p.rows * width, true, [&] {
    const size_t row = at / width, column = at++ % width, part = column / (heads * W);
    if (part == 3) return f.exact[row * heads * 64 + column - 3 * heads * W];
    const Values* const raw[] = {&p.raw_q, &p.raw_k, &p.raw_v};
    return raw[part]->exact[row * heads * W + column % (heads * W)];
  });
}

// The layer form of the backward: the same gradients times the slopes of what made the operator's inputs.
inline void check_layer_backward(gsa_device& device, const Problem& p, const Results& r,
                                 const ChunkBwd& chunk, Verdict& verdict) {
  const size_t heads = p.c.H, W = p.c.width, width = heads * (3 * W + 64);
  const float normalizer = 4;
  std::mt19937 own(2);  // so that the cases that follow are the same with and without this
  const Values x = join_rows(p, own);
  Doubles expected(x.exact.size());
  const auto sigmoid = [](double v) { return 1 / (1 + std::exp(-v)); };
  for (size_t row = 0; row < p.rows; ++row) {
    const double* raw = &x.exact[row * width];
    double* dx = &expected[row * width];
    for (const Doubles* d : {&r.dq, &r.dk, &r.dv})
      for (size_t i = 0; i < heads * W; ++i, ++raw, ++dx)
        *dx = (*d)[row * heads * W + i] * sigmoid(*raw) * (1 + *raw * sigmoid(-*raw));
    for (size_t i = row * heads * 64; i < (row + 1) * heads * 64; ++i, ++raw, ++dx)
      *dx = (r.dg[i] - r.ds[i] * std::pow(sigmoid(*raw), 1 / normalizer)) * sigmoid(-*raw) / normalizer;
  }
  std::vector<__nv_bfloat16> dx(expected.size(), __float2bfloat16_rn(NAN));
  LayerBwd layer{chunk, {x.half.data(), dx.data(), static_cast<int64_t>(width), normalizer}, nullptr};
  ChunkBwd& in = layer.chunk;
  in.dq = in.dk = in.dv = in.ds = in.dg = nullptr;
  in.in.q = in.in.k = in.in.v = nullptr;  // nobody kept them
  if (!gsa::sm90::sweep_takes_layer(layer)) return;
  gsa::sm90::sweep_layer_bwd(device, layer);
  // Each part on its own, so that the largest cannot hide the others.
  const char* const names[] = {"dx.q", "dx.k", "dx.v", "dx.f"};
  for (size_t part = 0; part < 4; ++part) {
    Doubles wanted;
    std::vector<__nv_bfloat16> got;
    for (size_t i = 0; i < dx.size(); ++i)
      if (i % width / (heads * W) == part) wanted.push_back(expected[i]), got.push_back(dx[i]);
    verdict.compare(names[part], wanted, got);
  }
}

// The layer form of the forward: its output is that of the plain form on silu of the raw rows, bit for bit.
inline void check_layer_forward(gsa_device& device, const Problem& p, const Inputs& plain, Verdict& verdict) {
  const size_t heads = p.c.H, W = p.c.width, width = heads * (3 * W + 64), wide = p.rows * heads * W;
  const float normalizer = 4;
  std::mt19937 own(3);
  std::normal_distribution<double> draw(0, 2);
  const Values x(p.rows * width, true, [&] { return draw(own); });
  std::vector<__nv_bfloat16> o(wide, __float2bfloat16_rn(NAN)), again(o);
  std::vector<float> g(p.rows * heads * 64, NAN), s(g), ok(g), ok_again(g), hkT(p.state_k, NAN),
      hvT(p.state_v, NAN), hkT_again(hkT), hvT_again(hvT);
  LayerFwd layer{{p.d, plain, o.data(), ok.data(), hkT.data(), hvT.data()},
                 x.half.data(),
                 g.data(),
                 s.data(),
                 static_cast<int64_t>(width),
                 normalizer,
                 false};
  Inputs& in = layer.chunk.in;
  in.q = in.k = in.v = nullptr, in.g = g.data(), in.s = s.data();
  if (!gsa::sm90::sweep_takes_layer(layer)) return;
  gsa::sm90::sweep_layer_fwd(device, layer);
  std::vector<__nv_bfloat16> made[3];
  Doubles gates, strengths;
  for (size_t row = 0; row < p.rows; ++row)
    for (size_t i = 0; i < width; ++i) {
      const double v = x.exact[row * width + i];
      if (i / (heads * W) < 3) {
        made[i / (heads * W)].push_back(__float2bfloat16_rn(gsa::sm90::silu_approx(x.f[row * width + i])));
      } else {
        gates.push_back(-std::log1p(std::exp(-v)) / normalizer);
        strengths.push_back(-std::expm1(gates.back()));
      }
    }
  verdict.compare("g", gates, g);
  verdict.compare("s", strengths, s);
  in.q = made[0].data(), in.k = made[1].data(), in.v = made[2].data();
  gsa::sm90::sweep_fwd(device, {p.d, in, again.data(), ok_again.data(), hkT_again.data(), hvT_again.data()});
  Doubles plainly(wide);
  std::transform(again.begin(), again.end(), plainly.begin(), [](__nv_bfloat16 y) { return value(y); });
  verdict.compare("o", plainly, o);
  const auto same = [](const auto& a, const auto& b) {
    return std::memcmp(a.data(), b.data(), a.size() * sizeof(a[0])) == 0;
  };
  if (!same(o, again) || !same(ok, ok_again) || !same(hkT, hkT_again) || !same(hvT, hvT_again))
    verdict.pass = false, std::printf(" layer WRONG");
}
