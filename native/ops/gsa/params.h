// Arguments of the gated slot attention ops, checked and named. Host C++ shared by every backend: it reads
// the tensors' descriptions, never their data (cu_seqlens may live in device memory; check_cu_seqlens is for
// who can read it).
#pragma once

#include <cmath>
#include <cstdint>

#include "../../abi/args.h"

namespace gsa::slot_attention {

struct Dims {
  int64_t B;   // batch
  int64_t T;   // tokens per batch item; with cu_seqlens B = 1 and T counts the tokens of all sequences
  int64_t HQ;  // query heads
  int64_t H;   // key/value heads; query head h reads key/value head h / (HQ / H)
  int64_t K;   // query and key width
  int64_t V;   // value width
  int64_t M;   // memory slots
  int64_t N;   // sequences, each with its own state: B, or cu_seqlens' length - 1

  int64_t group() const { return HQ / H; }
};

// q, k, v and everything shaped like them have the dtype the backend asked for; the rest is float32.
struct Inputs {
  const void* q;     // [B, T, HQ, K]
  const void* k;     // [B, T, H, K]
  const void* v;     // [B, T, H, V]
  const float* s;    // [B, T, H, M] write strength
  const float* g;    // [B, T, H, M] log forget gate, <= 0
  const float* hk0;  // [N, H, K, M] key state before each sequence; NULL: zeros
  const float* hv0;  // [N, H, M, V] value state before each sequence; NULL: zeros
  const int32_t*
      cu_seqlens;  // [N + 1] first token of each sequence and T; NULL: every batch item is one sequence
  float scale;     // of the slot logits
};

struct ChunkFwd {
  Dims dims;
  Inputs in;
  void* o;     // [B, T, HQ, V]
  float* ok;   // [B, T, HQ, M] scaled slot logits before the softmax; NULL: not wanted
  float* hkT;  // [N, H, K, M] key state after each sequence; NULL: not wanted
  float* hvT;  // [N, H, M, V]
};

struct ChunkBwd {
  Dims dims;
  Inputs in;
  const float* ok;    // as saved by the forward pass
  const void* d_o;    // [B, T, HQ, V]
  const float* dhkT;  // [N, H, K, M]; NULL: zeros
  const float* dhvT;  // [N, H, M, V]; NULL: zeros
  void* dq;  // gradients, each shaped like its input; those of shared heads are summed over the group
  void* dk;
  void* dv;
  float* ds;
  float* dg;
  float* dhk0;  // NULL: not wanted
  float* dhv0;
};

struct Recurrent {
  Dims dims;
  Inputs in;
  void* o;  // [B, T, HQ, V]
  float*
      hk_out;  // [N, H, K, M] state after the last step; may be the same memory as hk0 (an update in place)
  float* hv_out;  // [N, H, M, V]
};

inline Dims read_dims(const gsa_tensor& q, const gsa_tensor& k, const gsa_tensor& v, const gsa_tensor& s,
                      const gsa_tensor* cu_seqlens) {
  expect_ndim(q, 4, "q");
  expect_ndim(k, 4, "k");
  expect_ndim(v, 4, "v");
  expect_ndim(s, 4, "s");
  Dims d{q.shape[0], q.shape[1], q.shape[2], k.shape[2], q.shape[3], v.shape[3], s.shape[3], q.shape[0]};
  if (d.HQ < 1 || d.H < 1 || d.K < 1 || d.V < 1 || d.M < 1)
    fail(GSA_INVALID_ARGUMENT,
         "Expected at least one head, slot and channel but received q %s, k %s, v %s, s %s",
         shape_text(q).c_str(), shape_text(k).c_str(), shape_text(v).c_str(), shape_text(s).c_str());
  if (d.HQ % d.H != 0)
    fail(GSA_INVALID_ARGUMENT,
         "Expected a number of query heads that the %lld key/value heads divide but received %lld heads in q",
         static_cast<long long>(d.H), static_cast<long long>(d.HQ));
  if (!cu_seqlens) return d;
  expect_ndim(*cu_seqlens, 1, "cu_seqlens");
  if (cu_seqlens->shape[0] < 2)
    fail(GSA_INVALID_ARGUMENT, "Expected at least 2 offsets (0 and T) for cu_seqlens but received %lld",
         static_cast<long long>(cu_seqlens->shape[0]));
  if (d.B != 1)
    fail(GSA_INVALID_ARGUMENT,
         "Expected batch size 1 with cu_seqlens but received %lld; concatenate the sequences along T",
         static_cast<long long>(d.B));
  d.N = cu_seqlens->shape[0] - 1;
  return d;
}

inline const float* read_state(const gsa_tensor* t, const Dims& d, int64_t rows, int64_t columns,
                               const char* name) {
  if (t) expect_dense(*t, GSA_FLOAT32, {d.N, d.H, rows, columns}, name);
  return data_or_null<const float>(t);
}
inline float* write_state(const gsa_tensor* t, const Dims& d, int64_t rows, int64_t columns,
                          const char* name) {
  return const_cast<float*>(read_state(t, d, rows, columns, name));
}

// The eight inputs that all ops share, from number `first` on.
inline Inputs read_inputs(const Args& args, int32_t dtype, Dims& d, const char* hk_name, const char* hv_name,
                          int first = 0) {
  const gsa_tensor *q = &args.in(first), *k = &args.in(first + 1), *v = &args.in(first + 2),
                   *s = &args.in(first + 3), *g = &args.in(first + 4);
  const gsa_tensor* cu_seqlens = args.in_optional(first + 7);
  d = read_dims(*q, *k, *v, *s, cu_seqlens);
  expect_dense(*q, dtype, {d.B, d.T, d.HQ, d.K}, "q");
  expect_dense(*k, dtype, {d.B, d.T, d.H, d.K}, "k");
  expect_dense(*v, dtype, {d.B, d.T, d.H, d.V}, "v");
  expect_dense(*s, GSA_FLOAT32, {d.B, d.T, d.H, d.M}, "s");
  expect_dense(*g, GSA_FLOAT32, {d.B, d.T, d.H, d.M}, "g");
  if (cu_seqlens) expect_dense(*cu_seqlens, GSA_INT32, {d.N + 1}, "cu_seqlens");
  const double scale = args.attr(0);
  if (!std::isfinite(scale))
    fail(GSA_INVALID_ARGUMENT, "Expected a finite number for scale but received %g", scale);
  return {q->data,
          k->data,
          v->data,
          static_cast<const float*>(s->data),
          static_cast<const float*>(g->data),
          read_state(args.in_optional(first + 5), d, d.K, d.M, hk_name),
          read_state(args.in_optional(first + 6), d, d.M, d.V, hv_name),
          data_or_null<const int32_t>(cu_seqlens),
          static_cast<float>(scale)};
}

inline void* dense_data(const gsa_tensor& t, int32_t dtype, std::initializer_list<int64_t> shape,
                        const char* name) {
  expect_dense(t, dtype, shape, name);
  return t.data;
}

// gsa_chunk_fwd: q k v s g hk0? hv0? cu_seqlens? -> o ok? hkT? hvT?, scale
inline ChunkFwd read_chunk_fwd(const Args& args, int32_t dtype) {
  ChunkFwd p{};
  p.in = read_inputs(args, dtype, p.dims, "hk0", "hv0");
  const Dims& d = p.dims;
  p.o = dense_data(args.out(0), dtype, {d.B, d.T, d.HQ, d.V}, "o");
  if (args.out_optional(1))
    p.ok = static_cast<float*>(dense_data(args.out(1), GSA_FLOAT32, {d.B, d.T, d.HQ, d.M}, "ok"));
  p.hkT = write_state(args.out_optional(2), d, d.K, d.M, "hkT");
  p.hvT = write_state(args.out_optional(3), d, d.M, d.V, "hvT");
  return p;
}

// gsa_chunk_bwd: q k v s g hk0? hv0? cu_seqlens? ok do dhkT? dhvT? -> dq dk dv ds dg dhk0? dhv0?, scale
inline ChunkBwd read_chunk_bwd(const Args& args, int32_t dtype) {
  ChunkBwd p{};
  p.in = read_inputs(args, dtype, p.dims, "hk0", "hv0");
  const Dims& d = p.dims;
  p.ok = static_cast<const float*>(dense_data(args.in(8), GSA_FLOAT32, {d.B, d.T, d.HQ, d.M}, "ok"));
  p.d_o = dense_data(args.in(9), dtype, {d.B, d.T, d.HQ, d.V}, "do");
  p.dhkT = read_state(args.in_optional(10), d, d.K, d.M, "dhkT");
  p.dhvT = read_state(args.in_optional(11), d, d.M, d.V, "dhvT");
  p.dq = dense_data(args.out(0), dtype, {d.B, d.T, d.HQ, d.K}, "dq");
  p.dk = dense_data(args.out(1), dtype, {d.B, d.T, d.H, d.K}, "dk");
  p.dv = dense_data(args.out(2), dtype, {d.B, d.T, d.H, d.V}, "dv");
  p.ds = static_cast<float*>(dense_data(args.out(3), GSA_FLOAT32, {d.B, d.T, d.H, d.M}, "ds"));
  p.dg = static_cast<float*>(dense_data(args.out(4), GSA_FLOAT32, {d.B, d.T, d.H, d.M}, "dg"));
  p.dhk0 = write_state(args.out_optional(5), d, d.K, d.M, "dhk0");
  p.dhv0 = write_state(args.out_optional(6), d, d.M, d.V, "dhv0");
  return p;
}

// gsa_recurrent: q k v s g hk? hv? cu_seqlens? -> o hk_out hv_out, scale
inline Recurrent read_recurrent(const Args& args, int32_t dtype) {
  Recurrent p{};
  p.in = read_inputs(args, dtype, p.dims, "hk", "hv");
  const Dims& d = p.dims;
  p.o = dense_data(args.out(0), dtype, {d.B, d.T, d.HQ, d.V}, "o");
  p.hk_out = write_state(&args.out(1), d, d.K, d.M, "hk_out");
  p.hv_out = write_state(&args.out(2), d, d.M, d.V, "hv_out");
  return p;
}

// Offsets in host memory must be 0 = c[0] <= c[1] <= ... <= c[N] = T; an empty sequence repeats its offset.
inline void check_cu_seqlens(const int32_t* c, const Dims& d) {
  if (c[0] != 0) fail(GSA_INVALID_ARGUMENT, "Expected cu_seqlens to start with 0 but received %d", c[0]);
  for (int64_t n = 0; n < d.N; ++n)
    if (c[n + 1] < c[n])
      fail(GSA_INVALID_ARGUMENT, "Expected cu_seqlens not to decrease but received %d after %d at index %lld",
           c[n + 1], c[n], static_cast<long long>(n + 1));
  if (c[d.N] != d.T)
    fail(GSA_INVALID_ARGUMENT, "Expected cu_seqlens to end with T = %lld but received %d",
         static_cast<long long>(d.T), c[d.N]);
}

// Sequence n is rows [begin, end) of the B * T rows of the token tensors.
struct RowRange {
  int64_t begin, end;
};
inline RowRange sequence_rows(const Dims& d, const int32_t* cu_seqlens, int64_t n) {
  if (cu_seqlens) return {cu_seqlens[n], cu_seqlens[n + 1]};
  return {n * d.T, (n + 1) * d.T};
}

}  // namespace gsa::slot_attention
