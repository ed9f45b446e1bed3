#include "staging.h"

#include <memory>

#include "status.h"

namespace gsa::cuda {

Staging::Block* Staging::pin(uint64_t bytes) {
  const bool small = bytes <= kSmall;
  int& made = small ? small_made_ : large_made_;
  if (made == (small ? kSmallBlocks : kLargeBlocks)) return nullptr;
  auto block = std::make_unique<Block>(Block{nullptr, small ? kSmall : kLarge, nullptr});
  if (cudaEventCreateWithFlags(&block->event, cudaEventDisableTiming) != cudaSuccess) return nullptr;
  if (cudaHostAlloc(&block->memory, block->bytes, cudaHostAllocPortable) != cudaSuccess) {
    cudaGetLastError();
    cudaEventDestroy(block->event);
    return nullptr;
  }
  ++made;
  return block.release();  // for the life of the process
}

Staging::Block* Staging::free_block(uint64_t bytes) {
  while (!uploading_.empty() && cudaEventQuery(uploading_.front()->event) == cudaSuccess) {
    Block* done = uploading_.front();
    uploading_.pop_front();
    free_list(done->bytes).push_back(done);
  }
  cudaGetLastError();  // "not ready" is an answer, no error
  std::vector<Block*>& list = free_list(bytes);
  if (list.empty()) return pin(bytes);
  Block* block = list.back();
  list.pop_back();
  return block;
}

Staging::Block* Staging::try_take(uint64_t bytes) {
  std::lock_guard<std::mutex> lock(mutex_);
  Block* block = free_block(bytes);
  return block || bytes > kSmall ? block : free_block(kLarge);
}

Staging::Block* Staging::take(uint64_t bytes) {
  for (;;) {
    if (Block* block = try_take(bytes)) return block;
    cudaEvent_t oldest;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (uploading_.empty()) return nullptr;
      oldest = uploading_.front()->event;
    }
    // Another thread may take the block meanwhile and use its event for a later point: then this wait is
    // longer than need be, no more.
    check(cudaEventSynchronize(oldest), "copying");
  }
}

void Staging::give_back(Block* block) {
  std::lock_guard<std::mutex> lock(mutex_);
  free_list(block->bytes).push_back(block);
}

void Staging::give_back_after(Block* block, cudaStream_t stream) {
  std::lock_guard<std::mutex> lock(mutex_);
  const cudaError_t recorded = cudaEventRecord(block->event, stream);
  if (recorded == cudaSuccess)
    uploading_.push_back(block);
  else
    free_list(block->bytes).push_back(block);
  check(recorded, "recording an event");
}

void* Staging::shared_block() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!shared_) check(cudaHostAlloc(&shared_, kLarge, cudaHostAllocPortable), "pinning host memory");
  return shared_;
}

}  // namespace gsa::cuda
