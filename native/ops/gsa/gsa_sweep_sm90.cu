// The sweeps, pass by pass.
#include <algorithm>
#include <type_traits>

#include "sweep_flow_sm90.cuh"
#include "sweep_forward_sm90.cuh"
#include "sweep_gates_sm90.cuh"
#include "sweep_groups_sm90.cuh"
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
using slot_attention::Joined;
using slot_attention::LayerBwd;
using slot_attention::LayerFwd;

bool sweep_takes(const Dims& d, int32_t dtype) {
  const bool slots = d.M == kSlots || (d.M == 2 * kSlots && d.HQ == d.H);
  const bool widths = d.K == d.V && (d.K == 64 || d.K == 128 || d.K == 256 || d.K == 512);
  return dtype == GSA_BFLOAT16 && slots && widths && d.N * d.HQ < (int64_t{1} << 28) &&
         d.B * d.T < (int64_t{1} << 31) - kStep;
}

namespace {

int halves_of(const Dims& d) { return static_cast<int>(d.M / kSlots); }

ForwardSweep forward_sweep(const Dims& d, const Inputs& in, const Documents& documents) {
  ForwardSweep a{};
  a.documents = documents;
  a.T = d.T;
  a.N = d.N;
  a.HQ = d.HQ;
  a.H = d.H;
  a.group = d.group();
  a.halves = halves_of(d);
  a.rows = d.B * d.T;
  a.s = in.s;
  a.g = in.g;
  return a;
}
int cluster_of(const Dims& d) { return static_cast<int>(std::max<int64_t>(std::max(d.K, d.V) / 128, 1)); }

void sweep_forth(gsa_device& device, const ChunkFwd& p, const LayerFwd* layer) {
  const Dims& d = p.dims;
  const CountedDocuments documents(device, d, p.in.cu_seqlens);
  ForwardSweep a = forward_sweep(d, p.in, documents.get());
  a.in_read = static_cast<const bf16*>(p.in.q);
  a.in_write = static_cast<const bf16*>(p.in.k);
  a.values = static_cast<const bf16*>(p.in.v);
  a.in_width = d.K;
  a.out_width = d.V;
  if (layer) {
    a.raw_stride = layer->width;
    a.in_read = static_cast<const bf16*>(layer->x);
    a.in_write = a.in_read + d.HQ * d.K;
    a.values = a.in_write + d.H * d.K;
    launch_gates(device, {a.values + d.H * d.V, layer->width, a.rows, static_cast<int>(d.H), layer->g,
                          layer->s, 1.0f / layer->normalizer});
  }
  const WalkStates states(device, d, p.in.cu_seqlens, cluster_of(d), {0, halves_of(d)}, 1,
                          key_state(d, p.in.hk0, p.hkT), value_state(d, p.in.hv0, p.hvT));
  a.ends = states.ends();
  a.in_scale = p.in.scale;
  a.out_scale = 1.0f;
  a.out = static_cast<bf16*>(p.o);
  a.ok = p.ok;
  Lines lines(device);
  launch_forward_sweep(device, lines, a, false);
  states.store();
}

}  // namespace

void sweep_fwd(gsa_device& device, const ChunkFwd& p) { sweep_forth(device, p, nullptr); }

bool sweep_takes_layer(const LayerFwd& p) {
  const Dims& d = p.chunk.dims;
  return d.M == kSlots && d.HQ == d.H && !p.keeps && cuda::aligned({p.x, p.g, p.s});
}
void sweep_layer_fwd(gsa_device& device, const LayerFwd& p) { sweep_forth(device, p.chunk, &p); }

bool sweep_is_faster(const gsa_device& device, const Dims& d, bool documents, bool backward) {
  const int64_t clusters = device.multiprocessors / cluster_of(d), eighths = d.K < 256 ? 6 : backward ? 5 : 4;
  const bool filled = !documents && 8 * d.N * d.HQ >= eighths * clusters;
  const int64_t least = d.K == 512 ? 4096 : 131072;  // tokens x heads
  if (d.M != kSlots) return filled && d.K == 512;
  return filled || (d.K >= 128 && d.B * d.T * d.HQ >= least);
}

namespace {

// What the backward passes hand to one another. One allocation; every part starts on 256 bytes.
struct SweepScratch {
  int64_t bytes = 0;
  float *norm, *dok, *flow, *anchor_flow;
  bf16* anchors;
  // Of every query head, where they are grouped: ds, and dv or dk. Layer form: ds.
  float* ds;
  bf16* shared;
  Documents documents{};

