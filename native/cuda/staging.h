// Pinned host memory that copies between host and device go through. The device reads and writes it without
// the host's help, so a copy can be under way while the host goes on. Blocks are reused and bounded in
// number.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <deque>
#include <mutex>
#include <vector>

namespace gsa::cuda {

class Staging {
 public:
  static constexpr uint64_t kSmall = 16 << 10;  // a loss, a norm, the tokens of a batch
  static constexpr int kSmallBlocks = 128;
  static constexpr uint64_t kLarge = 4 << 20;  // long enough for the bus' full rate
  static constexpr int kLargeBlocks = 16;

  struct Block {
    void* memory;
    uint64_t bytes;     // kSmall or kLarge
    cudaEvent_t event;  // for whoever holds the block
  };

  // A block for `bytes` (of a large one: as much as fits) that no copy uses; nullptr when all are in use or
  // the host has no memory to pin.
  Block* try_take(uint64_t bytes);
  // The same, but waits for an upload that holds a block. Reads may hold the rest for as long as they like,
  // so the result may be nullptr here too.
  Block* take(uint64_t bytes);
  void give_back(Block* block);
  // For an upload: the block is free once `stream` has come to this point.
  void give_back_after(Block* block, cudaStream_t stream);

  // One block of kLarge bytes, shared by copies that found none: those take turns on the stream. Throws.
  void* shared_block();

 private:
  Block* free_block(uint64_t bytes);
  Block* pin(uint64_t bytes);
  std::vector<Block*>& free_list(uint64_t bytes) { return bytes <= kSmall ? small_ : large_; }

  std::mutex mutex_;
  std::vector<Block*> small_, large_;
  std::deque<Block*> uploading_;  // in the order of the stream
  int small_made_ = 0, large_made_ = 0;
  void* shared_ = nullptr;
};

}  // namespace gsa::cuda
