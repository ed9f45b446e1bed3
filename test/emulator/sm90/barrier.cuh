// In place of native/sm90/barrier.cuh. What is asynchronous there happens at once; a barrier holds the bytes
// still expected (low half, signed), whether `expect_bytes` came (bit 32) and how many phases are complete.
#pragma once

#include "../cuda/tensor_map.h"
#include "cluster.cuh"

namespace gsa::sm90 {

using TensorMap = CUtensorMap;

inline void arrive(uint64_t& barrier, int bytes, bool expect) {
  int left = static_cast<int>(static_cast<uint32_t>(barrier)) + bytes;
  bool expected = barrier >> 32 & 1;
  uint64_t phases = barrier >> 33;
  if (expect && expected) {
    std::printf("a phase of a barrier is expected twice\n");
    std::exit(1);
  }
  expected |= expect;
  if (expected && left == 0) {
    ++phases;
    expected = false;
  }
  barrier = phases << 33 | static_cast<uint64_t>(expected) << 32 | static_cast<uint32_t>(left);
}

inline void init_barrier(uint64_t* barrier) { *barrier = 0; }
inline void publish_barriers() {}
inline void expect_bytes(uint64_t* barrier, int bytes) { arrive(*barrier, bytes, true); }
inline void wait_barrier(uint64_t* barrier, int phase) {
  if ((*barrier >> 33) % 2 != static_cast<uint64_t>(phase)) return;
  emulator::current->bytes = barrier;
  emulator::current->phase = phase;
  emulator::pause();
}
inline void publish_shared() {}

inline void load_box(bf16* to, const TensorMap& map, int column, int row, uint64_t* barrier) {
  for (int r = 0; r < map.box_rows; ++r)
    for (int c = 0; c < kTile; ++c) {
      const int64_t at_row = row + r, at_column = column + c;
      const bool inside = at_row >= 0 && at_row < map.rows && at_column >= 0 && at_column < map.columns;
      to[tile_offset(r, c)] = inside ? map.base[at_row * map.stride + at_column] : __float2bfloat16_rn(0.0f);
    }
  arrive(*barrier, -map.box_rows * kTile * 2, false);
}

template <bool kAdds>
void store_box(const TensorMap& map, int column, int row, const bf16* from) {
  for (int r = 0; r < map.box_rows && row + r < map.rows; ++r)
    for (int c = 0; c < kTile && column + c < map.columns; ++c) {
      bf16& to = const_cast<bf16*>(map.base)[int64_t{row + r} * map.stride + column + c];
      const bf16 x = from[tile_offset(r, c)];
      to = kAdds ? __float2bfloat16_rn(__bfloat162float(to) + __bfloat162float(x)) : x;
    }
}
inline void commit_stores() {}
inline void wait_stores_read() {}
inline void wait_stores() {}

inline void load_bytes(void* to, const void* from, int bytes, uint64_t* barrier) {
  std::memcpy(to, from, bytes);
  arrive(*barrier, -bytes, false);
}

inline void store_counted(uint32_t address, uint32_t barrier, const void* from, int bytes) {
  if (address % bytes) {
    std::printf("a store of %d bytes that is not aligned\n", bytes);
    std::exit(1);
  }
  std::memcpy(emulator::shared_memory + address, from, bytes);
  arrive(*reinterpret_cast<uint64_t*>(emulator::shared_memory + barrier), -bytes, false);
}
inline void store_async(uint32_t address, uint32_t barrier, uint32_t x) {
  store_counted(address, barrier, &x, 4);
}
inline void store_async(uint32_t address, uint32_t barrier, const uint2& x) {
  store_counted(address, barrier, &x, 8);
}
inline void store_async(uint32_t address, uint32_t barrier, const uint4& x) {
  store_counted(address, barrier, &x, 16);
}
inline void store_async(uint32_t address, uint32_t barrier, const float (&x)[4]) {
  store_counted(address, barrier, x, 16);
}

}  // namespace gsa::sm90
