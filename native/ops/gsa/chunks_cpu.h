// How the chunkwise ops walk over sequences: sequences are cut into chunks, a window of chunks is worked on
// in phases (README.md), and the states at the chunk borders live in slots that the window owns.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "../../cpu/device.h"
#include "params.h"

namespace gsa::cpu {

using slot_attention::Dims;
using slot_attention::Inputs;

inline void expect_float32(const Args& args) {
  if (args.in(0).dtype == GSA_BFLOAT16)
    fail(GSA_UNSUPPORTED, "Expected float32 for q on the CPU but received bfloat16; convert it first");
}

// Points each pointer at that many floats of the calling thread's scratch, on cache line borders; all of them
// are valid until the thread carves again.
struct Piece {
  float** pointer;
  int64_t floats;
};
void carve_scratch(std::initializer_list<Piece> pieces);

struct Chunk {
  int64_t row;   // first of the B * T token rows
  int64_t rows;  // 1 .. kChunk
  int64_t slot;  // of the state before the chunk; the state after it is in slot + 1
};

// A run of chunks of one sequence inside a window; no chunk at all for an empty sequence.
struct Chain {
  int64_t sequence;
  int64_t first, count;  // chunks of the window
  int64_t slot;          // of the state before the first chunk; the last one is slot + count
  bool begins, ends;     // whether the sequence does so here
};

struct Window {
  std::vector<Chunk> chunks;
  std::vector<Chain> chains;
  int64_t slots = 0;
};

// The part of a call that one walk covers: sequences [n0, n1), key/value heads [h0, h0 + heads).
struct Group {
  int64_t n0, n1, h0, heads;
};

// Windows of at most max_slots (>= 2) slots that cover the group in order.
std::vector<Window> plan_windows(const Dims& d, const int32_t* cu_seqlens, const Group& group,
                                 int64_t max_slots);

struct WindowSize {
  int64_t slots, chunks;
};
WindowSize largest_window(const std::vector<Window>& windows);

// One head's key state [K, M] and value state [M, V], or their gradients.
struct State {
  float* key;
  float* value;
};

// The states of a group's heads in so many slots.
class States {
 public:
  States(gsa_device& device, int64_t slots, const Group& group, const Dims& d)
      : key_floats_(d.K * d.M),
        floats_(d.K * d.M + d.M * d.V),
        heads_(group.heads),
        buffer_(device, slots * heads_ * floats_) {}
  State at(int64_t slot, int64_t head) const {
    float* key = buffer_.data() + (slot * heads_ + head) * floats_;
    return {key, key + key_floats_};
  }

 private:
  int64_t key_floats_, floats_, heads_;
  Scratch<float> buffer_;
};

// Calls walk(group, max_slots) for groups that cover the whole call: one per (sequence, head), spread over
// the threads, where that keeps them all busy (states then stay in a core's cache); else one group for
// everything, whose phases are spread over the threads. The arithmetic is the same, so neither this choice
// nor max_slots changes a bit of the result. `group_bytes` bounds the states of a small group, `call_bytes`
// those of the one group.
struct StateBudget {
  int64_t group_bytes, call_bytes;
};
void for_each_group(const Dims& d, const int32_t* cu_seqlens, StateBudget budget,
                    const std::function<void(const Group&, int64_t)>& walk);

// The states at all chunk borders of a window. `borders` carries a sequence that does not begin (end) here:
// slot `border_in` is read, `border_out` written. hkT and hvT may be NULL. decays: [chunk, head, padded
// slots].
void compute_states(const Dims& d, const Inputs& in, const Group& group, const Window& window,
                    const States& states, float* decays, const States& borders, int64_t border_in,
                    int64_t border_out, float* hkT, float* hvT);

// The same in reverse for the gradients: slot c + 1 is the gradient of the state after chunk c. On entry slot
// c holds what chunk c itself adds.
void scan_gradients(const Dims& d, const Group& group, const Window& window, const States& gradients,
                    const float* decays, const States& borders, int64_t border_in, int64_t border_out,
                    const float* dhkT, const float* dhvT, float* dhk0, float* dhv0);

}  // namespace gsa::cpu
