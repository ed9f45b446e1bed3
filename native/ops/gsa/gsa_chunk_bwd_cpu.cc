#include <cstring>

#include "../../cpu/parallel.h"
#include "blocks_cpu.h"

namespace gsa::cpu {
namespace {

using slot_attention::ChunkBwd;

constexpr StateBudget kBudget{int64_t{32} << 20, int64_t{64} << 20};

// One chunk and key/value head in the token tensors.
struct Tokens {
  Matrix k, v;     // [rows, K], [rows, V]
  float *dk, *dv;  // the same
  float *ds, *dg;  // [rows, M], slot_stride floats between rows
  int64_t slot_stride;

  Tokens(const ChunkBwd& p, const Chunk& chunk, int64_t h) {
    const Dims& d = p.dims;
    const int64_t at = chunk.row * d.H + h;
    k = {static_cast<const float*>(p.in.k) + at * d.K, d.H * d.K};
    v = {static_cast<const float*>(p.in.v) + at * d.V, d.H * d.V};
    dk = static_cast<float*>(p.dk) + at * d.K;
    dv = static_cast<float*>(p.dv) + at * d.V;
    ds = p.ds + at * d.M;
    dg = p.dg + at * d.M;
    slot_stride = d.H * d.M;
  }
};

// Scratch of gradients_inside, per query head unless said otherwise. [rows, ld] and score matrices.
struct InnerScratch {
  float* walk;
  float *p, *dok;            // weights of the slots, gradient of their logits
  float *ok_past, *dp_past;  // see GatherBlock
  float *p_decayed, *dok_decayed;
  float *qk, *dov, *pv, *dqk;
  float *later, *writes;
  float *ds, *flow;  // summed over the group

