// Event handles: type-tagged objects that own one event of a device; garbage collection frees it.
#pragma once

#include <napi.h>

namespace gsa::addon {

// JavaScript functions: see src/native/types.ts.
Napi::Value record_event(const Napi::CallbackInfo& info);
void wait_event(const Napi::CallbackInfo& info);
Napi::Value elapsed(const Napi::CallbackInfo& info);

}  // namespace gsa::addon
