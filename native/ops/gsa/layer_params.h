// Arguments of gsa_layer_fwd and gsa_layer_bwd, checked and named: gated slot attention together with the
// activations before it, whose joined rows of raw projections and of gradients are [q | k | v | f] of one
// token
// (../gsa_inputs).
#pragma once

#include <algorithm>
#include <initializer_list>

#include "params.h"

namespace gsa::slot_attention {

// bfloat16 or float32, as q, k and v.
struct Joined {
  const void* x;  // [B, T, width]
  void* dx;       // the same shape
  int64_t width;  // HQ K + H K + H V + H M
  float normalizer;
};

struct LayerFwd {
  ChunkFwd chunk;  // its s and g are written, too, and q, k and v where they are wanted
  const void* x;   // [B, T, width], joined
  float *g, *s;
  int64_t width;
  float normalizer;
  bool keeps;  // q, k and v are wanted
};

struct LayerBwd {
  ChunkBwd chunk;  // without dq, dk, dv, ds and dg; q, k and v are NULL where they were not kept
  Joined rows;
  float* absmax;  // of dx; NULL: not wanted
};

// q, k and v of a layer: as they are given, all or none; else described by what the others leave for them,
// without memory.
class Activated {
 public:
  bool given;
  // `o`: it or its gradient. `rows`: the three, which may be NULL.
  Activated(const gsa_tensor& x, const gsa_tensor& o, const gsa_tensor& s,
            std::initializer_list<const gsa_tensor*> rows) {
    expect_ndim(x, 3, "x");
    expect_ndim(o, 4, "o and its gradient");
    expect_ndim(s, 4, "s");
    const int64_t HQ = o.shape[2], V = o.shape[3], H = s.shape[2], M = s.shape[3];
    const int64_t K = (x.shape[2] - H * (V + M)) / std::max<int64_t>(HQ + H, 1);
    const int64_t heads[] = {HQ, H, H}, widths[] = {K, K, V};
    int there = 0;
    for (const gsa_tensor* t : rows) there += t != nullptr;
    given = there == 3;
    if (!given && there != 0)
      fail(GSA_INVALID_ARGUMENT, "Expected q, k and v, all or none, but received %d of them", there);
    for (int i = 0; i < 3; ++i) {
      const int64_t row = heads[i] * widths[i];
      tensors_[i] = given ? *rows.begin()[i]
                          : gsa_tensor{nullptr,
                                       {x.shape[0], x.shape[1], heads[i], widths[i]},
                                       {x.shape[1] * row, row, widths[i], 1},
                                       x.dtype,
                                       4};
    }
  }
  const gsa_tensor* operator[](int i) const { return &tensors_[i]; }
  // Memory, where there is none. `allocate(bytes)` gives some that outlives this.
  template <class Allocate>
  void make_room(Allocate allocate) {
    if (given) return;
    for (gsa_tensor& t : tensors_)
      t.data = allocate(static_cast<uint64_t>(element_count(t) * dtype_bytes(t.dtype)));
  }

