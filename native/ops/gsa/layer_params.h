// Arguments of gsa_layer_fwd and gsa_layer_bwd, checked and named: gated slot attention together with the
// activations before it, whose joined rows of raw projections and of gradients are [q | k | v | f] of one
// token
// (../gsa_inputs).
#pragma once

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
  ChunkFwd chunk;  // its q, k, v, s and g are written, too
  const void* x;   // [B, T, width], joined
  void *q, *k, *v;
  float *g, *s;
  int64_t width;
  float normalizer;
};

struct LayerBwd {
  ChunkBwd chunk;  // without dq, dk, dv, ds and dg
  Joined rows;
  float* absmax;  // of dx; NULL: not wanted
};

// gsa_layer_fwd: x hk0? hv0? cu_seqlens? -> o q k v s g ok? hkT? hvT?, scale normalizer
inline LayerFwd read_layer_fwd(const Args& args, int32_t dtype) {
  // As the operator has them: q k v s g hk0? hv0? cu_seqlens? -> o ok? hkT? hvT?
  const gsa_tensor* in[8];
  for (int i = 0; i < 5; ++i) in[i] = &args.out(i + 1);
  for (int i = 5; i < 8; ++i) in[i] = args.in_optional(i - 4);
  const gsa_tensor* const out[] = {&args.out(0), args.out_optional(6), args.out_optional(7),
                                   args.out_optional(8)};
  const double scale = args.attr(0);
  const gsa_args chunk{in, out, &scale, 8, 4, 1, args.op()};
  LayerFwd p{};
  p.chunk = read_chunk_fwd(Args(chunk), dtype);
  const Dims& d = p.chunk.dims;
  p.width = d.HQ * d.K + d.H * (d.K + d.V + d.M);
  p.x = dense_data(args.in(0), dtype, {d.B, d.T, p.width}, "x");
  p.q = in[0]->data, p.k = in[1]->data, p.v = in[2]->data;
  p.s = static_cast<float*>(in[3]->data), p.g = static_cast<float*>(in[4]->data);
  p.normalizer = read_normalizer(args, 1);
  return p;
}

// The same by the two ops that it joins.
inline void compose_layer_fwd(gsa_device& device, const Args& args, Op inputs_fwd, Op chunk_fwd) {
  const double scale = args.attr(0), normalizer = args.attr(1);
  const gsa_tensor *const x[] = {&args.in(0)}, *const made[] = {&args.out(1), &args.out(2), &args.out(3),
                                                                &args.out(5), &args.out(4)};
  const gsa_args inputs{x, made, &normalizer, 1, 5, 1, args.op()};
  inputs_fwd(device, Args(inputs));
  const gsa_tensor* in[8];
  for (int i = 0; i < 5; ++i) in[i] = &args.out(i + 1);
  for (int i = 5; i < 8; ++i) in[i] = args.in_optional(i - 4);
  const gsa_tensor* const out[] = {&args.out(0), args.out_optional(6), args.out_optional(7),
                                   args.out_optional(8)};
  const gsa_args chunk{in, out, &scale, 8, 4, 1, args.op()};
  chunk_fwd(device, Args(chunk));
}

// gsa_layer_bwd: x q k v s g hk0? hv0? cu_seqlens? ok do dhkT? dhvT? -> dx absmax? dhk0? dhv0?, scale
// normalizer
inline LayerBwd read_layer_bwd(const Args& args, int32_t dtype) {
  LayerBwd p{};
  ChunkBwd& c = p.chunk;
  c.in = read_inputs(args, dtype, c.dims, "hk0", "hv0", 1);
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

// The same by the two ops that it joins, for where there is nothing faster. `allocate(bytes)` gives scratch
// memory that outlives them.
template <class Allocate>
void compose_layer_bwd(gsa_device& device, const Args& args, const LayerBwd& p, Op chunk_bwd, Op inputs_bwd,
                       Allocate allocate) {
  const Dims& d = p.chunk.dims;
  const auto scratch = [&](int64_t heads, int64_t width, int32_t dtype) {
    gsa_tensor t{nullptr, {d.B, d.T, heads, width}, {d.T * heads * width, heads * width, width, 1}, dtype, 4};
    t.data = allocate(static_cast<uint64_t>(element_count(t) * dtype_bytes(dtype)));
    return t;
  };
  const int32_t dtype = args.in(0).dtype;
  const gsa_tensor dq = scratch(d.HQ, d.K, dtype), dk = scratch(d.H, d.K, dtype),
                   dv = scratch(d.H, d.V, dtype), ds = scratch(d.H, d.M, GSA_FLOAT32),
                   dg = scratch(d.H, d.M, GSA_FLOAT32);
  const gsa_tensor* in[12];
  for (int i = 0; i < 12; ++i) in[i] = args.in_optional(i + 1);
  const gsa_tensor* const gradients[] = {&dq, &dk, &dv, &ds, &dg, args.out_optional(2), args.out_optional(3)};
  const double scale = args.attr(0), normalizer = args.attr(1);
  const gsa_args chunk{in, gradients, &scale, 12, 7, 1, args.op()};
  chunk_bwd(device, Args(chunk));
  const gsa_tensor* const activated[] = {&dq, &dk, &dv, &dg, &ds, &args.in(0)};
  const gsa_tensor* const dx[] = {&args.out(0), args.out_optional(1)};
  const gsa_args inputs{activated, dx, &normalizer, 6, 2, 1, args.op()};
  inputs_bwd(device, Args(inputs));
}

}  // namespace gsa::slot_attention
