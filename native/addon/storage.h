// Allocations on devices, and what garbage collection is told of them.
#pragma once

#include <napi.h>

#include <cstdint>
#include <memory>

#include "backends.h"
#include "collection_mark.h"

namespace gsa::addon {

// Per Node.js thread; outlives it as long as a storage refers to it.
struct Counters {
  double finalized = 0;  // storages freed by garbage collection
  double alive = 0;
  int64_t host_bytes = 0;       // that live storages hold in host memory
  int64_t host_bytes_told = 0;  // that garbage collection knows of
  int64_t device_bytes = 0;     // that live storages hold elsewhere
  int64_t device_bytes_collected = 0;
  CollectionMark mark;
};

// One allocation on a device, shared by a tensor and its views. Used by one Node.js thread only.
class Storage {
 public:
  Storage(Napi::Env env, Device device, uint64_t bytes, std::shared_ptr<Counters> counters);
  ~Storage();
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  void count_as_garbage();  // when garbage collection is about to free it

  const Device device;
  const uint64_t bytes;
  void* data = nullptr;
  const std::shared_ptr<Counters> counters;

 private:
  int64_t& held() const;  // the counter that this storage is in
};

}  // namespace gsa::addon
