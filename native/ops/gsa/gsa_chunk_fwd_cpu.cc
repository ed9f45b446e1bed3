#include <cstring>

#include "../../cpu/parallel.h"
#include "blocks_cpu.h"

namespace gsa::cpu {
namespace {

constexpr StateBudget kBudget{int64_t{1} << 20, int64_t{16} << 20};

// The outputs of one chunk for the query heads that share a key/value head, from the state before the chunk.
void chunk_outputs(const slot_attention::ChunkFwd& p, const Chunk& chunk, int64_t h, State before) {
  const Dims& d = p.dims;
  const int64_t rows = chunk.rows, ld = padded_slots(d.M), n = rows * ld, at = chunk.row * d.H + h;
  float *memory, *ok, *p_decayed, *writes, *qk, *pv;
  carve_scratch({{&memory, BlockWalk::floats(ld)},
                 {&ok, n},
                 {&p_decayed, n},
                 {&writes, kBlock * ld},
                 {&qk, kChunk * kChunk},
                 {&pv, kChunk * kChunk}});
  BlockWalk walk(d, p.in, chunk, h, memory);
  std::memset(ok, 0, static_cast<size_t>(n) * sizeof(float));
  std::memset(pv, 0, kChunk * kChunk * sizeof(float));
  const Matrix k{static_cast<const float*>(p.in.k) + at * d.K, d.H * d.K};
  const Matrix v{static_cast<const float*>(p.in.v) + at * d.V, d.H * d.V};

  for (int64_t head = h * d.group(); head < (h + 1) * d.group(); ++head) {
    const int64_t q_at = chunk.row * d.HQ + head;
    const Matrix q{static_cast<const float*>(p.in.q) + q_at * d.K, d.HQ * d.K};
    lower_scores(rows, d.K, p.in.scale, q, k, qk);
    multiply(rows, d.M, d.K, p.in.scale, q, {before.key, d.M}, 0.0f, ok, ld);
    for (walk.restart(); !walk.done(); walk.next()) {
      const int64_t first = walk.first(), row = first * ld, score = first * kChunk;
      walk.receive(qk + score, ok + row);
      row_kernels().forward_block({walk.count(), d.M, ld, walk.s() + row, walk.step() + row,
                                   walk.from_start() + row, qk + score + first, ok + row, p_decayed + row,
                                   pv + score + first, writes});
      walk.weigh(p_decayed + row, pv + score);
      walk.decay_from_chunk_start(walk.block(), p_decayed + row);
    }
    float* o = static_cast<float*>(p.o) + q_at * d.V;
    multiply(rows, d.V, d.M, 1.0f, {p_decayed, ld}, {before.value, d.V}, 0.0f, o, d.HQ * d.V);
    lower_multiply(rows, d.V, 1.0f, pv, v, 1.0f, o, d.HQ * d.V);
    for (int64_t i = 0; p.ok && i < rows; ++i)
      std::memcpy(p.ok + (q_at + i * d.HQ) * d.M, ok + i * ld, static_cast<size_t>(d.M) * sizeof(float));
  }
}

void forward_group(gsa_device& device, const slot_attention::ChunkFwd& p, const Group& group,
                   int64_t max_slots) {
  const Dims& d = p.dims;
  const std::vector<Window> windows = plan_windows(d, p.in.cu_seqlens, group, max_slots);
  const WindowSize largest = largest_window(windows);
  const States states(device, largest.slots, group, d), borders(device, 2, group, d);
  const Scratch<float> decays(device, largest.chunks * group.heads * padded_slots(d.M));
  for (size_t w = 0; w < windows.size(); ++w) {
    compute_states(d, p.in, group, windows[w], states, decays.data(), borders, w % 2, (w + 1) % 2, p.hkT,
                   p.hvT);
    parallel_for(
        static_cast<int64_t>(windows[w].chunks.size()) * group.heads, 1, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) {
            const Chunk& chunk = windows[w].chunks[i / group.heads];
            chunk_outputs(p, chunk, group.h0 + i % group.heads, states.at(chunk.slot, i % group.heads));
          }
        });
  }
}

}  // namespace

void gsa_chunk_fwd(gsa_device& device, const Args& args) {
  expect_float32(args);
  const slot_attention::ChunkFwd p = slot_attention::read_chunk_fwd(args, GSA_FLOAT32);
  if (p.in.cu_seqlens) slot_attention::check_cu_seqlens(p.in.cu_seqlens, p.dims);
  for_each_group(p.dims, p.in.cu_seqlens, kBudget,
                 [&](const Group& group, int64_t max_slots) { forward_group(device, p, group, max_slots); });
}

}  // namespace gsa::cpu
