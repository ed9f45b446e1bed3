#include <algorithm>
#include <cstring>

#include "../../cpu/parallel.h"
#include "../../cpu/scratch.h"
#include "blocks_cpu.h"

namespace gsa::cpu {
namespace {

// Pieces of a state that are scanned independently.
constexpr int64_t kSlices = 4;

struct Slice {
  int64_t begin, rows;
};
Slice slice_of(int64_t rows, int64_t index) {
  const int64_t begin = rows * index / kSlices;
  return {begin, rows * (index + 1) / kSlices - begin};
}

void copy_or_zero(float* to, const float* from, int64_t floats) {
  if (from)
    std::memcpy(to, from, static_cast<size_t>(floats) * sizeof(float));
  else
    std::memset(to, 0, static_cast<size_t>(floats) * sizeof(float));
}

int64_t chunk_count(const Dims& d, const int32_t* cu_seqlens, int64_t n) {
  const slot_attention::RowRange r = slot_attention::sequence_rows(d, cu_seqlens, n);
  return (r.end - r.begin + kChunk - 1) / kChunk;
}

// What a chunk adds to the states after it, and its decay.
void chunk_states(const Dims& d, const Inputs& in, const Chunk& chunk, int64_t h, State added, float* decay) {
  const int64_t ld = padded_slots(d.M), n = chunk.rows * ld;
  float *s, *g, *to_end, *s_to_end;
  carve_scratch({{&s, n}, {&g, n}, {&to_end, n}, {&s_to_end, n}});
  const int64_t at = chunk.row * d.H + h;
  copy_padded(in.s + at * d.M, d.H * d.M, chunk.rows, d.M, ld, s);
  copy_padded(in.g + at * d.M, d.H * d.M, chunk.rows, d.M, ld, g);
  row_kernels().chunk_tables(s, g, chunk.rows, ld, to_end, s_to_end, decay);
  const float* k = static_cast<const float*>(in.k) + at * d.K;
  const float* v = static_cast<const float*>(in.v) + at * d.V;
  multiply(d.K, d.M, chunk.rows, 1.0f, {k, d.H * d.K, true}, {s_to_end, ld}, 0.0f, added.key, d.M);
  multiply(d.M, d.V, chunk.rows, 1.0f, {s_to_end, ld, true}, {v, d.H * d.V}, 0.0f, added.value, d.V);
}

// Where a scan starts (NULL: zeros) and where its last state goes (NULL: nowhere), for one sequence and head.
struct Ends {
  const float *key_from, *value_from;
  float *key_to, *value_to;
};

// The state tensors [N, H, ...] at the two ends of every sequence, in the direction of a scan; each may be
// NULL.
struct EndTensors {
  const float *first_key, *first_value;
  float *last_key, *last_value;
};

Ends chain_ends(const Dims& d, const EndTensors& tensors, int64_t sequence, int64_t h, const State* border_in,
                const State* border_out) {
  const int64_t at = sequence * d.H + h, key = at * d.K * d.M, value = at * d.M * d.V;
  const auto place = [](auto* tensor, int64_t offset) { return tensor ? tensor + offset : nullptr; };
  return {border_in ? border_in->key : place(tensors.first_key, key),
          border_in ? border_in->value : place(tensors.first_value, value),
          border_out ? border_out->key : place(tensors.last_key, key),
          border_out ? border_out->value : place(tensors.last_value, value)};
}

// One slice of a state along `count` chunks: state(i) is the state after i of them and at first holds what
// chunk i - 1 adds; decay(i) is that between state(i) and state(i + 1).
template <typename StateAt, typename DecayAt>
void scan_slice(const Dims& d, int64_t slice, int64_t count, const Ends& ends, StateAt state, DecayAt decay) {
  const Slice ks = slice_of(d.K, slice), vs = slice_of(d.M, slice);
  const int64_t k0 = ks.begin * d.M, kn = ks.rows * d.M, v0 = vs.begin * d.V, vn = vs.rows * d.V;
  copy_or_zero(state(0).key + k0, ends.key_from ? ends.key_from + k0 : nullptr, kn);
  copy_or_zero(state(0).value + v0, ends.value_from ? ends.value_from + v0 : nullptr, vn);
  for (int64_t i = 0; i < count; ++i) {
    const State from = state(i), to = state(i + 1);
    row_kernels().decay_columns(from.key + k0, decay(i), ks.rows, d.M, to.key + k0);
    row_kernels().decay_rows(from.value + v0, decay(i) + vs.begin, vs.rows, d.V, to.value + v0);
  }
  if (ends.key_to) copy_or_zero(ends.key_to + k0, state(count).key + k0, kn);
  if (ends.value_to) copy_or_zero(ends.value_to + v0, state(count).value + v0, vn);
}

}  // namespace

void carve_scratch(std::initializer_list<Piece> pieces) {
  const auto padded = [](int64_t floats) { return (floats + 15) / 16 * 16; };
  int64_t total = 0;
  for (const Piece& piece : pieces) total += padded(piece.floats);
  float* next = scratch<2>(total);
  for (const Piece& piece : pieces) {
    *piece.pointer = next;
    next += padded(piece.floats);
  }
}

std::vector<Window> plan_windows(const Dims& d, const int32_t* cu_seqlens, const Group& group,
                                 int64_t max_slots) {
  std::vector<Window> windows(1);
  for (int64_t n = group.n0; n < group.n1; ++n) {
    const slot_attention::RowRange range = slot_attention::sequence_rows(d, cu_seqlens, n);
    int64_t row = range.begin;
    do {
      // A chain of c chunks needs c + 1 slots.
      if (windows.back().slots + (row < range.end ? 2 : 1) > max_slots) windows.emplace_back();
      Window& w = windows.back();
      Chain chain{n, static_cast<int64_t>(w.chunks.size()), 0, w.slots, row == range.begin, false};
      for (; row < range.end && w.slots + 2 <= max_slots; row += kChunk, ++w.slots, ++chain.count)
        w.chunks.push_back({row, std::min(kChunk, range.end - row), w.slots});
      ++w.slots;
      chain.ends = row >= range.end;
      w.chains.push_back(chain);
    } while (row < range.end);
  }
  return windows;
}

WindowSize largest_window(const std::vector<Window>& windows) {
  WindowSize largest{0, 0};
  for (const Window& w : windows) {
    largest.slots = std::max(largest.slots, w.slots);
    largest.chunks = std::max(largest.chunks, static_cast<int64_t>(w.chunks.size()));
  }
  return largest;
}

void for_each_group(const Dims& d, const int32_t* cu_seqlens, StateBudget budget,
                    const std::function<void(const Group&, int64_t)>& walk) {
  if (d.N == 0) return;
  int64_t longest = 0, total = 0;
  for (int64_t n = 0; n < d.N; ++n) {
    const int64_t chunks = chunk_count(d, cu_seqlens, n);
    longest = std::max(longest, chunks);
    total += chunks;
  }
  const int64_t threads = thread_count(), pairs = d.N * d.H;
  const int64_t slot_bytes = (d.K * d.M + d.M * d.V) * static_cast<int64_t>(sizeof(float));
  // No thread works longer than rounds * longest chunks; the fair share is d.H * total / threads.
  const int64_t rounds = (pairs + threads - 1) / threads;
  if (threads == 1 || 4 * rounds * longest * threads <= 5 * d.H * total) {
    const int64_t slots = std::max<int64_t>(2, budget.group_bytes / slot_bytes);
    parallel_for(pairs, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) walk({i / d.H, i / d.H + 1, i % d.H, 1}, slots);
    });
    return;
  }
  const int64_t busy = (4 * threads + d.H - 1) / d.H;
  walk({0, d.N, 0, d.H}, std::max(busy + 1, budget.call_bytes / (slot_bytes * d.H)));
}

