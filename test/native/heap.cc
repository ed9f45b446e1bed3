// The heap of a device (native/cuda/heap.h) over pages that are only counted. Prints how many calls were
// checked; a line that says what is wrong and status 1 otherwise.
#include "../../native/cuda/heap.h"

#include <cstdio>
#include <cstdlib>
#include <random>

#include "../../native/cuda/heap.cc"

using gsa::cuda::Heap;
using gsa::cuda::Pages;

namespace {

constexpr uint64_t kPage = 1 << 16;

void expect(bool right, const char* what) {
  if (right) return;
  std::printf("wrong: %s\n", what);
  std::exit(1);
}

struct Memory {
  std::vector<bool> put;
  uint64_t held = 0, limit = 0;
};

class Counted : public Pages {
 public:
  Counted(Memory& memory, uint64_t count)
      : Pages(reinterpret_cast<char*>(kPage * 7), kPage, count), memory_(memory) {
    memory_.put.resize(count);
  }
  bool put(uint64_t page) noexcept override {
    expect(!memory_.put[page], "a page was put twice");
    if (memory_.held == memory_.limit) return false;
    memory_.put[page] = true;
    ++memory_.held;
    return true;
  }
  bool take(uint64_t page) noexcept override {
    expect(memory_.put[page], "a page was taken that was not there");
    memory_.put[page] = false;
    --memory_.held;
    return true;
  }

 private:
  Memory& memory_;
};

struct Block {
  char* data;
  uint64_t bytes;
};

// No two blocks overlap, and there is memory behind all of each.
void expect_sound(const std::vector<Block>& blocks, const Memory& memory, char* base) {
  std::map<char*, uint64_t> order;
  for (const Block& block : blocks) {
    expect(reinterpret_cast<uintptr_t>(block.data) % Heap::kAlign == 0, "a block is not aligned");
    expect(order.emplace(block.data, block.bytes).second, "two blocks are one");
    const uint64_t first = static_cast<uint64_t>(block.data - base);
    for (uint64_t page = first / kPage; page * kPage < first + block.bytes; ++page)
      expect(memory.put[page], "a block has no memory");
  }
  const char* end = base;
  for (const auto& [data, bytes] : order) {
    expect(data >= end, "blocks overlap");
    end = data + bytes;
  }
}

long random_calls(unsigned seed) {
  std::mt19937_64 random(seed);
  Memory memory;
  memory.limit = 48;
  auto pages = std::make_unique<Counted>(memory, 256);
  char* const base = pages->base;
  Heap heap(std::move(pages));
  std::vector<Block> blocks;
  uint64_t used = 0;
  long checked = 0, refused = 0;
  for (int call = 0; call < 3000; ++call) {
    const bool take = random() % 100 < (call / 500 % 2 ? 40 : 60);
    if (take) {
      const uint64_t bytes = random() % (1u << (random() % 22)) + 1;
      const uint64_t held = memory.held;
      auto* data = static_cast<char*>(heap.take(bytes));
      if (!data) {
        expect(memory.held == held, "a call that failed has added memory");
        heap.trim(0);
        data = static_cast<char*>(heap.take(bytes));
      }
      if (data) {
        blocks.push_back({data, bytes});
        used += (bytes + Heap::kAlign - 1) / Heap::kAlign * Heap::kAlign;
      } else {
        ++refused;
        // What it refuses does not fit: each block and the gaps beside it cost less than two pages.
        expect(used + bytes + 2 * kPage * (blocks.size() + 1) > memory.limit * kPage,
               "a block was refused that fits");
      }
    } else if (!blocks.empty()) {
      const size_t which = random() % blocks.size();
      heap.give_back(blocks[which].data);
      used -= (blocks[which].bytes + Heap::kAlign - 1) / Heap::kAlign * Heap::kAlign;
      blocks[which] = blocks.back();
      blocks.pop_back();
    }
    if (random() % 200 == 0) {
      const uint64_t keep = random() % (8 * kPage), before = heap.page_bytes_held();
      heap.trim(keep);
      expect(heap.page_bytes_held() <= before, "trimming added memory");
    }
    expect(heap.page_bytes_held() == memory.held * kPage, "pages are miscounted");
    expect(heap.free_bytes() == memory.held * kPage - used, "bytes are miscounted");
    if (call % 10 == 0) expect_sound(blocks, memory, base);
    ++checked;
  }
  expect(refused > 0, "no call met the limit");
  for (const Block& block : blocks) heap.give_back(block.data);
  heap.trim(0);
  expect(memory.held == 0, "memory is left after everything was given back");
  memory.limit = 256;
  expect(heap.take(256 * kPage) == base, "gaps do not grow together");
  return checked;
}

// The first call of a step pays for pages, the others for none; the first gap of equal ones is taken.
void repeated_steps() {
  Memory memory;
  memory.limit = 1000;
  Heap heap(std::make_unique<Counted>(memory, 4000));
  std::vector<void*> first;
  for (int step = 0; step < 5; ++step) {
    std::vector<void*> kept;
    for (int layer = 0; layer < 24; ++layer) {
      kept.push_back(heap.take(5 * kPage));
      void* scratch = heap.take(3 * kPage + 1000);
      kept.push_back(heap.take(9 * kPage / 2));
      heap.give_back(scratch);
    }
    while (!kept.empty()) {
      void* gradient = heap.take(2 * kPage);
      heap.give_back(kept.back());
      if (step == 0)
        first.push_back(kept.back());
      else
        expect(first[first.size() - kept.size()] == kept.back(), "a step does not repeat the one before");
      kept.pop_back();
      heap.give_back(gradient);
    }
    expect(memory.held <= 24 * 19 / 2 + 6, "more memory than in use at most and a few pages");
    if (step == 0) memory.limit = memory.held;
  }
  expect(heap.take(uint64_t{1} << 62) == nullptr, "a block larger than the range");
  heap.trim(10 * kPage);
  expect(memory.held == 10, "trimming kept something else than asked for");
}

}  // namespace

int main() {
  long checked = 0;
  for (unsigned seed = 1; seed <= 20; ++seed) checked += random_calls(seed);
  repeated_steps();
  std::printf("%ld\n", checked);
}