 private:
  gsa_tensor tensors_[3];
};
inline Activated activated_fwd(const Args& args) {
  return {args.in(0),
          args.out(0),
          args.out(4),
          {args.out_optional(1), args.out_optional(2), args.out_optional(3)}};
}
inline Activated activated_bwd(const Args& args) {
  return {
      args.in(0), args.in(10), args.in(4), {args.in_optional(1), args.in_optional(2), args.in_optional(3)}};
}

// Calls `body` with the arguments as the operator has them:
// q k v s g hk0? hv0? cu_seqlens? -> o ok? hkT? hvT?, scale
template <class Body>
auto with_chunk_fwd(const Args& args, const Activated& rows, Body body) {
  const gsa_tensor* const in[] = {rows[0],
                                  rows[1],
                                  rows[2],
                                  &args.out(4),
                                  &args.out(5),
                                  args.in_optional(1),
                                  args.in_optional(2),
                                  args.in_optional(3)};
  const gsa_tensor* const out[] = {&args.out(0), args.out_optional(6), args.out_optional(7),
                                   args.out_optional(8)};
  const double scale = args.attr(0);
  const gsa_args chunk{in, out, &scale, 8, 4, 1, args.op()};
  return body(Args(chunk));
}
// q k v s g hk0? hv0? cu_seqlens? ok do dhkT? dhvT? -> `gradients`, scale
template <class Body>
auto with_chunk_bwd(const Args& args, const Activated& rows, const gsa_tensor* const* gradients, Body body) {
  const gsa_tensor* in[12] = {rows[0], rows[1], rows[2]};
  for (int i = 3; i < 12; ++i) in[i] = args.in_optional(i + 1);
  const double scale = args.attr(0);
  const gsa_args chunk{in, gradients, &scale, 12, 7, 1, args.op()};
  return body(Args(chunk));
}

// gsa_layer_fwd: x hk0? hv0? cu_seqlens? -> o q? k? v? s g ok? hkT? hvT?, scale normalizer
inline LayerFwd read_layer_fwd(const Args& args, int32_t dtype) {
  const Activated rows = activated_fwd(args);
  LayerFwd p{};
  p.chunk = with_chunk_fwd(args, rows, [&](const Args& chunk) { return read_chunk_fwd(chunk, dtype); });
  const Dims& d = p.chunk.dims;
  p.width = d.HQ * d.K + d.H * (d.K + d.V + d.M);
  p.x = dense_data(args.in(0), dtype, {d.B, d.T, p.width}, "x");
  p.s = static_cast<float*>(args.out(4).data), p.g = static_cast<float*>(args.out(5).data);
  p.normalizer = read_normalizer(args, 1);
  p.keeps = rows.given;
  return p;
}

// The same by the two ops that it joins.
template <class Allocate>
void compose_layer_fwd(gsa_device& device, const Args& args, Op inputs_fwd, Op chunk_fwd, Allocate allocate) {
  Activated rows = activated_fwd(args);
  rows.make_room(allocate);
  const double normalizer = args.attr(1);
  const gsa_tensor *const x[] = {&args.in(0)}, *const made[] = {rows[0], rows[1], rows[2], &args.out(5),
                                                                &args.out(4)};
  const gsa_args inputs{x, made, &normalizer, 1, 5, 1, args.op()};
  inputs_fwd(device, Args(inputs));
  with_chunk_fwd(args, rows, [&](const Args& chunk) { chunk_fwd(device, chunk); });
}

// gsa_layer_bwd: x q? k? v? s g hk0? hv0? cu_seqlens? ok do dhkT? dhvT? -> dx absmax? dhk0? dhv0?, scale
// normalizer
inline LayerBwd read_layer_bwd(const Args& args, int32_t dtype) {
  LayerBwd p{};
  ChunkBwd& c = p.chunk;
  c.in = with_chunk_bwd(args, activated_bwd(args), nullptr,
                        [&](const Args& chunk) { return read_inputs(chunk, dtype, c.dims, "hk0", "hv0"); });
  const Dims& d = c.dims;
  c.ok = static_cast<const float*>(dense_data(args.in(9), GSA_FLOAT32, {d.B, d.T, d.HQ, d.M}, "ok"));
  c.d_o = dense_data(args.in(10), dtype, {d.B, d.T, d.HQ, d.V}, "do");
  c.dhkT = read_state(args.in_optional(11), d, d.K, d.M, "dhkT");
  c.dhvT = read_state(args.in_optional(12), d, d.M, d.V, "dhvT");
  c.dhk0 = write_state(args.out_optional(2), d, d.K, d.M, "dhk0");
  c.dhv0 = write_state(args.out_optional(3), d, d.M, d.V, "dhv0");
  p.rows.width = d.HQ * d.K + d.H * (d.K + d.V + d.M);
  p.rows.x = dense_data(args.in(0), dtype, {d.B, d.T, p.rows.width}, "x");
  p.rows.dx = dense_data(args.out(0), dtype, {d.B, d.T, p.rows.width}, "dx");
  p.absmax = read_absmax(args.out_optional(1));
  p.rows.normalizer = read_normalizer(args, 1);
  return p;
}

// The same by the two ops that it joins, for where there is nothing faster; q, k and v are made again where
// they were not kept.
template <class Allocate>
void compose_layer_bwd(gsa_device& device, const Args& args, const LayerBwd& p, Op inputs_fwd, Op chunk_bwd,
                       Op inputs_bwd, Allocate allocate) {
  const Dims& d = p.chunk.dims;
  const double normalizer = args.attr(1);
  Activated rows = activated_bwd(args);
  if (!rows.given) {
    rows.make_room(allocate);
    const gsa_tensor *const x[] = {&args.in(0)}, *const made[] = {rows[0], rows[1], rows[2], nullptr,
                                                                  nullptr};
    const gsa_args inputs{x, made, &normalizer, 1, 5, 1, args.op()};
    inputs_fwd(device, Args(inputs));
  }
  const auto scratch = [&](int64_t heads, int64_t width, int32_t dtype) {
    gsa_tensor t{nullptr, {d.B, d.T, heads, width}, {d.T * heads * width, heads * width, width, 1}, dtype, 4};
    t.data = allocate(static_cast<uint64_t>(element_count(t) * dtype_bytes(dtype)));
    return t;
  };
  const int32_t dtype = args.in(0).dtype;
  const gsa_tensor dq = scratch(d.HQ, d.K, dtype), dk = scratch(d.H, d.K, dtype),
                   dv = scratch(d.H, d.V, dtype), ds = scratch(d.H, d.M, GSA_FLOAT32),
                   dg = scratch(d.H, d.M, GSA_FLOAT32);
  const gsa_tensor* const gradients[] = {&dq, &dk, &dv, &ds, &dg, args.out_optional(2), args.out_optional(3)};
  with_chunk_bwd(args, rows, gradients, [&](const Args& chunk) { chunk_bwd(device, chunk); });
  const gsa_tensor* const activated[] = {&dq, &dk, &dv, &dg, &ds, &args.in(0)};
  const gsa_tensor* const dx[] = {&args.out(0), args.out_optional(1)};
  const gsa_args inputs{activated, dx, &normalizer, 6, 2, 1, args.op()};
  inputs_bwd(device, Args(inputs));
}

}  // namespace gsa::slot_attention
