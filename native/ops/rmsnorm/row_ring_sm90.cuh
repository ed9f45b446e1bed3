// Rows of several tensors on their way into shared memory, several rows ahead of the block that works on
// them. The copy engine brings them, so what is on its way takes no registers, and a block that sums up a row
// does not keep memory waiting.
#pragma once

#include "../../cuda/kernel.cuh"
#include "../../sm90/barrier.cuh"

namespace gsa::cuda::norm_rows {

template <typename T>
constexpr int kLanes = 16 / sizeof(T);
template <typename T>
using Vector = Pack<T, kLanes<T>>;

constexpr int kAhead = 2;  // rows of each tensor; 3 and 4 were slower

// Block b works on rows b, b + gridDim.x, ... of kTensors tensors of `rows` rows; one of them may be null.
// Every thread of the block calls start, arrived and next; between arrived and next it reads, with a
// __syncthreads() before next, which says that all have.
template <typename T, int kTensors>
struct RowRing {
  const void* from[kTensors];
  int64_t rows;
  int bytes;  // of a row, a multiple of 16
  uint64_t* full;
  char* memory;
  int64_t row = blockIdx.x;
  int slot = 0, phase = 0;

  static int shared_bytes(int64_t D) {
    return kAhead * kTensors * static_cast<int>(D) * static_cast<int>(sizeof(T));
  }

  __device__ __forceinline__ void start() {
    if (threadIdx.x == 0) {
      for (int i = 0; i < kAhead; ++i) sm90::init_barrier(full + i);
      sm90::publish_barriers();
    }
    __syncthreads();
    if (threadIdx.x == 0)
      for (int i = 0; i < kAhead; ++i) fetch(i, row + static_cast<int64_t>(i) * gridDim.x);
  }
  __device__ __forceinline__ void arrived() { sm90::wait_barrier(full + slot, phase); }
  __device__ __forceinline__ Vector<T> read(int tensor, int64_t at) const {
    return reinterpret_cast<const Vector<T>*>(memory + (slot * kTensors + tensor) * bytes)[at];
  }
  __device__ __forceinline__ void next() {
    if (threadIdx.x == 0) fetch(slot, row + static_cast<int64_t>(kAhead) * gridDim.x);
    row += gridDim.x;
    if (++slot < kAhead) return;
    slot = 0;
    phase ^= 1;
  }

 private:
  __device__ __forceinline__ void fetch(int to, int64_t r) {
    if (r >= rows) return;
    int expected = 0;
#pragma unroll
    for (int i = 0; i < kTensors; ++i) expected += from[i] ? bytes : 0;
    sm90::expect_bytes(full + to, expected);
#pragma unroll
    for (int i = 0; i < kTensors; ++i)
      if (from[i])
        sm90::load_bytes(memory + (to * kTensors + i) * bytes, static_cast<const char*>(from[i]) + r * bytes,
                         bytes, full + to);
  }
};

}  // namespace gsa::cuda::norm_rows
