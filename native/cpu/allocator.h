// The CPU device's memory: 64-byte aligned blocks, freed ones kept for reuse. Fresh pages cost about as much
// as the arithmetic that most ops do on them (the kernel clears each page on first touch), and a training
// step asks for the same sizes again and again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <list>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "../abi/debug_memory.h"

namespace gsa::cpu {

class Allocator {
 public:
  Allocator();

  // Throws OpError(GSA_OUT_OF_MEMORY) when the memory limit or the machine has no room.
  void* allocate(uint64_t bytes);
  void release(void* ptr, uint64_t bytes) noexcept;

  bool debugging() const { return ledger_ != nullptr; }
  void inspect(const Args& args);  // the red zones of an op's tensors; throws what was found here or before
  void overrun(uint64_t bytes);    // for tests: writes past the end of some block of that size

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

  void* take(uint64_t bytes);
  void give_back(void* ptr, uint64_t bytes) noexcept;
  void inspect(const debug_memory::Block& block, const char* when);
  void* take_cached(uint64_t size);
  void* allocate_fresh(uint64_t size, uint64_t requested);
  void evict_until(uint64_t cached_bytes);

  std::mutex mutex_;
  BlockList cached_;  // least recently freed first
  std::unordered_map<uint64_t, std::deque<BlockList::iterator>> cached_by_size_;
  uint64_t current_ = 0, peak_ = 0, cached_bytes_ = 0, allocations_ = 0;
  uint64_t memory_limit_, cache_limit_;
  bool poison_ = false;
  std::unique_ptr<debug_memory::Ledger> ledger_;  // null unless memory is debugged
};

}  // namespace gsa::cpu
