// The sweeps, pass by pass.
#include <algorithm>
#include <type_traits>

#include "sweep_flow_sm90.cuh"
#include "sweep_forward_sm90.cuh"
#include "sweep_reverse_sm90.cuh"
#include "sweep_softmax_sm90.cuh"
#include "sweep_states_sm90.cuh"
#include "sweeps_sm90.h"

namespace gsa::sm90 {

using cuda::Scratch;
using slot_attention::ChunkBwd;
using slot_attention::ChunkFwd;
using slot_attention::Dims;
using slot_attention::Inputs;

bool sweep_takes(const Dims& d, int32_t dtype) {
  const bool widths = d.K == d.V && (d.K == 64 || d.K == 128 || d.K == 256 || d.K == 512);
  return dtype == GSA_BFLOAT16 && d.M == kSlots && widths && d.N * d.HQ < (int64_t{1} << 28) &&
         d.B * d.T < (int64_t{1} << 31) - kStep;
}

namespace {

ForwardSweep forward_sweep(const Dims& d, const Inputs& in, const Documents& documents) {
  ForwardSweep a{};
  a.documents = documents;
  a.T = d.T;
  a.N = d.N;
  a.HQ = d.HQ;
  a.H = d.H;
  a.group = d.group();
  a.rows = d.B * d.T;
  a.s = in.s;
  a.g = in.g;
  return a;
}
int cluster_of(const Dims& d) { return static_cast<int>(std::max<int64_t>(std::max(d.K, d.V) / 128, 1)); }

}  // namespace

void sweep_fwd(gsa_device& device, const ChunkFwd& p) {
  const Dims& d = p.dims;
  const CountedDocuments documents(device, d, p.in.cu_seqlens);
  ForwardSweep a = forward_sweep(d, p.in, documents.get());
  a.in_read = static_cast<const bf16*>(p.in.q);
  a.in_write = static_cast<const bf16*>(p.in.k);
  a.values = static_cast<const bf16*>(p.in.v);
  a.in_width = d.K;
  a.out_width = d.V;
  const WalkStates states(device, d, p.in.cu_seqlens, cluster_of(d), key_state(d, p.in.hk0, p.hkT),
                          value_state(d, p.in.hv0, p.hvT));
  a.ends = states.ends();
  a.in_scale = p.in.scale;
  a.out_scale = 1.0f;
  a.out = static_cast<bf16*>(p.o);
  a.ok = p.ok;
  launch_forward_sweep(device, a, false);
  states.store();
}

bool sweep_is_faster(const gsa_device& device, const Dims& d, bool documents, bool backward) {
  const int64_t clusters = device.multiprocessors / cluster_of(d);
  return !documents && 2 * d.N * d.HQ >= clusters && d.K >= (backward ? 256 : 128);
}

bool sweep_bwd_takes(const Dims& d, int32_t dtype) { return sweep_takes(d, dtype) && d.HQ == d.H; }

namespace {

// What the backward passes hand to one another. One allocation; every part starts on 256 bytes.
struct SweepScratch {
  int64_t bytes = 0;
  float *norm, *dok, *flow, *anchor_flow;
  bf16* anchors;
  Documents documents{};

