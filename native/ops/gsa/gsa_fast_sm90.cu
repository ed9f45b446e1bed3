// The tensor-core path, pass by pass.
#include "chunks_sm90.cuh"
#include "columns_sm90.cuh"
#include "fast_sm90.h"
#include "rows_sm90.cuh"

#include <type_traits>

namespace gsa::sm90 {

using cuda::Scratch;
using slot_attention::ChunkBwd;
using slot_attention::ChunkFwd;
using slot_attention::Dims;
using slot_attention::Inputs;

bool fast_takes(const Dims& d, int32_t dtype) {
  const auto width = [](int64_t n) { return n % kTile == 0 && n <= 512; };
  // Chunk and block numbers are 32 bits wide.
  const int64_t most = (int64_t{1} << 31) / (32 * d.HQ);
  const bool small = d.T / kC + d.N < most && d.B * d.T / kC < most;
  return dtype == GSA_BFLOAT16 && width(d.K) && width(d.V) && slots_fit(d.M) && small;
}

bool exact_costs_little(const gsa_device& device, const Dims& d, bool packed) {
  return table_places(d, packed) * d.HQ <= device.multiprocessors;
}

namespace {

StateWalk forward_states(const Dims& d, const Inputs& in, const Chunks& chunks, bf16* tiles) {
  StateWalk w{};
  w.chunks = chunks;
  w.N = d.N;
  w.H = d.H;
  w.G = 1;
  w.key = {static_cast<const bf16*>(in.k), chunks.s_to_end, d.K, in.hk0, nullptr, d.M, 1};
  w.value = {static_cast<const bf16*>(in.v), chunks.s_to_end, d.V, in.hv0, nullptr, 1, d.V};
  w.tiles = tiles;
  return w;
}

void forward_rows(RowPass& rows, const Dims& d, const Inputs& in) {
  rows.in_rows = static_cast<const bf16*>(in.q);
  rows.in_keys = static_cast<const bf16*>(in.k);
  rows.out_keys = static_cast<const bf16*>(in.v);
  rows.in_width = d.K;
  rows.out_width = d.V;
  rows.in_first = 0;
  rows.out_first = static_cast<int>(d.K / kTile);
  rows.in_scale = in.scale;
  rows.out_scale = 1.0f;
}

RowPass row_pass(const Dims& d, const Inputs& in, const Chunks& chunks, const bf16* tiles) {
  RowPass r{};
  r.chunks = chunks;
  r.HQ = d.HQ;
  r.H = d.H;
  r.s = in.s;
  r.g = in.g;
  r.tiles = tiles;
  return r;
}

}  // namespace

void fast_fwd(gsa_device& device, const ChunkFwd& p, bool exact) {
  const Dims& d = p.dims;
  const ChunkScratch scratch(device, d, p.in, exact);
  const Chunks& chunks = scratch.chunks;
  const Scratch tiles(
      device, chunks.count * d.H * slices(d) * slot_places(d.M) * chunks.parts() * kTile * sizeof(bf16));
  StateWalk states = forward_states(d, p.in, chunks, tiles.as<bf16>());
  states.key.end = p.hkT;
  states.value.end = p.hvT;
  walk_states(device, states, false);
  RowPass rows = row_pass(d, p.in, chunks, tiles.as<bf16>());
  forward_rows(rows, d, p.in);
  rows.out = static_cast<bf16*>(p.o);
  rows.ok = p.ok;
  launch_rows(device, rows, Rows::kForward);
}

namespace {

// What the backward passes hand to one another. One allocation; every part starts on 256 bytes.
struct BackwardScratch {
  int64_t bytes = 0;
  bf16 *tiles, *gradient_tiles;                                 // [chunks, H, slices, kTiles, 64, 64]
  bf16 *p_decayed, *dok_decayed, *value_weights, *key_weights;  // see RowPass
  float *p, *dok, *flow, *start_flow;
  float *later, *key_sum, *value_sum;  // exact; the sums for groups only: see ColumnPass