void compute_states(const Dims& d, const Inputs& in, const Group& group, const Window& window,
                    const States& states, float* decays, const States& borders, int64_t border_in,
                    int64_t border_out, float* hkT, float* hvT) {
  const int64_t heads = group.heads, ld = padded_slots(d.M);
  parallel_for(static_cast<int64_t>(window.chunks.size()) * heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Chunk& chunk = window.chunks[i / heads];
      chunk_states(d, in, chunk, group.h0 + i % heads, states.at(chunk.slot + 1, i % heads), decays + i * ld);
    }
  });
  parallel_for(
      static_cast<int64_t>(window.chains.size()) * heads * kSlices, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const Chain& c = window.chains[i / kSlices / heads];
          const int64_t head = i / kSlices % heads;
          const State from = borders.at(border_in, head), to = borders.at(border_out, head);
          const Ends ends = chain_ends(d, {in.hk0, in.hv0, hkT, hvT}, c.sequence, group.h0 + head,
                                       c.begins ? nullptr : &from, c.ends ? nullptr : &to);
          scan_slice(
              d, i % kSlices, c.count, ends, [&](int64_t step) { return states.at(c.slot + step, head); },
              [&](int64_t step) { return decays + ((c.first + step) * heads + head) * ld; });
        }
      });
}

void scan_gradients(const Dims& d, const Group& group, const Window& window, const States& gradients,
                    const float* decays, const States& borders, int64_t border_in, int64_t border_out,
                    const float* dhkT, const float* dhvT, float* dhk0, float* dhv0) {
  const int64_t heads = group.heads, ld = padded_slots(d.M);
  parallel_for(static_cast<int64_t>(window.chains.size()) * heads * kSlices, 1,
               [&](int64_t begin, int64_t end) {
                 for (int64_t i = begin; i < end; ++i) {
                   const Chain& c = window.chains[i / kSlices / heads];
                   const int64_t head = i / kSlices % heads, last = c.count - 1;
                   const State from = borders.at(border_in, head), to = borders.at(border_out, head);
                   const Ends ends = chain_ends(d, {dhkT, dhvT, dhk0, dhv0}, c.sequence, group.h0 + head,
                                                c.ends ? nullptr : &from, c.begins ? nullptr : &to);
                   scan_slice(
                       d, i % kSlices, c.count, ends,
                       [&](int64_t step) { return gradients.at(c.slot + c.count - step, head); },
                       [&](int64_t step) { return decays + ((c.first + last - step) * heads + head) * ld; });
                 }
               });
}

}  // namespace gsa::cpu