  SweepScratch(char* memory, const Dims& d) {
    const int64_t rows = d.B * d.T * d.H, stored = (d.B * d.T / kStep + d.N) * d.H;
    const auto take = [&](auto*& field, int64_t n) {
      field = reinterpret_cast<std::remove_reference_t<decltype(field)>>(memory + bytes);
      bytes += (n * static_cast<int64_t>(sizeof(*field)) + 255) / 256 * 256;
    };
    take(norm, rows);
    take(dok, rows * kSlots);
    take(flow, rows * kSlots);
    take(anchor_flow, stored * cluster_of(d) * 5 * kSlots);
    take(anchors, stored * (d.K + d.V) * kSlots);
  }
};

// dq, dok, and what dg needs; stores the states now and then.
void backward_forward(gsa_device& device, const ChunkBwd& p, const SweepScratch& x) {
  const Dims& d = p.dims;
  ForwardSweep a = forward_sweep(d, p.in, x.documents);
  a.in_read = static_cast<const bf16*>(p.d_o);
  a.in_write = static_cast<const bf16*>(p.in.v);
  a.values = static_cast<const bf16*>(p.in.k);
  a.in_width = d.V;
  a.out_width = d.K;
  const WalkStates states(device, d, p.in.cu_seqlens, cluster_of(d), value_state(d, p.in.hv0, nullptr),
                          key_state(d, p.in.hk0, nullptr));
  a.ends = states.ends();
  a.in_scale = 1.0f;
  a.out_scale = p.in.scale;
  a.out = static_cast<bf16*>(p.dq);
  a.ok = const_cast<float*>(p.ok);
  launch_softmax(device, {p.ok, x.norm, d.B * d.T * d.HQ});
  a.norm = x.norm;
  a.dok = x.dok;
  a.flow = x.flow;
  a.anchors = x.anchors;
  launch_forward_sweep(device, a, true);
}

ReverseSweep reverse_sweep(const ChunkBwd& p, const SweepScratch& x) {
  const Dims& d = p.dims;
  ReverseSweep a{};
  a.documents = x.documents;
  a.T = d.T;
  a.N = d.N;
  a.H = d.H;
  a.rows = d.B * d.T;
  a.s = p.in.s;
  a.g = p.in.g;
  a.ds = p.ds;
  a.anchors = x.anchors;
  a.anchor_slices[0] = static_cast<int>(d.V / cluster_of(d));
  a.anchor_slices[1] = static_cast<int>(d.K / cluster_of(d));
  a.flow = x.anchor_flow;
  return a;
}

void backward_values(gsa_device& device, const ChunkBwd& p, const SweepScratch& x) {
  ReverseSweep a = reverse_sweep(p, x);
  a.strength = p.ok;
  a.norm = x.norm;
  a.write = static_cast<const bf16*>(p.d_o);
  a.read = static_cast<const bf16*>(p.in.v);
  a.width = p.dims.V;
  // Both roles hold the gradient; the first one tells the user.
  const WalkStates states(device, p.dims, p.in.cu_seqlens, cluster_of(p.dims),
                          value_state(p.dims, p.dhvT, p.dhv0), value_state(p.dims, p.dhvT, nullptr));
  a.ends = states.ends();
  a.out = static_cast<bf16*>(p.dv);
  launch_reverse_sweep(device, a, cluster_of(p.dims), false);
  states.store();
}

void backward_keys(gsa_device& device, const ChunkBwd& p, const SweepScratch& x) {
  ReverseSweep a = reverse_sweep(p, x);
  a.strength = x.dok;
  a.write = static_cast<const bf16*>(p.in.q);
  a.read = static_cast<const bf16*>(p.in.k);
  a.width = p.dims.K;
  const WalkStates states(device, p.dims, p.in.cu_seqlens, cluster_of(p.dims),
                          key_state(p.dims, p.dhkT, p.dhk0), key_state(p.dims, p.dhkT, nullptr));
  a.ends = states.ends();
  a.out = static_cast<bf16*>(p.dk);
  launch_reverse_sweep(device, a, cluster_of(p.dims), true);
  states.store();
}

}  // namespace

void sweep_bwd(gsa_device& device, const ChunkBwd& p) {
  const Dims& d = p.dims;
  const Scratch memory(device, SweepScratch(nullptr, d).bytes);
  SweepScratch x(memory.as<char>(), d);
  const CountedDocuments documents(device, d, p.in.cu_seqlens);
  x.documents = documents.get();
  backward_forward(device, p, x);
  backward_values(device, p, x);
  backward_keys(device, p, x);
  launch_flow(device, {x.documents, d.T, d.N, d.H, cluster_of(d), !p.in.hk0 && !p.in.hv0, x.flow, p.in.s,
                       p.ds, x.anchor_flow, p.dg});
}

}  // namespace gsa::sm90