  BackwardScratch(char* memory, const Dims& d, const Chunks& chunks) {
    const int64_t slots = d.B * d.T * d.HQ * slot_places(d.M), parts = chunks.parts(),
                  state = chunks.count * d.H * slices(d) * slot_places(d.M),
                  pairs = chunks.count * d.HQ * kTileElements, own_slots = slots / d.group(),
                  own = d.B * d.T * d.H;
    const auto take = [&](auto*& field, int64_t n) {
      field = reinterpret_cast<std::remove_reference_t<decltype(field)>>(memory + bytes);
      bytes += (n * static_cast<int64_t>(sizeof(*field)) + 255) / 256 * 256;
    };
    take(tiles, state * parts * kTile);
    take(gradient_tiles, state * parts * kTile);
    take(p_decayed, slots * parts);
    take(dok_decayed, slots * parts);
    take(value_weights, pairs * parts);
    take(key_weights, pairs * parts);
    take(p, slots);
    take(dok, slots);
    take(flow, slots);
    take(start_flow, state);
    const bool sums = chunks.exact && d.group() > 1;
    take(later, chunks.exact ? own_slots : 0);
    take(key_sum, sums ? own * d.K : 0);
    take(value_sum, sums ? own * d.V : 0);
    if (!sums) key_sum = value_sum = nullptr;
  }
};

// dq, and the gradients of the slots.
void backward_rows(gsa_device& device, const ChunkBwd& p, const Chunks& chunks, const BackwardScratch& x) {
  const Dims& d = p.dims;
  RowPass rows = row_pass(d, p.in, chunks, x.tiles);
  rows.flow = x.flow;
  if (chunks.exact) {
    forward_rows(rows, d, p.in);
    launch_rows(device, rows, Rows::kPast);
  }
  rows.in_rows = static_cast<const bf16*>(p.d_o);
  rows.in_keys = static_cast<const bf16*>(p.in.v);
  rows.out_keys = static_cast<const bf16*>(p.in.k);
  rows.in_width = d.V;
  rows.out_width = d.K;
  rows.in_first = static_cast<int>(d.K / kTile);
  rows.out_first = 0;
  rows.in_scale = 1.0f;
  rows.out_scale = p.in.scale;
  rows.out = static_cast<bf16*>(p.dq);
  rows.ok = const_cast<float*>(p.ok);
  rows.p = x.p;
  rows.dok = x.dok;
  rows.p_decayed = x.p_decayed;
  rows.dok_decayed = x.dok_decayed;
  rows.value_weights = x.value_weights;
  rows.key_weights = x.key_weights;
  launch_rows(device, rows, Rows::kBackward);
}

void backward_states(gsa_device& device, const ChunkBwd& p, const Chunks& chunks, const BackwardScratch& x) {
  const Dims& d = p.dims;
  StateWalk w = forward_states(d, p.in, chunks, x.gradient_tiles);
  w.G = d.group();
  w.key = {static_cast<const bf16*>(p.in.q), x.dok_decayed, d.K, p.dhkT, p.dhk0, d.M, 1};
  w.value = {static_cast<const bf16*>(p.d_o), x.p_decayed, d.V, p.dhvT, p.dhv0, 1, d.V};
  w.past = x.tiles;
  w.flow = x.start_flow;
  walk_states(device, w, true);
}

void backward_columns(gsa_device& device, const ChunkBwd& p, const Chunks& chunks, const BackwardScratch& x) {
  const Dims& d = p.dims;
  ColumnPass columns{};
  columns.chunks = chunks;
  columns.H = d.H;
  columns.G = d.group();
  columns.s = p.in.s;
  columns.g = p.in.g;
  columns.key = {static_cast<const bf16*>(p.in.q),
                 static_cast<const bf16*>(p.in.k),
                 x.key_weights,
                 static_cast<bf16*>(p.dk),
                 x.key_sum,
                 d.K,
                 0,
                 p.in.scale};
  columns.value = {static_cast<const bf16*>(p.d_o),
                   static_cast<const bf16*>(p.in.v),
                   x.value_weights,
                   static_cast<bf16*>(p.dv),
                   x.value_sum,
                   d.V,
                   static_cast<int>(d.K / kTile),
                   1.0f};
  columns.tiles = x.gradient_tiles;
  columns.p = x.p;
  columns.dok = x.dok;
  columns.flow = x.flow;
  columns.start_flow = x.start_flow;
  columns.later = x.later;
  columns.ds = p.ds;
  columns.dg = p.dg;
  launch_columns(device, columns);
}

}  // namespace

void fast_bwd(gsa_device& device, const ChunkBwd& p, bool exact) {
  const Dims& d = p.dims;
  const ChunkScratch scratch(device, d, p.in, exact);
  const Chunks& chunks = scratch.chunks;
  const Scratch memory(device, BackwardScratch(nullptr, d, chunks).bytes);
  const BackwardScratch x(memory.as<char>(), d, chunks);
  walk_states(device, forward_states(d, p.in, chunks, x.tiles), false);
  backward_rows(device, p, chunks, x);
  backward_states(device, p, chunks, x);
  backward_columns(device, p, chunks, x);
}

}  // namespace gsa::sm90
