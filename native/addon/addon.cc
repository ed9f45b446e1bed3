// The N-API surface, exactly as src/native/types.ts declares it. No arithmetic, no per-op code.
#include <dlfcn.h>
#include <napi.h>

#include <memory>

#include "backends.h"
#include "event.h"
#include "exec.h"
#include "tensor.h"
#include "transfer.h"

namespace gsa::addon {

namespace {

// Node.js unmaps an addon when the last worker thread that loaded it ends, but the CPU backend's threads go
// on: keep the library for the life of the process.
void pin_library() {
  Dl_info self;
  if (dladdr(reinterpret_cast<const void*>(&pin_library), &self) && self.dli_fname)
    dlopen(self.dli_fname, RTLD_LAZY | RTLD_NODELETE | RTLD_NOLOAD);
}

// No C++ exception may reach Node.js: std::bad_alloc and the like become errors.
template <auto function>
auto contained(const Napi::CallbackInfo& info) -> decltype(function(info)) {
  try {
    return function(info);
  } catch (const Napi::Error&) {
    throw;
  } catch (const std::bad_alloc&) {
    Napi::Error error = Napi::Error::New(info.Env(), "The host has no memory left for this call");
    error.Set("code", Napi::String::New(info.Env(), "OUT_OF_MEMORY"));
    throw error;
  } catch (const std::exception& e) {
    Napi::Error error = Napi::Error::New(info.Env(), e.what());
    error.Set("code", Napi::String::New(info.Env(), "INTERNAL"));
    throw error;
  }
}

template <auto function>
void add(Napi::Object& exports, const char* name) {
  exports.Set(name, Napi::Function::New<contained<function>>(exports.Env(), name));
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  pin_library();
  env.SetInstanceData(new ThreadState());
  exports.Set("abiVersion", GSA_ABI_VERSION);
  add<list_ops>(exports, "ops");
  add<load_backend>(exports, "loadBackend");
  add<loaded_backends>(exports, "loadedBackends");
  add<device_count>(exports, "deviceCount");
  add<device_info>(exports, "deviceInfo");
  add<create_tensor>(exports, "tensor");
  add<create_view>(exports, "view");
  add<share>(exports, "share");
  add<dispose>(exports, "dispose");
  add<dispose_forgotten>(exports, "disposeForgotten");
  add<write>(exports, "write");
  add<read>(exports, "read");
  add<read_async>(exports, "readAsync");
  add<exec>(exports, "exec");
  add<synchronize>(exports, "synchronize");
  add<record_event>(exports, "recordEvent");
  add<wait_event>(exports, "waitEvent");
  add<elapsed>(exports, "elapsed");
  add<memory_stats>(exports, "memoryStats");
  add<set_option>(exports, "setOption");
  add<get_option>(exports, "getOption");
  add<leaks>(exports, "leaks");
  return exports;
}

}  // namespace

NODE_API_MODULE(flash_gsa, init)

}  // namespace gsa::addon
