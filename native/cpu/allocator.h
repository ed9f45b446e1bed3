// The CPU device's memory: 64-byte aligned blocks, freed ones kept for reuse. Fresh pages cost about as much
// as the arithmetic that most ops do on them (the kernel clears each page on first touch), and a training
// step asks for the same sizes again and again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <list>
#include <mutex>
#include <unordered_map>

#include "../abi/gsa_abi.h"

namespace gsa::cpu {

class Allocator {
 public:
  Allocator();

  // Throws OpError(GSA_OUT_OF_MEMORY) when the memory limit or the machine has no room.
  void* allocate(uint64_t bytes);
  void release(void* ptr, uint64_t bytes) noexcept;

  gsa_memory_stats stats(bool reset_peak);
  uint64_t memory_limit();
  void set_memory_limit(uint64_t bytes);
  uint64_t cache_limit();
  void set_cache_limit(uint64_t bytes);  // 0 gives everything back now and keeps nothing later
  bool poison();
  void set_poison(
      bool on);  // fill every block that is handed out with NaN: shows reads of memory never written

 private:
  struct Block {
    void* ptr;
    uint64_t bytes;
  };
  using BlockList = std::list<Block>;

  void* take_cached(uint64_t size);
  void* allocate_fresh(uint64_t size, uint64_t requested);
  void evict_until(uint64_t cached_bytes);

  std::mutex mutex_;
  BlockList cached_;  // least recently freed first
  std::unordered_map<uint64_t, std::deque<BlockList::iterator>> cached_by_size_;
  uint64_t current_ = 0, peak_ = 0, cached_bytes_ = 0, allocations_ = 0;
  uint64_t memory_limit_, cache_limit_;
  bool poison_ = false;
};

}  // namespace gsa::cpu
