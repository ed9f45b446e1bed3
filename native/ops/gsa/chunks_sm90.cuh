// Chunks of 64 tokens: where they lie, and their states. A state before (or, backward, after) a chunk is kept
// as bfloat16 tiles [64 channels, 64 slots], 8 KB each, key channels first.
#pragma once

#include "../../cuda/kernel.cuh"
#include "../../sm90/mma.cuh"
#include "params.h"
#include "scan_sm90.cuh"

namespace gsa::sm90 {

constexpr int kC = 64;  // tokens in a chunk
constexpr int kM = 64;  // slots
constexpr int kTileElements = kTile * kTile;

struct Chunk {
  int64_t row;   // its first token among the B * T rows
  int32_t rows;  // 1..64; 0: a place in the table that this batch does not need
  int32_t sequence;
};

// The table and what every pass derives from the gates.
struct Chunks {
  const Chunk* table;
  const int32_t* first;  // [N + 1] first chunk of each sequence
  int64_t count;         // places in the table: T / 64 + N with cu_seqlens, whose values stay on the device
  const bf16* s_to_end;  // [rows, H, M] write strength times the decay up to the end of the chunk
  const float* decay;    // [chunks, H, M] of the whole chunk
};

struct ChunkScratch {
  cuda::Scratch memory;
  Chunks chunks;
  Chunk* table;
  int32_t* first;
  bf16* s_to_end;
  float* decay;
  ChunkScratch(gsa_device& device, const slot_attention::Dims& d, const slot_attention::Inputs& in);
};

// One walk over the chunks of every sequence: X = decay * X + x^T y chunk by chunk, for the key and the value
// state.
struct StateSide {
  const bf16* x;  // [rows, heads, width]
  const bf16* y;  // [rows, heads, M]
  int64_t width;
  const float* start;                   // NULL: zeros
  float* end;                           // NULL: not wanted
  int64_t stride_channel, stride_slot;  // of both
};
struct StateWalk {
  Chunks chunks;
  int64_t N, H, G;  // x and y have H * G heads, all of whose products enter the state of their group
  StateSide key, value;
  bf16* tiles;       // [chunks, H, slices, 64, 64] X on arrival at each chunk
  const bf16* past;  // backward: the tiles of the forward walk, and
  float* flow;       // [chunks, H, slices, M] their product with X on leaving the chunk, summed over channels
};
void walk_states(gsa_device& device, const StateWalk& walk, bool reverse);

inline int64_t slices(const slot_attention::Dims& d) { return (d.K + d.V) / kTile; }

}  // namespace gsa::sm90
