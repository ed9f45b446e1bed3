// Chunks of 64 tokens: where they lie, and their states. A state before (or, backward, after) a chunk is kept
// as bfloat16 tiles [64 channels, 64 slots], 8 KB each, key channels first; of 128 slots, two tiles in a row,
// and exact, each followed by the tile of what its rounding left.
#pragma once

#include "../../cuda/kernel.cuh"
#include "../../cuda/launch.cuh"
#include "../../sm90/cluster.cuh"
#include "params.h"
#include "sequence_rows_sm90.cuh"

namespace gsa::sm90 {

constexpr int kC = 64;  // tokens in a chunk
constexpr int kTileElements = kTile * kTile;

// Kernels work on 64 or 128 places for slots. In the user's tensors rows are `M` slots long, in scratch
// memory kPlaces. Padded: only the first M places are slots; the others have strength 0 and gate 0, so that
// nothing enters their states, and the softmax gives them no weight.
//
// kExact: what a kernel computed and then multiplies (states, decayed strengths and probabilities, weights of
// pairs) is two bfloat16 numbers, the second what rounding to the first left. Nothing is rounded to 8 bits
// then but what the caller stores in bfloat16.
template <int kPlaces_, bool kPadded, bool kExact_>
struct Slots {
  static constexpr int kPlaces = kPlaces_, kHalves = kPlaces / kTile;
  static constexpr bool kExact = kExact_;
  static constexpr int kParts = kExact ? 2 : 1;
  // Of a matrix [64, slots]: half by half, part by part; and elements in a row of one in scratch memory.
  static constexpr int kTiles = kHalves * kParts, kPitch = kTiles * kTile;
  int M;
  __device__ __forceinline__ int pitch() const { return kPadded ? anew() : kPlaces; }
  __device__ __forceinline__ bool has(int slot) const { return !kPadded || slot < anew(); }
  // Of `rows` rows, those in which there is something at this place: all or none.
  __device__ __forceinline__ int rows(int rows, int slot) const { return has(slot) ? rows : 0; }

 private:
  // As if it were another number each time: results kept from one use to the next cost the loops registers.
  __device__ __forceinline__ int anew() const {
    int count = M;
    asm volatile("" : "+r"(count));
    return count;
  }
};

// Rows must be whole vectors of four floats.
inline bool slots_fit(int64_t M) { return (M % 4 == 0 && M <= 64) || M == 128; }
inline int64_t slot_places(int64_t M) { return M <= 64 ? 64 : 128; }

// Calls body with the type of Slots that M needs.
template <bool kExact, typename Body>
void with_slots(int M, Body&& body) {
  if (M == 64) return body(Slots<64, false, kExact>{M});
  M < 64 ? body(Slots<64, true, kExact>{M}) : body(Slots<128, false, kExact>{M});
}

// x as kParts bfloat16 numbers, `apart` elements from one another.
template <int kParts>
__device__ __forceinline__ void store_parts(bf16* to, int apart, float x) {
  const bf16 high = __float2bfloat16_rn(x);
  to[0] = high;
  if constexpr (kParts == 2) to[apart] = __float2bfloat16_rn(x - __bfloat162float(high));
}
// The first parts of a pair, or the second.
__device__ __forceinline__ uint32_t pack_part(int part, float low, float high) {
  if (part == 0) return pack_bf16(low, high);
  return pack_bf16(low - __bfloat162float(__float2bfloat16_rn(low)),
                   high - __bfloat162float(__float2bfloat16_rn(high)));
}

struct Chunk {
  int64_t row;   // its first token among the B * T rows
  int32_t rows;  // 1..64; 0: a place in the table that this batch does not need
  int32_t sequence;
};

// The table and what every pass derives from the gates.
struct Chunks {
  const Chunk* table;
  const int32_t* first;  // [N + 1] first chunk of each sequence
  int64_t count;         // table_places
  const bf16* s_to_end;  // [rows, H, kPitch] write strength times the decay up to the end of the chunk
  const float* decay;    // [chunks, H, places] of the whole chunk
  int M;                 // slots
  bool exact;
  int parts() const { return exact ? 2 : 1; }
};
template <typename Body>
void with_slots(const Chunks& chunks, Body&& body) {
  chunks.exact ? with_slots<true>(chunks.M, body) : with_slots<false>(chunks.M, body);
}

struct ChunkScratch {
  cuda::Scratch memory;
  Chunks chunks;
  Chunk* table;
  int32_t* first;
  bf16* s_to_end;
  float* decay;
  ChunkScratch(gsa_device& device, const slot_attention::Dims& d, const slot_attention::Inputs& in,
               bool exact);
};

// One walk over the chunks of every sequence: X = decay * X + x^T y chunk by chunk, for the key and the value
// state.
struct StateSide {
  const bf16* x;  // [rows, heads, width]
  const bf16* y;  // [rows, heads, kPitch]
  int64_t width;
  const float* start;                   // NULL: zeros
  float* end;                           // NULL: not wanted
  int64_t stride_channel, stride_slot;  // of both
};
struct StateWalk {
  Chunks chunks;
  int64_t N, H, G;  // x and y have H * G heads, all of whose products enter the state of their group
  StateSide key, value;
  bf16* tiles;       // [chunks, H, slices, kTiles, 64, 64] X on arrival at each chunk
  const bf16* past;  // backward: the tiles of the forward walk, and
  float* flow;  // [chunks, H, slices, places] their product with X on leaving the chunk, summed over channels
};
void walk_states(gsa_device& device, const StateWalk& walk, bool reverse);

// At most so many chunks: with cu_seqlens, whose values stay on the device, T / 64 + N.
inline int64_t table_places(const slot_attention::Dims& d, bool packed) {
  return packed ? d.T / kC + d.N : d.B * ((d.T + kC - 1) / kC);
}
inline int64_t slices(const slot_attention::Dims& d) { return (d.K + d.V) / kTile; }

}  // namespace gsa::sm90