  SweepScratch(char* memory, const Dims& d, bool layer) {
    const int64_t rows = d.B * d.T * d.HQ, stored = d.B * d.T / kStep + d.N;
    const bool grouped = d.HQ != d.H;
    const auto take = [&](auto*& field, int64_t n) {
      field = reinterpret_cast<std::remove_reference_t<decltype(field)>>(memory + bytes);
      bytes += (n * static_cast<int64_t>(sizeof(*field)) + 255) / 256 * 256;
    };
    take(norm, rows);
    take(dok, rows * d.M);
    take(flow, rows * d.M);
    take(anchor_flow, stored * d.HQ * cluster_of(d) * 5 * d.M);
    take(anchors, stored * d.H * (d.K + d.V) * d.M);
    take(ds, grouped || layer ? rows * d.M : 0);
    take(shared, grouped ? rows * std::max(d.K, d.V) : 0);
  }
};

// The slopes for a part of the joined rows, at the same place as its gradient.
SiluSlope slope_of(const Joined* rows, const void* gradient) {
  SiluSlope slope{};
  if (!rows) return slope;
  slope.raw =
      static_cast<const bf16*>(rows->x) + (static_cast<const bf16*>(gradient) - static_cast<bf16*>(rows->dx));
  slope.stride = rows->width;
  return slope;
}

// dq, dok, and what dg needs; stores the states now and then.
void backward_forward(gsa_device& device, Lines& lines, const ChunkBwd& p, const Joined* rows,
                      const SweepScratch& x) {
  const Dims& d = p.dims;
  ForwardSweep a = forward_sweep(d, p.in, x.documents);
  a.in_read = static_cast<const bf16*>(p.d_o);
  a.in_write = static_cast<const bf16*>(p.in.v);
  a.values = static_cast<const bf16*>(p.in.k);
  a.in_width = d.V;
  a.out_width = d.K;
  const WalkStates states(device, d, p.in.cu_seqlens, cluster_of(d), {0, halves_of(d)}, 1,
                          value_state(d, p.in.hv0, nullptr), key_state(d, p.in.hk0, nullptr));
  a.ends = states.ends();
  a.in_scale = 1.0f;
  a.out_scale = p.in.scale;
  a.out = static_cast<bf16*>(p.dq);
  a.slope = slope_of(rows, p.dq);
  a.raw_stride = a.slope.stride;
  a.ok = const_cast<float*>(p.ok);
  launch_softmax(device, {p.ok, x.norm, d.B * d.T * d.HQ, halves_of(d)});
  a.norm = x.norm;
  a.dok = x.dok;
  a.flow = x.flow;
  a.anchors = x.anchors;
  launch_forward_sweep(device, lines, a, true);
}

ReverseSweep reverse_sweep(const ChunkBwd& p, const SweepScratch& x, int half) {
  const Dims& d = p.dims;
  ReverseSweep a{};
  a.halves = halves_of(d);
  a.half = half;
  a.documents = x.documents;
  a.T = d.T;
  a.N = d.N;
  a.HQ = d.HQ;
  a.H = d.H;
  a.rows = d.B * d.T;
  a.s = p.in.s;
  a.g = p.in.g;
  a.ds = d.HQ == d.H && p.ds ? p.ds : x.ds;
  a.anchors = x.anchors;
  a.anchor_slices[0] = static_cast<int>(d.V / cluster_of(d));
  a.anchor_slices[1] = static_cast<int>(d.K / cluster_of(d));
  a.flow = x.anchor_flow;
  return a;
}

// One reverse sweep, its outputs summed over the query heads of every group.
void sweep_back(gsa_device& device, Lines& lines, ReverseSweep& a, const Dims& d, const SweepScratch& x,
                bf16* out, bool key_side) {
  const bool grouped = d.HQ != d.H;
  a.out = grouped ? x.shared : out;
  launch_reverse_sweep(device, lines, a, cluster_of(d), key_side);
  if (grouped)
    launch_group_sum(device, {x.shared, out, a.rows * d.H * a.width / 8, static_cast<int>(d.group()),
                              static_cast<int>(a.width)});
}

void backward_values(gsa_device& device, Lines& lines, const ChunkBwd& p, const Joined* rows,
                     const SweepScratch& x, int half) {
  ReverseSweep a = reverse_sweep(p, x, half);
  a.slope = slope_of(rows, p.dv);
  a.strength = p.ok;
  a.norm = x.norm;
  a.write = static_cast<const bf16*>(p.d_o);
  a.read = static_cast<const bf16*>(p.in.v);
  a.width = p.dims.V;
  // Both roles hold the gradient; the first one tells the user.
  const Dims& d = p.dims;
  const WalkStates states(device, d, p.in.cu_seqlens, cluster_of(d), {half, 1}, static_cast<int>(d.group()),
                          value_state(d, p.dhvT, p.dhv0), value_state(d, p.dhvT, nullptr));
  a.ends = states.ends();
  sweep_back(device, lines, a, d, x, static_cast<bf16*>(p.dv), false);
  states.store();
}

void backward_keys(gsa_device& device, Lines& lines, const ChunkBwd& p, const Joined* rows,
                   const SweepScratch& x, int half) {
  ReverseSweep a = reverse_sweep(p, x, half);
  a.slope = slope_of(rows, p.dk);
  a.strength = x.dok;
  a.write = static_cast<const bf16*>(p.in.q);
  a.read = static_cast<const bf16*>(p.in.k);
  a.width = p.dims.K;
  const Dims& d = p.dims;
  const WalkStates states(device, d, p.in.cu_seqlens, cluster_of(d), {half, 1}, static_cast<int>(d.group()),
                          key_state(d, p.dhkT, p.dhk0), key_state(d, p.dhkT, nullptr));
  a.ends = states.ends();
  sweep_back(device, lines, a, d, x, static_cast<bf16*>(p.dk), true);
  states.store();
}

GateSlope gate_slope(const Dims& d, const Joined* rows) {
  if (!rows) return {};
  const int64_t f = rows->width - d.H * d.M;
  return {static_cast<const bf16*>(rows->x) + f, static_cast<bf16*>(rows->dx) + f, rows->width,
          1.0f / rows->normalizer};
}

// What dg starts from where there are initial states: their gradients, which the user need not want.
class InitialStates {
 public:
  InitialStates(gsa_device& device, ChunkBwd& p) : device_(device), p_(p) {
    const Dims& d = p.dims;
    const int64_t keys = p.in.hk0 ? d.N * d.H * d.K * d.M : 0, values = p.in.hv0 ? d.N * d.H * d.V * d.M : 0,
                  crossing = keys || values ? d.N * d.H * d.M : 0;
    if (crossing == 0) return;
    memory_ =
        std::make_unique<Scratch>(device, (keys + values + crossing) * static_cast<int64_t>(sizeof(float)));
    float* x = memory_->as<float>();
    crossing_ = x + keys + values;
    if (keys && !p.dhk0) p.dhk0 = x;
    if (values && !p.dhv0) p.dhv0 = x + keys;
  }
  // After the passes that make the gradients. NULL: no initial states.
  const float* crossing() const {
    const Dims& d = p_.dims;
    if (crossing_)
      launch_first_crossing(
          device_, d.N * d.H,
          {static_cast<int>(d.M), d.K, d.V, p_.in.hk0, p_.dhk0, p_.in.hv0, p_.dhv0, crossing_});
    return crossing_;
  }

