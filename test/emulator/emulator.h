// Runs CUDA kernels on the CPU, one thread of a block after another: the kernels' own sources, compiled as
// C++, with the headers in sm90/ and cuda/ here in place of those that hold GPU instructions. Shows what is
// wrong in indices, in the maths, in barriers that do not match (it says DEADLOCK) and in reads of memory
// that nobody wrote (shared and scratch memory start as huge numbers). It cannot show races that need two
// threads at the same moment.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#undef __forceinline__
#define __forceinline__ inline
#undef __launch_bounds__
#define __launch_bounds__(...)
#undef __grid_constant__
#define __grid_constant__
#undef __shared__
#define __shared__ static  // in kernels whose blocks run one after another

namespace emulator {

// Threads meet here; the last to come lets all go.
struct Meeting {
  int arrived = 0;
  uint64_t rounds = 0;
};
struct Warp {
  Meeting meeting;
  void* lanes[32];
};
struct Block {
  char* shared;
  int first_of_cluster;
  Warp warps[32];
  Meeting barriers[16];
};
struct Cluster {
  Meeting whole, halves;
  int threads;
};
struct Thread {
  void* stack;
  uint3 thread, block_index;
  Block* block;
  Cluster* cluster;
  int rank;
  uint64_t cluster_waits = 0;      // for the barrier in two halves
  const Meeting* waits = nullptr;  // until its rounds differ from
  uint64_t round = 0;
  const int* flag = nullptr;        // until it is set
  const uint64_t* bytes = nullptr;  // a barrier that counts bytes, until its phase is not
  uint64_t phase = 0;
  bool done = false;
};

extern Thread* current;
extern std::vector<Block> blocks;
extern char* shared_memory;  // of all blocks
extern int threads_of_block;
extern uint3 blocks_launched;   // gridDim, where blocks run one after another
extern int clusters_of_device;  // what clusters_that_fit answers

void pause();  // the other threads go on
void launch(int blocks, int threads, int cluster, int shared_bytes, const std::function<void()>& kernel,
            unsigned first_block = 0);

inline void meet(Meeting& m, int threads) {
  if (++m.arrived == threads) {
    m.arrived = 0;
    ++m.rounds;
    return;
  }
  current->waits = &m;
  current->round = m.rounds;
  pause();
}

// An instruction of a whole warp: `perform` sees what every lane brought.
template <class Brought, class Perform>
void together(Brought& mine, Perform perform) {
  Warp& warp = current->block->warps[current->thread.x / 32];
  warp.lanes[current->thread.x % 32] = &mine;
  if (warp.meeting.arrived == 31) perform(reinterpret_cast<Brought**>(warp.lanes));
  meet(warp.meeting, 32);
}

}  // namespace emulator

#define threadIdx (emulator::current->thread)
#define blockIdx (emulator::current->block_index)
#define gridDim emulator::blocks_launched

inline void emulated_syncthreads() {
  emulator::meet(emulator::current->block->barriers[0], emulator::threads_of_block);
}
#define __syncthreads emulated_syncthreads
inline void emulated_syncwarp() {
  int nothing = 0;
  emulator::together(nothing, [](int**) {});
}
#define __syncwarp emulated_syncwarp
inline int emulated_all(int predicate) {
  struct Lane {
    int given, all;
  } mine{predicate, 0};
  emulator::together(mine, [](Lane** lanes) {
    bool all = true;
    for (int i = 0; i < 32; ++i) all &= lanes[i]->given != 0;
    for (int i = 0; i < 32; ++i) lanes[i]->all = all;
  });
  return mine.all;
}
#define __all_sync(members, predicate) emulated_all(predicate)
template <class T>
T emulated_shuffle(T x, int mask) {
  struct Lane {
    T given, taken;
    int mask;
  } mine{x, x, mask};
  emulator::together(mine, [](Lane** lanes) {
    for (int i = 0; i < 32; ++i) lanes[i]->taken = lanes[i ^ lanes[i]->mask]->given;
  });
  return mine.taken;
}
#define __shfl_sync(members, value, lane) \
  emulated_shuffle<int>(value, static_cast<int>(threadIdx.x) % 32 ^ (lane))
#define __shfl_xor_sync(members, x, mask) emulated_shuffle(x, mask)
inline void emulated_fence() {}
#define __threadfence emulated_fence
#define __log2f log2f
inline uint32_t __float_as_uint(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}
inline float __uint_as_float(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
template <class T>
T emulated_load(const T* p) {
  return *p;
}
#define __ldcg emulated_load
template <class T>
void emulated_store(T* p, T x) {
  *p = x;
}
#define __stwb emulated_store
template <class T>
T min(T a, T b) {
  return a < b ? a : b;
}
template <class T>
T max(T a, T b) {
  return a > b ? a : b;
}
