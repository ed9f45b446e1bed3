// The compute backends of this process: the CPU's is linked in, the CUDA one is a shared library loaded on
// demand.
#pragma once

#include <napi.h>

#include <string>

#include "../abi/gsa_abi.h"

namespace gsa::addon {

// The backend called by that JavaScript string: "cpu", or "cuda" once it is loaded.
const gsa_backend& find_backend(const Napi::Value& name);

struct Device {
  const gsa_backend* backend;
  gsa_device* device;
};
Device open_device(const Napi::Value& backend, const Napi::Value& index);

// JavaScript functions: see src/native/types.ts.
void load_backend(const Napi::CallbackInfo& info);
Napi::Value loaded_backends(const Napi::CallbackInfo& info);
Napi::Value device_count(const Napi::CallbackInfo& info);
Napi::Value device_info(const Napi::CallbackInfo& info);
void synchronize(const Napi::CallbackInfo& info);
Napi::Value memory_stats(const Napi::CallbackInfo& info);
void set_option(const Napi::CallbackInfo& info);
Napi::Value get_option(const Napi::CallbackInfo& info);

}  // namespace gsa::addon