  InnerScratch(int64_t rows, int64_t ld) {
    const int64_t n = rows * ld, scores = kChunk * kChunk;
    carve_scratch({{&walk, BlockWalk::floats(ld)},
                   {&p, n},
                   {&dok, n},
                   {&ok_past, n},
                   {&dp_past, n},
                   {&p_decayed, n},
                   {&dok_decayed, n},
                   {&qk, scores},
                   {&dov, scores},
                   {&pv, scores},
                   {&dqk, scores},
                   {&later, n},
                   {&writes, kBlock * ld},
                   {&ds, n},
                   {&flow, n}});
    for (float* zeros : {ok_past, dp_past, ds, flow})
      std::memset(zeros, 0, static_cast<size_t>(n) * sizeof(float));
    for (float* zeros : {pv, dqk}) std::memset(zeros, 0, static_cast<size_t>(scores) * sizeof(float));
  }
};

// In token order: dok, and the weights with which values enter o and keys enter the logits.
void gather(const Dims& d, BlockWalk& walk, const InnerScratch& x) {
  const int64_t ld = padded_slots(d.M);
  for (walk.restart(); !walk.done(); walk.next()) {
    const int64_t first = walk.first(), row = first * ld, score = first * kChunk;
    walk.receive(x.qk + score, x.ok_past + row);
    walk.receive(x.dov + score, x.dp_past + row);
    row_kernels().gather_block({walk.count(), d.M, ld, walk.s() + row, walk.step() + row,
                                walk.from_start() + row, x.qk + score + first, x.dov + score + first,
                                x.p + row, x.ok_past + row, x.dp_past + row, x.dok + row, x.p_decayed + row,
                                x.dok_decayed + row, x.pv + score + first, x.dqk + score + first,
                                x.flow + row, x.writes});
    walk.weigh(x.p_decayed + row, x.pv + score);
    walk.weigh(x.dok_decayed + row, x.dqk + score);
  }
}

// In reverse: ds. `later` carries what the blocks after give back to the rows before, up to the end of those
// rows' block.
void scatter(const Dims& d, const BlockWalk& walk, int64_t rows, const InnerScratch& x) {
  const int64_t ld = padded_slots(d.M);
  std::memset(x.later, 0, static_cast<size_t>(rows * ld) * sizeof(float));
  for (int64_t b = block_count(rows) - 1; b >= 0; --b) {
    const int64_t first = b * kBlock, row = first * ld, score = first * kChunk, count = walk.count(b);
    row_kernels().scatter_block({count, ld, walk.s() + row, walk.step() + row, x.qk + score + first,
                                 x.dov + score + first, x.p + row, x.dok + row, x.later + row, x.ds + row,
                                 x.flow + row});
    if (b > 0) {
      row_kernels().scale_columns(x.later, first, ld, walk.block_decay(b));
      multiply(first, d.M, count, 1.0f, {x.dov + score, kChunk, true}, {x.p_decayed + row, ld}, 1.0f, x.later,
               ld);
      multiply(first, d.M, count, 1.0f, {x.qk + score, kChunk, true}, {x.dok_decayed + row, ld}, 1.0f,
               x.later, ld);
    }
    walk.decay_from_chunk_start(b, x.p_decayed + row);
    walk.decay_from_chunk_start(b, x.dok_decayed + row);
  }
}

// What needs only the state before the chunk: dq; what the chunk's queries give to its own keys, values and
// write strengths; and in `given` what they give to that state. dg is left holding per row what comes in from
// earlier rows minus what goes out to later rows of the chunk, each times its gradient.
void gradients_inside(const ChunkBwd& p, const Chunk& chunk, int64_t h, State before, State given) {
  const Dims& d = p.dims;
  const int64_t rows = chunk.rows, ld = padded_slots(d.M);
  const float scale = p.in.scale;
  const Tokens t(p, chunk, h);
  const InnerScratch x(rows, ld);
  BlockWalk walk(d, p.in, chunk, h, x.walk);
  for (int64_t head = h * d.group(); head < (h + 1) * d.group(); ++head) {
    const float beta = head == h * d.group() ? 0.0f : 1.0f;
    const int64_t at = chunk.row * d.HQ + head;
    const Matrix q{static_cast<const float*>(p.in.q) + at * d.K, d.HQ * d.K};
    const Matrix d_o{static_cast<const float*>(p.d_o) + at * d.V, d.HQ * d.V};
    row_kernels().softmax_rows(p.ok + at * d.M, d.HQ * d.M, rows, d.M, ld, x.p);
    lower_scores(rows, d.K, scale, q, t.k, x.qk);
    lower_scores(rows, d.V, 1.0f, d_o, t.v, x.dov);
    multiply(rows, d.M, d.K, scale, q, {before.key, d.M}, 0.0f, x.ok_past, ld);
    multiply(rows, d.M, d.V, 1.0f, d_o, {before.value, d.V, true}, 0.0f, x.dp_past, ld);
    gather(d, walk, x);
    scatter(d, walk, rows, x);

    float* dq = static_cast<float*>(p.dq) + at * d.K;
    multiply(rows, d.K, d.M, scale, {x.dok_decayed, ld}, {before.key, d.M, true}, 0.0f, dq, d.HQ * d.K);
    lower_multiply(rows, d.K, scale, x.dqk, t.k, 1.0f, dq, d.HQ * d.K);
    lower_multiply_transposed(rows, d.K, scale, x.dqk, q, beta, t.dk, d.H * d.K);
    lower_multiply_transposed(rows, d.V, 1.0f, x.pv, d_o, beta, t.dv, d.H * d.V);
    multiply(d.K, d.M, rows, scale, {q.data, q.stride, true}, {x.dok_decayed, ld}, beta, given.key, d.M);
    multiply(d.M, d.V, rows, 1.0f, {x.p_decayed, ld, true}, d_o, beta, given.value, d.V);
  }
  for (int64_t i = 0; i < rows; ++i) {
    std::memcpy(t.ds + i * t.slot_stride, x.ds + i * ld, static_cast<size_t>(d.M) * sizeof(float));
    std::memcpy(t.dg + i * t.slot_stride, x.flow + i * ld, static_cast<size_t>(d.M) * sizeof(float));
  }
}

// What the gradient of the state after the chunk adds, and dg. dg is a running sum within the chunk from its
// value at the first row, state . gradient before the chunk: rounding does not grow with T, and like all
// terms of the sum (which leave out what a row gives to itself) that value has decayed by at least one gate,
// so that dg keeps its relative precision where gates forget nearly everything.
void gradients_outside(const ChunkBwd& p, const Chunk& chunk, int64_t h, State before, State gradient_before,
                       State gradient_after) {
  const Dims& d = p.dims;
  const int64_t rows = chunk.rows, ld = padded_slots(d.M), n = rows * ld, at = (chunk.row * d.H + h) * d.M;
  float *s, *g, *to_end, *s_to_end, *decay, *u, *dg;
  carve_scratch({{&s, n}, {&g, n}, {&to_end, n}, {&s_to_end, n}, {&decay, ld}, {&u, n}, {&dg, ld}});
  const Tokens t(p, chunk, h);
  copy_padded(p.in.s + at, t.slot_stride, rows, d.M, ld, s);
  copy_padded(p.in.g + at, t.slot_stride, rows, d.M, ld, g);
  row_kernels().chunk_tables(s, g, rows, ld, to_end, s_to_end, decay);
  const Matrix dhk{gradient_after.key, d.M}, dhv{gradient_after.value, d.V};
  std::memset(u, 0, static_cast<size_t>(n) * sizeof(float));
  multiply(rows, d.M, d.K, 1.0f, t.k, dhk, 0.0f, u, ld);
  multiply(rows, d.M, d.V, 1.0f, t.v, transpose(dhv), 1.0f, u, ld);
  multiply(rows, d.K, d.M, 1.0f, {s_to_end, ld}, transpose(dhk), 1.0f, t.dk, d.H * d.K);
  multiply(rows, d.V, d.M, 1.0f, {s_to_end, ld}, dhv, 1.0f, t.dv, d.H * d.V);
  std::memset(dg, 0, static_cast<size_t>(ld) * sizeof(float));
  row_kernels().dot_columns(before.key, gradient_before.key, d.K, d.M, dg);
  row_kernels().dot_rows(before.value, gradient_before.value, d.M, d.V, dg);
  row_kernels().finish_gates(u, to_end, s_to_end, dg, rows, d.M, ld, t.slot_stride, t.ds, t.dg);
}

void backward_window(const ChunkBwd& p, const Group& group, const Window& window, const States& states,
                     const States& gradients, const float* decays, const States& borders, size_t w) {
  const int64_t heads = group.heads, tasks = static_cast<int64_t>(window.chunks.size()) * heads;
  parallel_for(tasks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Chunk& chunk = window.chunks[i / heads];
      const int64_t head = i % heads;
      gradients_inside(p, chunk, group.h0 + head, states.at(chunk.slot, head),
                       gradients.at(chunk.slot, head));
    }
  });
  scan_gradients(p.dims, group, window, gradients, decays, borders, (w + 1) % 2, w % 2, p.dhkT, p.dhvT,
                 p.dhk0, p.dhv0);
  parallel_for(tasks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Chunk& chunk = window.chunks[i / heads];
      const int64_t head = i % heads;
      gradients_outside(p, chunk, group.h0 + head, states.at(chunk.slot, head),
                        gradients.at(chunk.slot, head), gradients.at(chunk.slot + 1, head));
    }
  });
}