 private:
  gsa_device& device_;
  const ChunkBwd& p_;
  std::unique_ptr<Scratch> memory_;
  float* crossing_ = nullptr;
};

void sweep_back(gsa_device& device, ChunkBwd p, const Joined* rows) {
  const InitialStates initial(device, p);
  const Dims& d = p.dims;
  const Scratch memory(device, SweepScratch(nullptr, d, rows).bytes);
  SweepScratch x(memory.as<char>(), d, rows);
  const CountedDocuments documents(device, d, p.in.cu_seqlens);
  x.documents = documents.get();
  Lines lines(device);
  backward_forward(device, lines, p, rows, x);
  const int halves = halves_of(d);
  for (int half = 0; half < halves; ++half) backward_values(device, lines, p, rows, x, half);
  for (int half = 0; half < halves; ++half) backward_keys(device, lines, p, rows, x, half);
  const bool grouped = d.HQ != d.H;
  // To it halves are heads: where there are two, every key/value head has one query head.
  launch_flow(device, {x.documents, d.T, d.N, d.HQ * halves, d.H * halves, cluster_of(d), initial.crossing(),
                       p.in.s, x.flow, grouped || rows ? x.ds : p.ds, x.anchor_flow, p.dg,
                       grouped ? p.ds : nullptr, gate_slope(d, rows)});
}

}  // namespace

void sweep_bwd(gsa_device& device, const ChunkBwd& p) { sweep_back(device, p, nullptr); }

bool sweep_takes_layer(const LayerBwd& p) {
  const Dims& d = p.chunk.dims;
  return d.M == kSlots && d.HQ == d.H && !p.absmax && cuda::aligned({p.rows.x, p.rows.dx});
}
void sweep_layer_bwd(gsa_device& device, const LayerBwd& p) {
  // Rows and gradients in their places in the joined ones; ds and dg are not wanted.
  const Dims& d = p.chunk.dims;
  ChunkBwd chunk = p.chunk;
  const auto* q = static_cast<const bf16*>(p.rows.x);
  chunk.in.q = q;
  chunk.in.k = q + d.HQ * d.K;
  chunk.in.v = q + (d.HQ + d.H) * d.K;
  chunk.dq = p.rows.dx;
  chunk.dk = static_cast<bf16*>(chunk.dq) + d.HQ * d.K;
  chunk.dv = static_cast<bf16*>(chunk.dk) + d.H * d.K;
  sweep_back(device, chunk, &p.rows);
}

}  // namespace gsa::sm90
