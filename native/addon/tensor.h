// Tensors, and the handles by which JavaScript knows them. A handle is a number: making, reading and dropping
// a wrapped object costs microseconds, and a training step does thousands of each.
#pragma once

#include <napi.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "../abi/gsa_abi.h"
#include "storage.h"

namespace gsa::addon {

struct Tensor {
  std::shared_ptr<Storage> storage;  // null once disposed
  gsa_tensor view{};
};

// The tensors of one Node.js thread. A handle says the place and how often it was taken before, so that no
// handle is given out twice and one that is out of date, or another thread's, names no tensor by mistake of
// place.
class TensorTable {
 public:
  int64_t add(Tensor tensor);
  // What `handle` names, or a tensor without storage if that was disposed of; null where it was never given
  // out. Valid until the table changes.
  const Tensor* find(int64_t handle) const;
  void remove(int64_t handle);  // harmless for one that is gone

 private:
  struct Place {
    Tensor tensor;
    int64_t round = 0;  // how often it was taken
  };
  std::deque<Place> places_;  // a deque: growing it moves no tensor
  std::vector<int64_t> free_;
};

// The number in `value`; TypeError for what cannot be a handle.
int64_t read_handle(const Napi::Value& value, const char* name);
// The tensor behind a handle, disposed or not; TypeError for one that this thread never gave out. Valid until
// JavaScript runs again, which may dispose of it.
const Tensor& find(Napi::Env env, int64_t handle, const char* name);
const Tensor& unwrap(const Napi::Value& value, const char* name);
// The same, but an error with code USE_AFTER_DISPOSE when it is disposed.
const Tensor& unwrap_alive(const Napi::Value& value, const char* name);
void expect_alive(Napi::Env env, const Tensor& tensor, const char* name, const char* op = nullptr);

// JavaScript functions: see src/native/types.ts.
Napi::Value create_tensor(const Napi::CallbackInfo& info);
Napi::Value create_view(const Napi::CallbackInfo& info);
Napi::Value share(const Napi::CallbackInfo& info);
void dispose(const Napi::CallbackInfo& info);
void dispose_forgotten(const Napi::CallbackInfo& info);
Napi::Value leaks(const Napi::CallbackInfo& info);

}  // namespace gsa::addon
