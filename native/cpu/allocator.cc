#include "allocator.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "host.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace gsa::cpu {

namespace {

constexpr uint64_t kAlignment = 64;
constexpr uint64_t kHugePage = 2u << 20;
// From here on the system is asked whether it has the memory: it would grant the address range and kill us
// later.
constexpr uint64_t kLargeBlock = 64u << 20;

// Rounded up so that at most an eighth is wasted and nearby sizes share blocks.
uint64_t size_class(uint64_t bytes) {
  if (bytes <= kAlignment) return kAlignment;
  const int top = 63 - __builtin_clzll(bytes);
  const uint64_t step = std::max(kAlignment, uint64_t{1} << std::max(0, top - 3));
  return (bytes + step - 1) / step * step;
}

void* system_allocate(uint64_t size) {
  const bool huge = size >= 2 * kHugePage;
  void* ptr = nullptr;
  if (posix_memalign(&ptr, huge ? kHugePage : kAlignment, size) != 0) return nullptr;
#if defined(__linux__)
  if (huge) madvise(ptr, size, MADV_HUGEPAGE);  // advice only: without it the pages are merely small
#endif
  return ptr;
}

void mend(char* data, uint64_t bytes) {
  std::memset(data - debug_memory::kZone, debug_memory::kZoneByte, debug_memory::kZone);
  std::memset(data + bytes, debug_memory::kZoneByte, debug_memory::kZone);
}

double mebibytes(uint64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

}  // namespace

Allocator::Allocator() : memory_limit_(memory_limit_bytes()), cache_limit_(memory_limit_ / 4) {
  if (debug_memory::wanted()) ledger_ = std::make_unique<debug_memory::Ledger>();
}

void* Allocator::allocate(uint64_t bytes) {
  if (!debugging()) return take(bytes);
  ledger_->raise();
  constexpr uint64_t kZones = 2 * debug_memory::kZone;
  char* zone = static_cast<char*>(take(bytes > UINT64_MAX - kZones ? bytes : bytes + kZones));
  char* data = zone + debug_memory::kZone;
  std::memset(data, debug_memory::kPoison, bytes);
  mend(data, bytes);
  ledger_->add(data, bytes);
  return data;
}

void Allocator::release(void* ptr, uint64_t bytes) noexcept {
  if (!ptr || !debugging()) return give_back(ptr, bytes);
  char* data = static_cast<char*>(ptr);
  try {
    inspect(ledger_->find(ptr), "when it was given back");
    ledger_->remove(data);
  } catch (const std::bad_alloc&) {  // no memory for the report
  }
  std::memset(data, debug_memory::kPoison, bytes);
  give_back(data - debug_memory::kZone, bytes + 2 * debug_memory::kZone);
}

void Allocator::inspect(const debug_memory::Block& block, const char* when) {
  if (!block.data) return;
  const auto* data = reinterpret_cast<const unsigned char*>(block.data);
  if (!ledger_->inspect(block, {data - debug_memory::kZone, data + block.bytes}, when))
    mend(block.data, block.bytes);  // each finding is told once
}

void Allocator::inspect(const Args& args) {
  args.for_each([&](const gsa_tensor& tensor) { inspect(ledger_->find(tensor.data), "after an op on it"); });
  ledger_->raise();
}

void Allocator::overrun(uint64_t bytes) {
  const debug_memory::Block block = ledger_->find_size(bytes);
  if (!block.data)
    fail(GSA_INVALID_ARGUMENT, "Expected the size of a live block but received %llu bytes",
         static_cast<unsigned long long>(bytes));
  block.data[bytes + 3] = 0;
}

void* Allocator::take(uint64_t bytes) {
  std::lock_guard<std::mutex> lock(mutex_);
  // Past 2^62 the rounding itself would overflow; no machine has it.
  const uint64_t size = bytes > (uint64_t{1} << 62) ? bytes : size_class(bytes);
  void* ptr = take_cached(size);
  if (!ptr) ptr = allocate_fresh(size, bytes);
  current_ += size;
  peak_ = std::max(peak_, current_);
  ++allocations_;
  if (poison_) std::memset(ptr, 0xff, size);  // NaN in every floating-point format
  return ptr;
}

void Allocator::give_back(void* ptr, uint64_t bytes) noexcept {
  if (!ptr) return;
  std::lock_guard<std::mutex> lock(mutex_);
  const uint64_t size = size_class(bytes);
  current_ -= size;
  if (size > cache_limit_) return std::free(ptr);
  evict_until(cache_limit_ - size);
  try {
    BlockList entry(1, Block{ptr, size});
    cached_by_size_[size].push_back(entry.begin());
    cached_.splice(cached_.end(), entry);
    cached_bytes_ += size;
  } catch (const std::bad_alloc&) {  // no memory even for the bookkeeping
    std::free(ptr);
  }
}

void* Allocator::take_cached(uint64_t size) {
  const auto found = cached_by_size_.find(size);
  if (found == cached_by_size_.end() || found->second.empty()) return nullptr;
  const BlockList::iterator block = found->second.back();  // the most recently freed may still be in a cache
  void* ptr = block->ptr;
  found->second.pop_back();
  cached_.erase(block);
  cached_bytes_ -= size;
  return ptr;
}

void* Allocator::allocate_fresh(uint64_t size, uint64_t requested) {
  const bool fits = size <= memory_limit_ && current_ <= memory_limit_ - size;
  if (!fits)
    fail(GSA_OUT_OF_MEMORY,
         "Expected room for %.1f MiB but %.1f of %.1f MiB are in use; dispose tensors, make the work "
         "smaller, or "
         "raise the \"memory_limit\" option",
         mebibytes(requested), mebibytes(current_), mebibytes(memory_limit_));
  evict_until(memory_limit_ - size - current_);
  if (size >= kLargeBlock && size > available_memory_bytes()) {
    evict_until(0);
    const uint64_t available = available_memory_bytes();
    if (size > available)
      fail(GSA_OUT_OF_MEMORY,
           "Expected room for %.1f MiB but the machine has %.1f MiB left; dispose tensors, make the work "
           "smaller, or "
           "end other programs",
           mebibytes(requested), mebibytes(available));
  }
  void* ptr = system_allocate(size);
  if (!ptr) {
    evict_until(0);
    ptr = system_allocate(size);
  }
  if (!ptr)
    fail(GSA_OUT_OF_MEMORY, "The system refused %.1f MiB with %.1f MiB in use by tensors",
         mebibytes(requested), mebibytes(current_));
  return ptr;
}

void Allocator::evict_until(uint64_t cached_bytes) {
  while (cached_bytes_ > cached_bytes) {
    const Block oldest = cached_.front();
    // Within one size, too, the oldest is at the front.
    const auto same_size = cached_by_size_.find(oldest.bytes);
    same_size->second.pop_front();
    if (same_size->second.empty()) cached_by_size_.erase(same_size);
    cached_.pop_front();
    cached_bytes_ -= oldest.bytes;
    std::free(oldest.ptr);
  }
}

gsa_memory_stats Allocator::stats(bool reset_peak) {
  std::lock_guard<std::mutex> lock(mutex_);
  const gsa_memory_stats stats{current_, peak_, cached_bytes_, allocations_};
  if (reset_peak) peak_ = current_;
  return stats;
}

uint64_t Allocator::memory_limit() {
  std::lock_guard<std::mutex> lock(mutex_);
  return memory_limit_;
}

void Allocator::set_memory_limit(uint64_t bytes) {
  std::lock_guard<std::mutex> lock(mutex_);
  memory_limit_ = bytes;
  evict_until(bytes > current_ ? bytes - current_ : 0);
}

uint64_t Allocator::cache_limit() {
  std::lock_guard<std::mutex> lock(mutex_);
  return cache_limit_;
}

void Allocator::set_cache_limit(uint64_t bytes) {
  std::lock_guard<std::mutex> lock(mutex_);
  cache_limit_ = bytes;
  evict_until(bytes);
}

bool Allocator::poison() {
  std::lock_guard<std::mutex> lock(mutex_);
  return poison_;
}

void Allocator::set_poison(bool on) {
  std::lock_guard<std::mutex> lock(mutex_);
  poison_ = on;
}

}  // namespace gsa::cpu
