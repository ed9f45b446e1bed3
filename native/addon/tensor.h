// Tensor handles: what JavaScript holds. A handle is a type-tagged object that owns a share of a storage.
#pragma once

#include <napi.h>

#include <cstdint>
#include <memory>

#include "../abi/gsa_abi.h"
#include "storage.h"

namespace gsa::addon {

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
Napi::Value leaks(const Napi::CallbackInfo& info);

}  // namespace gsa::addon
