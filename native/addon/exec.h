// exec(): the one door to all ops. It knows ops.def and nothing else about any op.
#pragma once

#include <napi.h>

namespace gsa::addon {

// JavaScript functions: see src/native/types.ts.
Napi::Value list_ops(const Napi::CallbackInfo& info);
void exec(const Napi::CallbackInfo& info);

}  // namespace gsa::addon
