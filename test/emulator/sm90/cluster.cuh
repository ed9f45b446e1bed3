// In place of native/sm90/cluster.cuh.
#pragma once

#include "mma.cuh"

namespace gsa::sm90 {

template <int kCluster>
int cluster_rank() {
  return kCluster == 1 ? 0 : emulator::current->rank;
}
template <int kCluster>
void cluster_sync() {
  if constexpr (kCluster == 1)
    __syncthreads();
  else
    emulator::meet(emulator::current->cluster->whole, kCluster * emulator::threads_of_block);
}
// The barrier in two halves has a meeting of its own; kernels use it with whole clusters only.
inline void cluster_arrive() {
  emulator::Meeting& m = emulator::current->cluster->halves;
  if (++m.arrived < emulator::current->cluster->threads) return;
  m.arrived = 0;
  ++m.rounds;
}
inline void cluster_wait() {
  const emulator::Meeting& m = emulator::current->cluster->halves;
  emulator::current->round = emulator::current->cluster_waits++;
  if (m.rounds != emulator::current->round) return;
  emulator::current->waits = &m;
  emulator::pause();
}

template <int kCluster>
uint32_t remote_address(const void* local, int rank) {
  const emulator::Block& here = *emulator::current->block;
  const emulator::Block& there = kCluster == 1 ? here : emulator::blocks[here.first_of_cluster + rank];
  const ptrdiff_t offset = static_cast<const char*>(local) - here.shared;
  if (offset < 0 || offset >= 227 * 1024) {
    std::printf("the address of something outside the block's shared memory\n");
    std::exit(1);
  }
  return static_cast<uint32_t>(there.shared - emulator::shared_memory + offset);
}
inline char* block_memory() { return emulator::current->block->shared; }

inline void set_flag(int* flag) { *flag = 1; }
inline void wait_flag(const int* flag) {
  if (*flag) return;
  emulator::current->flag = flag;
  emulator::pause();
}

template <class T>
T opaque(T x) {
  return x;
}
template <int kId, int kThreads>
void named_sync() {
  emulator::meet(emulator::current->block->barriers[kId], kThreads);
}

}  // namespace gsa::sm90
