// Tensor handles: what JavaScript holds. A handle is a type-tagged object that owns a share of a storage.
#pragma once

#include <napi.h>

#include <cstdint>
#include <memory>

#include "../abi/gsa_abi.h"
#include "backends.h"

namespace gsa::addon {

// Per Node.js thread; outlives it as long as a storage refers to it.
struct Counters {
  double finalized = 0;  // storages freed by garbage collection
  double alive = 0;
  int64_t host_bytes = 0;                  // that live storages hold in host memory
  int64_t host_bytes_told = 0;             // that garbage collection knows of
  int64_t device_bytes = 0;                // that live storages hold elsewhere
  int64_t device_mark = int64_t{1} << 30;  // above it garbage is collected
  double finalized_at_mark = 0;            // when the mark was set
};

// One allocation on a device, shared by a tensor and its views. Used by one Node.js thread only.
class Storage {
 public:
  Storage(Napi::Env env, Device device, uint64_t bytes, std::shared_ptr<Counters> counters);
  ~Storage();
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  const Device device;
  const uint64_t bytes;
  void* data = nullptr;
  const std::shared_ptr<Counters> counters;

 private:
  int64_t& held() const;  // the counter that this storage is in
};

struct Tensor {
  std::shared_ptr<Storage> storage;  // null once disposed
  gsa_tensor view{};
};

// The tensor behind a handle, disposed or not; TypeError for anything that is not a handle of this addon.
// Valid until JavaScript runs again, which may dispose of it.
const Tensor& unwrap(const Napi::Value& value, const char* name);
// The same, but an error with code USE_AFTER_DISPOSE when it is disposed.
const Tensor& unwrap_alive(const Napi::Value& value, const char* name);
void expect_alive(Napi::Env env, const Tensor& tensor, const char* name, const char* op = nullptr);

// JavaScript functions: see src/native/types.ts.
Napi::Value create_tensor(const Napi::CallbackInfo& info);
Napi::Value create_view(const Napi::CallbackInfo& info);
void dispose(const Napi::CallbackInfo& info);
void write(const Napi::CallbackInfo& info);
void read(const Napi::CallbackInfo& info);
Napi::Value leaks(const Napi::CallbackInfo& info);

}  // namespace gsa::addon