// Forward over the windows for the states at their borders, then backward window by window, states first.
void backward_group(gsa_device& device, const ChunkBwd& p, const Group& group, int64_t max_slots) {
  const Dims& d = p.dims;
  const std::vector<Window> windows = plan_windows(d, p.in.cu_seqlens, group, max_slots);
  const WindowSize largest = largest_window(windows);
  const States states(device, largest.slots, group, d), gradients(device, largest.slots, group, d);
  const States state_borders(device, static_cast<int64_t>(windows.size()) + 1, group, d),
      gradient_borders(device, 2, group, d);
  const Scratch<float> decays(device, largest.chunks * group.heads * padded_slots(d.M));
  const auto rebuild = [&](size_t w) {
    compute_states(d, p.in, group, windows[w], states, decays.data(), state_borders, w, w + 1, nullptr,
                   nullptr);
  };
  for (size_t w = 0; w + 1 < windows.size(); ++w) rebuild(w);
  for (size_t w = windows.size(); w-- > 0;) {
    rebuild(w);
    backward_window(p, group, windows[w], states, gradients, decays.data(), gradient_borders, w);
  }
}

}  // namespace

void gsa_chunk_bwd(gsa_device& device, const Args& args) {
  expect_float32(args);
  const ChunkBwd p = slot_attention::read_chunk_bwd(args, GSA_FLOAT32);
  if (p.in.cu_seqlens) slot_attention::check_cu_seqlens(p.in.cu_seqlens, p.dims);
  for_each_group(p.dims, p.in.cu_seqlens, kBudget,
                 [&](const Group& group, int64_t max_slots) { backward_group(device, p, group, max_slots); });
}

}  // namespace gsa::cpu
