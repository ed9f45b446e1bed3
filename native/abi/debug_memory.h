// Debugging of device memory, on with FLASH_GSA_DEBUG_MEMORY=1: what is handed out and what is given back is
// filled with NaN, and every block lies between two red zones, which are looked at after every op that was
// given the block and when it is given back. This file keeps the books; filling and looking is the backend's.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <utility>

#include "args.h"

namespace gsa::debug_memory {

constexpr uint64_t kZone = 512;  // before and after; as much as any allocator aligns to
constexpr unsigned char kZoneByte = 0xa5;
constexpr unsigned char kPoison = 0xff;  // NaN in every floating-point format

inline bool wanted() {
  const char* value = std::getenv("FLASH_GSA_DEBUG_MEMORY");
  if (!value || !*value || std::strcmp(value, "0") == 0) return false;
  if (std::strcmp(value, "1") != 0)
    fail(GSA_INVALID_ARGUMENT, "Expected 0 or 1 for FLASH_GSA_DEBUG_MEMORY but received \"%.40s\"", value);
  return true;
}

// What the calling thread is running, for reports.
inline thread_local const char* running_op = nullptr;
class Running {
 public:
  explicit Running(const char* op) { running_op = op; }
  ~Running() { running_op = nullptr; }
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;
};

struct Block {
  char* data = nullptr;  // between the zones; nullptr: no such block
  uint64_t bytes = 0;
  std::string maker;  // the op that was running when it was handed out, if one was
};

// Two zones, as read back from the device or where they are.
struct Zones {
  const unsigned char *before, *after;
};

class Ledger {
 public:
  void add(char* data, uint64_t bytes) {
    std::lock_guard<std::mutex> lock(mutex_);
    blocks_[data] = {data, bytes, running_op ? running_op : ""};
  }

  void remove(const char* data) {
    std::lock_guard<std::mutex> lock(mutex_);
    blocks_.erase(data);
  }

  // The block that `address` lies in (or just past the end of: an empty view).
  Block find(const void* address) {
    std::lock_guard<std::mutex> lock(mutex_);
    auto after = blocks_.upper_bound(static_cast<const char*>(address));
    if (after == blocks_.begin()) return {};
    const Block& block = (--after)->second;
    return static_cast<const char*>(address) <= block.data + block.bytes ? block : Block{};
  }

  // Any block of that size.
  Block find_size(uint64_t bytes) {
    std::lock_guard<std::mutex> lock(mutex_);
    for (const auto& entry : blocks_)
      if (entry.second.bytes == bytes) return entry.second;
    return {};
  }

  // Whether the zones are whole; if not, the first finding is kept for raise(). All go to stderr too: the
  // process may end before a call can throw.
  bool inspect(const Block& block, const Zones& zones, const char* when) {
    const std::string damage = describe(zones);
    if (damage.empty()) return true;
    const std::string text = "Expected writes inside a block of " + std::to_string(block.bytes) +
                             " bytes (made by " + (block.maker.empty() ? "the caller" : block.maker) +
                             ") but " + damage + " were overwritten; found " + when + " with " +
                             (running_op ? running_op : "no op") + " running";
    std::fprintf(stderr, "flash-gsa: %s\n", text.c_str());
    std::lock_guard<std::mutex> lock(mutex_);
    if (finding_.empty()) finding_ = text;
    return false;
  }

  // Throws what was found, once.
  void raise() {
    std::string found;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      found.swap(finding_);
    }
    if (!found.empty()) throw OpError(GSA_INTERNAL, found);
  }

 private:
  static std::string describe(const Zones& zones) {
    std::string text;
    for (const auto& [zone, side] :
         {std::pair(zones.before, "before its start"), {zones.after, "past its end"}}) {
      uint64_t count = 0, first = 0;
      for (uint64_t i = 0; i < kZone; ++i)
        if (zone[i] != kZoneByte && count++ == 0) first = i;
      if (count == 0) continue;
      // Distances from the block: the zone before it is counted backwards.
      text += (text.empty() ? "" : " and ") + std::to_string(count) + " bytes " + side + " (from byte " +
              (zone == zones.before ? "-" + std::to_string(kZone - first) : "+" + std::to_string(first)) +
              ")";
    }
    return text;
  }

  std::mutex mutex_;
  std::map<const char*, Block> blocks_;
  std::string finding_;
};

}  // namespace gsa::debug_memory
