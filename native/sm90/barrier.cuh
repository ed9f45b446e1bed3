// Barriers in shared memory that count bytes (mbarrier), and what arrives there by itself: boxes of tensors
// in global memory (TMA) and stores into the shared memory of blocks of the cluster. A barrier has phases, 0,
// 1, 0, ...; a phase is complete when `expect_bytes` was called once and as many bytes have arrived. PTX ISA,
// "mbarrier", "st.async", "cp.async.bulk.tensor".
#pragma once

#include <cuda.h>

#include "cluster.cuh"

namespace gsa::sm90 {

using TensorMap = CUtensorMap;

__device__ __forceinline__ void init_barrier(uint64_t* barrier) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(barrier)) : "memory");
}
// After init_barrier, before others may use them; a barrier of the cluster has to follow.
__device__ __forceinline__ void publish_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ __forceinline__ void expect_bytes(uint64_t* barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
               "r"(bytes)
               : "memory");
}
// Until the phase is complete: what arrived in it is visible to the thread.
__device__ __forceinline__ void wait_barrier(uint64_t* barrier, int phase) {
  asm volatile(
      "{\n.reg .pred done;\nagain:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n}" ::"r"(shared_address(barrier)),
      "r"(phase)
      : "memory");
}

// Shared memory that instructions of this thread or others (seen through a barrier) have written is visible
// to products of warpgroups and to boxes that follow.
__device__ __forceinline__ void publish_shared() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// A box of the tensor at (column, row) into the block's shared memory.
__device__ __forceinline__ void load_box(bf16* to, const TensorMap& map, int column, int row,
                                         uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], "
      "[%4];" ::"r"(shared_address(to)),
      "l"(&map), "r"(column), "r"(row), "r"(shared_address(barrier))
      : "memory");
}

// The way back. What the block wrote has to be published before; one thread stores, commits, and waits until
// its stores have read shared memory, or are done, before that is written again or the block ends. kAdds: to
// what is there.
template <bool kAdds>
__device__ __forceinline__ void store_box(const TensorMap& map, int column, int row, const bf16* from) {
  if constexpr (kAdds)
    asm volatile(
        "cp.reduce.async.bulk.tensor.2d.global.shared::cta.add.bulk_group [%0, {%1, %2}], [%3];" ::"l"(&map),
        "r"(column), "r"(row), "r"(shared_address(from))
        : "memory");
  else
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];" ::"l"(&map),
                 "r"(column), "r"(row), "r"(shared_address(from))
                 : "memory");
}
__device__ __forceinline__ void commit_stores() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
__device__ __forceinline__ void wait_stores_read() {
  asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}
__device__ __forceinline__ void wait_stores() { asm volatile("cp.async.bulk.wait_group 0;" ::: "memory"); }

// Contiguous bytes, a multiple of 16 and so aligned.
__device__ __forceinline__ void load_bytes(void* to, const void* from, int bytes, uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
          shared_address(to)),
      "l"(from), "r"(bytes), "r"(shared_address(barrier))
      : "memory");
}

// Stores to `address` in a block of the cluster, counted by `barrier` of that block.
__device__ __forceinline__ void store_async(uint32_t address, uint32_t barrier, uint32_t x) {
  asm volatile(
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.b32 [%0], %1, [%2];" ::"r"(address), "r"(x),
      "r"(barrier)
      : "memory");
}
__device__ __forceinline__ void store_async(uint32_t address, uint32_t barrier, const uint2& x) {
  asm volatile(
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v2.b32 [%0], {%1, %2}, [%3];" ::"r"(
          address),
      "r"(x.x), "r"(x.y), "r"(barrier)
      : "memory");
}
__device__ __forceinline__ void store_async(uint32_t address, uint32_t barrier, const uint4& x) {
  asm volatile(
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(
          address),
      "r"(x.x), "r"(x.y), "r"(x.z), "r"(x.w), "r"(barrier)
      : "memory");
}
__device__ __forceinline__ void store_async(uint32_t address, uint32_t barrier, const float (&x)[4]) {
  store_async(
      address, barrier,
      make_uint4(__float_as_uint(x[0]), __float_as_uint(x[1]), __float_as_uint(x[2]), __float_as_uint(x[3])));
}

}  // namespace gsa::sm90
