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

void fast_fwd(gsa_device& device, const ChunkFwd& p) {
  const Dims& d = p.dims;
  const ChunkScratch scratch(device, d, p.in);
  const Chunks& chunks = scratch.chunks;
  const Scratch tiles(device, chunks.count * d.H * slices(d) * slot_places(d.M) * kTile * sizeof(bf16));
  StateWalk states = forward_states(d, p.in, chunks, tiles.as<bf16>());
  states.key.end = p.hkT;
  states.value.end = p.hvT;
  walk_states(device, states, false);
  RowPass rows = row_pass(d, p.in, chunks, tiles.as<bf16>());
  rows.in_rows = static_cast<const bf16*>(p.in.q);
  rows.in_keys = static_cast<const bf16*>(p.in.k);
  rows.out_keys = static_cast<const bf16*>(p.in.v);
  rows.in_width = d.K;
  rows.out_width = d.V;
  rows.in_first = 0;
  rows.out_first = static_cast<int>(d.K / kTile);
  rows.in_scale = p.in.scale;
  rows.out_scale = 1.0f;
  rows.out = static_cast<bf16*>(p.o);
  rows.ok = p.ok;
  launch_rows(device, rows, false);
}

namespace {

// What the backward passes hand to one another. One allocation; every part starts on 256 bytes.
struct BackwardScratch {
  int64_t bytes = 0;
  bf16 *tiles, *gradient_tiles;                                 // [chunks, H, slices, places / 64, 64, 64]
  bf16 *p_decayed, *dok_decayed, *value_weights, *key_weights;  // see RowPass
  float *p, *dok, *flow, *start_flow;

  BackwardScratch(char* memory, const Dims& d, int64_t chunks) {
    const int64_t slots = d.B * d.T * d.HQ * slot_places(d.M),
                  state = chunks * d.H * slices(d) * slot_places(d.M), pairs = chunks * d.HQ * kTileElements;
    const auto take = [&](auto*& field, int64_t n) {
      field = reinterpret_cast<std::remove_reference_t<decltype(field)>>(memory + bytes);
      bytes += (n * static_cast<int64_t>(sizeof(*field)) + 255) / 256 * 256;
    };
    take(tiles, state * kTile);
    take(gradient_tiles, state * kTile);
    take(p_decayed, slots);
    take(dok_decayed, slots);
    take(value_weights, pairs);
    take(key_weights, pairs);
    take(p, slots);
    take(dok, slots);
    take(flow, slots);
    take(start_flow, state);
  }
};

// dq, and the gradients of the slots.
void backward_rows(gsa_device& device, const ChunkBwd& p, const Chunks& chunks, const BackwardScratch& x) {
  const Dims& d = p.dims;
  RowPass rows = row_pass(d, p.in, chunks, x.tiles);
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
  rows.flow = x.flow;
  rows.p_decayed = x.p_decayed;
  rows.dok_decayed = x.dok_decayed;
  rows.value_weights = x.value_weights;
  rows.key_weights = x.key_weights;
  launch_rows(device, rows, true);
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
                 d.K,
                 0,
                 p.in.scale};
  columns.value = {static_cast<const bf16*>(p.d_o),
                   static_cast<const bf16*>(p.in.v),
                   x.value_weights,
                   static_cast<bf16*>(p.dv),
                   d.V,
                   static_cast<int>(d.K / kTile),
                   1.0f};
  columns.tiles = x.gradient_tiles;
  columns.p = x.p;
  columns.dok = x.dok;
  columns.flow = x.flow;
  columns.start_flow = x.start_flow;
  columns.ds = p.ds;
  columns.dg = p.dg;
  launch_columns(device, columns);
}

}  // namespace

void fast_bwd(gsa_device& device, const ChunkBwd& p) {
  const Dims& d = p.dims;
  const ChunkScratch scratch(device, d, p.in);
  const Chunks& chunks = scratch.chunks;
  const Scratch memory(device, BackwardScratch(nullptr, d, chunks.count).bytes);
  const BackwardScratch x(memory.as<char>(), d, chunks.count);
  walk_states(device, forward_states(d, p.in, chunks, x.tiles), false);
  backward_rows(device, p, chunks, x);
  backward_states(device, p, chunks, x);
  backward_columns(device, p, chunks, x);
}

}  // namespace gsa::sm90
