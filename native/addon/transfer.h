// Copies between tensors and the host.
#pragma once

#include <napi.h>

#include <deque>
#include <map>
#include <memory>

#include "backends.h"
#include "tensor.h"

namespace gsa::addon {

// Reads of one Node.js thread from one device whose promises are pending, oldest first. One thread of Node's
// pool waits for the oldest: others need it too.
class ReadQueue {
 public:
  ReadQueue(napi_env env, Device device) : env_(env), device_(device) {}

  // A promise of `buffer` (an ArrayBuffer) with the bytes that `read` brings.
  napi_value push(gsa_read* read, napi_value buffer);

 private:
  struct Pending {
    gsa_read* read;
    napi_deferred promise;
    napi_ref buffer;  // keeps it alive, and nobody else has it
    gsa_status status;
    gsa_error error;
  };

  void next();
  bool wait_in_pool();
  void end_first();     // any thread
  void settle_first();  // resolves or rejects
  static void execute(napi_env env, void* data);
  static void complete(napi_env env, napi_status status, void* data);

  const napi_env env_;
  const Device device_;
  std::deque<std::unique_ptr<Pending>> pending_;
  Pending* first_ = nullptr;  // being waited for
  napi_async_work work_ = nullptr;
};

// What a Node.js thread has of its own. Node.js ends a thread after its pending reads.
struct ThreadState {
  std::shared_ptr<Counters> counters = std::make_shared<Counters>();
  TensorTable tensors;
  std::map<gsa_device*, ReadQueue> reads;
};
ThreadState& thread_state(Napi::Env env);

// JavaScript functions: see src/native/types.ts.
void write(const Napi::CallbackInfo& info);
void read(const Napi::CallbackInfo& info);
Napi::Value read_async(const Napi::CallbackInfo& info);

}  // namespace gsa::addon
