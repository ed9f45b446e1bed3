// Thread block clusters: rank, barrier, and addresses in the shared memory of another block of the cluster
// (barrier.cuh stores there). A cluster of one is launched as one of a pair that have nothing in common:
// stores that count themselves in are meant for clusters of at least two blocks.
#pragma once

#include <cstdint>

#include "mma.cuh"

namespace gsa::sm90 {

template <int kCluster>
__device__ __forceinline__ int cluster_rank() {
  if constexpr (kCluster == 1) return 0;
  uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return static_cast<int>(rank);
}

// Every thread of the cluster arrives; what it stored before, anywhere in the cluster's shared memory, is
// visible to the others after.
template <int kCluster>
__device__ __forceinline__ void cluster_sync() {
  if constexpr (kCluster == 1) {
    __syncthreads();
  } else {
    asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
  }
}

// The two halves of a barrier of the cluster that says only that a thread no longer needs what it read:
// nothing that it stored becomes visible by it.
__device__ __forceinline__ void cluster_arrive() {
  asm volatile("barrier.cluster.arrive.relaxed;" ::: "memory");
}
__device__ __forceinline__ void cluster_wait() { asm volatile("barrier.cluster.wait.acquire;" ::: "memory"); }

// Address of the same place in the shared memory of block `rank`.
template <int kCluster>
__device__ __forceinline__ uint32_t remote_address(const void* local, int rank) {
  if constexpr (kCluster == 1) rank = cluster_rank<2>();
  uint32_t address;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;"
               : "=r"(address)
               : "r"(shared_address(local)), "r"(rank));
  return address;
}

// The dynamic shared memory of the block.
__device__ __forceinline__ char* block_memory() {
  extern __shared__ __align__(1024) char memory[];
  return memory;
}

// A flag in global memory: set after everything the thread stored before (and, with __threadfence() and a
// barrier, other threads of the block), waited for before anything read after.
__device__ __forceinline__ void set_flag(int* flag) {
  asm volatile("st.release.gpu.s32 [%0], 1;" ::"l"(flag) : "memory");
}
__device__ __forceinline__ void wait_flag(const int* flag) {
  int set;
  do {
    asm volatile("ld.acquire.gpu.s32 %0, [%1];" : "=r"(set) : "l"(flag) : "memory");
  } while (!set);
}

// Keeps the compiler from computing the addresses of rare accesses ahead of the loop around them.
template <class T>
__device__ __forceinline__ T opaque(T x) {
  if constexpr (sizeof(T) == 8)
    asm volatile("" : "+l"(x));
  else
    asm volatile("" : "+r"(x));
  return x;
}

// Barrier among `kThreads` threads of the block; ids 1..15 are free for roles.
template <int kId, int kThreads>
__device__ __forceinline__ void named_sync() {
  asm volatile("bar.sync %0, %1;" ::"n"(kId), "n"(kThreads) : "memory");
}

}  // namespace gsa::sm90
