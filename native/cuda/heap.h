// Blocks of one range of addresses, for work that is ordered by one stream: a block that is given back may be
// handed out again at once. Memory stands behind the range in pages, put there as they are needed. Calls for
// each tensor go to the books here, and to the driver only for pages, which a training has after its first
// step. No CUDA in here; not thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <utility>
#include <vector>

namespace gsa::cuda {

// Memory behind a range of addresses, page by page.
class Pages {
 public:
  Pages(char* base, uint64_t page_bytes, uint64_t count) : base(base), page_bytes(page_bytes), count(count) {}
  virtual ~Pages() = default;
  virtual bool put(uint64_t page) noexcept = 0;   // false: there is no memory left
  virtual bool take(uint64_t page) noexcept = 0;  // gives its memory back; false: it stays

  char* const base;
  const uint64_t page_bytes, count;
};

class Heap {
 public:
  static constexpr uint64_t kAlign = 512;  // as the driver's pool

  explicit Heap(std::unique_ptr<Pages> pages);

  // The smallest gap that is large enough; of equals the first. nullptr: no memory, or no gap in the range.
  void* take(uint64_t bytes);
  void give_back(void* block);
  // Gives pages back on which no block lies, from the end, until no more than `keep` bytes are free. Nothing
  // may be using them.
  void trim(uint64_t keep);

  uint64_t page_bytes_held() const { return held_ * pages_->page_bytes; }
  uint64_t free_bytes() const { return page_bytes_held() - used_; }

 private:
  using Gaps = std::map<uint64_t, uint64_t>;  // offset: bytes, with or without memory behind them

  bool put_pages(uint64_t begin, uint64_t end);  // all that the bytes lie on, or none
  void take_page(uint64_t page);
  void add_gap(uint64_t offset, uint64_t bytes);
  void drop_gap(Gaps::iterator gap);

  const std::unique_ptr<Pages> pages_;
  std::vector<bool> put_;  // pages
  uint64_t held_ = 0;      // of them
  uint64_t used_ = 0;      // bytes
  Gaps gaps_;
  std::set<std::pair<uint64_t, uint64_t>> by_size_;  // (bytes, offset) of the gaps
  std::map<uint64_t, uint64_t> blocks_;              // offset: bytes
};

}  // namespace gsa::cuda
