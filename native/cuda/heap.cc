#include "heap.h"

#include <algorithm>
#include <iterator>

namespace gsa::cuda {

Heap::Heap(std::unique_ptr<Pages> pages) : pages_(std::move(pages)), put_(pages_->count) {
  add_gap(0, pages_->count * pages_->page_bytes);
}

void Heap::add_gap(uint64_t offset, uint64_t bytes) {
  gaps_.emplace(offset, bytes);
  by_size_.emplace(bytes, offset);
}

void Heap::drop_gap(Gaps::iterator gap) {
  by_size_.erase({gap->second, gap->first});
  gaps_.erase(gap);
}

bool Heap::put_pages(uint64_t begin, uint64_t end) {
  std::vector<uint64_t> added;
  for (uint64_t page = begin / pages_->page_bytes; page * pages_->page_bytes < end; ++page) {
    if (put_[page]) continue;
    if (!pages_->put(page)) {
      for (const uint64_t unused : added) take_page(unused);
      return false;
    }
    put_[page] = true;
    ++held_;
    added.push_back(page);
  }
  return true;
}

void Heap::take_page(uint64_t page) {
  if (!put_[page] || !pages_->take(page)) return;
  put_[page] = false;
  --held_;
}

void* Heap::take(uint64_t bytes) {
  const uint64_t whole = pages_->count * pages_->page_bytes;
  if (bytes > whole) return nullptr;
  const uint64_t size = std::max(bytes + (kAlign - bytes % kAlign) % kAlign, kAlign);
  const auto found = by_size_.lower_bound({size, 0});
  if (found == by_size_.end()) return nullptr;
  const auto [gap, offset] = *found;
  if (!put_pages(offset, offset + size)) return nullptr;
  drop_gap(gaps_.find(offset));
  if (gap > size) add_gap(offset + size, gap - size);
  blocks_.emplace(offset, size);
  used_ += size;
  return pages_->base + offset;
}

void Heap::give_back(void* block) {
  const auto found = blocks_.find(static_cast<uint64_t>(static_cast<char*>(block) - pages_->base));
  if (found == blocks_.end()) return;
  uint64_t offset = found->first, bytes = found->second;
  blocks_.erase(found);
  used_ -= bytes;
  const auto after = gaps_.upper_bound(offset);
  if (after != gaps_.begin()) {
    const auto before = std::prev(after);
    if (before->first + before->second == offset) {
      offset = before->first;
      bytes += before->second;
      drop_gap(before);
    }
  }
  if (after != gaps_.end() && offset + bytes == after->first) {
    bytes += after->second;
    drop_gap(after);
  }
  add_gap(offset, bytes);
}

void Heap::trim(uint64_t keep) {
  const uint64_t each = pages_->page_bytes;
  for (auto gap = gaps_.rbegin(); gap != gaps_.rend(); ++gap) {
    const uint64_t first = (gap->first + each - 1) / each;
    for (uint64_t page = (gap->first + gap->second) / each; page > first && free_bytes() > keep;)
      take_page(--page);
  }
}

}  // namespace gsa::cuda
