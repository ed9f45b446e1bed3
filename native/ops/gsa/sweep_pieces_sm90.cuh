// Where a piece of a walk begins and ends: states from and to the user or the clusters beside this one.
#pragma once

#include "sweep_sm90.cuh"

namespace gsa::sm90 {

// A state as its threads hold it: 16 bytes a thread side by side. NULL: zeros.
template <class State>
__device__ __forceinline__ void load_state(State& state, const float* from, int thread) {
  from = opaque(from);
  float* x = reinterpret_cast<float*>(&state);
#pragma unroll
  for (int i = 0; i < static_cast<int>(sizeof(State) / 16); ++i) {
    const float4 v =
        from ? __ldcg(reinterpret_cast<const float4*>(from) + i * kRole + thread) : make_float4(0, 0, 0, 0);
    x[4 * i] = v.x, x[4 * i + 1] = v.y, x[4 * i + 2] = v.z, x[4 * i + 3] = v.w;
  }
}
template <class State>
__device__ __forceinline__ void store_state(const State& state, float* to, int thread) {
  to = opaque(to);
  const float* x = reinterpret_cast<const float*>(&state);
#pragma unroll
  for (int i = 0; i < static_cast<int>(sizeof(State) / 16); ++i)
    reinterpret_cast<float4*>(to)[i * kRole + thread] =
        make_float4(x[4 * i], x[4 * i + 1], x[4 * i + 2], x[4 * i + 3]);
}

// The ends of a piece of a walk: from the user's state or the cluster before, to the user or the cluster
// after. `part`: 0 in, 1 out; its first element among the `elements` of a block.
struct Ends {
  StateEnds user;
  HandOver over;
  int64_t walks_of_sequence;  // key/value heads
  int cluster, rank, blocks;  // this cluster, block and their number
  __device__ __forceinline__ int64_t user_block(const Location& x) const {
    return ((x.sequence * walks_of_sequence + x.kv_head) * blocks + rank);
  }
};
template <int kBarrier, class State>
__device__ __forceinline__ void begin_piece(State& state, const Ends& at, const Location& x, int64_t elements,
                                            int64_t first, int part, int thread) {
  const float* from = at.user.start ? at.user.start + at.user_block(x) * elements + first : nullptr;
  if (x.start != 0) {
    const int64_t block = static_cast<int64_t>(at.cluster - 1) * at.blocks + at.rank;
    if (at.over.ready) {
      if (thread == 0) wait_flag(at.over.ready + block * 2 + part);
      named_sync<kBarrier, kRole>();
    }
    from = at.over.states + block * elements + first;
  }
  load_state(state, from, thread);
}
// `reports`: this block tells the user.
template <int kBarrier, class State>
__device__ __forceinline__ void end_piece(const State& state, const Ends& at, const Location& x,
                                          int64_t elements, int64_t first, int part, int thread,
                                          bool reports) {
  const int64_t block = static_cast<int64_t>(at.cluster) * at.blocks + at.rank;
  const bool cut = x.stop != x.steps;
  if (cut ? !at.over.ready : !(reports && at.user.end)) return;
  store_state(state,
              (cut ? at.over.states + block * elements : at.user.end + at.user_block(x) * elements) + first,
              thread);
  if (!cut) return;
  __threadfence();
  named_sync<kBarrier, kRole>();
  if (thread == 0) set_flag(at.over.ready + block * 2 + part);
}

}  // namespace gsa::sm90
