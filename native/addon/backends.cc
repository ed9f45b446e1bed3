#include "backends.h"

#include <dlfcn.h>

#include <atomic>
#include <mutex>
#include <string_view>

#include "values.h"

extern "C" const gsa_backend* gsa_backend_get(uint32_t abi_version);  // native/cpu

namespace gsa::addon {

namespace {

// Shared by all Node.js threads of the process; a library once loaded stays.
std::atomic<const gsa_backend*> cuda_backend{nullptr};
std::mutex load_mutex;

const gsa_backend& cpu_backend() {
  static const gsa_backend* const backend = gsa_backend_get(GSA_ABI_VERSION);
  return *backend;
}

// Every tensor that is made comes by here: no std::string.
bool is_cuda(const Napi::Value& value) {
  char name[8];
  size_t length = 0;
  if (napi_get_value_string_utf8(value.Env(), value, name, sizeof name, &length) == napi_ok) {
    const std::string_view text(name, length);
    if (text == "cpu") return false;
    if (text == "cuda") return true;
  }
  throw_type(value.Env(), "\"cpu\" or \"cuda\"", "the backend", value);
}

int32_t read_index(const Napi::Value& value) {
  return static_cast<int32_t>(read_integer(value, "the device index", 0, INT32_MAX));
}

const gsa_backend* load_library(Napi::Env env, const std::string& path) {
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    const char* reason = dlerror();
    throw_coded(env, "NOT_BUILT", nullptr,
                "The CUDA backend could not be loaded: " + std::string(reason ? reason : path) +
                    ". Rebuild the package where nvcc is found");
  }
  const auto get = reinterpret_cast<gsa_backend_get_fn>(dlsym(library, GSA_BACKEND_GET_SYMBOL));
  const gsa_backend* backend = get ? get(GSA_ABI_VERSION) : nullptr;
  if (backend && backend->abi_version == GSA_ABI_VERSION && backend->n_ops == cpu_backend().n_ops)
    return backend;
  dlclose(library);
  throw_coded(
      env, "NOT_BUILT", nullptr,
      path + (get ? " was built from another version of this package" : " is not a backend of this package") +
          ". Rebuild the package where nvcc is found");
}

}  // namespace

const gsa_backend& find_backend(const Napi::Value& name) {
  if (!is_cuda(name)) return cpu_backend();
  const gsa_backend* backend = cuda_backend.load();
  if (!backend)
    throw_coded(name.Env(), "NOT_BUILT", nullptr, "The CUDA backend is not loaded: call loadBackend first");
  return *backend;
}

Device open_device(const Napi::Value& backend_name, const Napi::Value& index) {
  const gsa_backend& backend = find_backend(backend_name);
  gsa_device* device = nullptr;
  gsa_error error;
  check(index.Env(), backend.device_open(read_index(index), &device, &error), error);
  return {&backend, device};
}

void load_backend(const Napi::CallbackInfo& info) {
  const bool cuda = is_cuda(info[0]);
  const std::string path = read_string(info[1], "the library's path");
  if (!cuda) return;
  std::lock_guard<std::mutex> lock(load_mutex);
  if (!cuda_backend.load()) cuda_backend.store(load_library(info.Env(), path));
}

Napi::Value loaded_backends(const Napi::CallbackInfo& info) {
  Napi::Array names = Napi::Array::New(info.Env());
  names.Set(0u, "cpu");
  if (cuda_backend.load()) names.Set(1u, "cuda");
  return names;
}

Napi::Value device_count(const Napi::CallbackInfo& info) {
  int32_t count = 0;
  gsa_error error;
  check(info.Env(), find_backend(info[0]).device_count(&count, &error), error);
  return Napi::Number::New(info.Env(), count);
}

Napi::Value device_info(const Napi::CallbackInfo& info) {
  gsa_device_info found;
  gsa_error error;
  const gsa_backend& backend = find_backend(info[0]);
  check(info.Env(), backend.device_info(read_index(info[1]), &found, &error), error);
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("name", found.name);
  result.Set("totalBytes", static_cast<double>(found.total_bytes));
  result.Set("freeBytes", static_cast<double>(found.free_bytes));
  result.Set("computeMajor", found.compute_major);
  result.Set("computeMinor", found.compute_minor);
  result.Set("units", found.units);
  result.Set("detail", found.detail);
  return result;
}

void synchronize(const Napi::CallbackInfo& info) {
  const Device d = open_device(info[0], info[1]);
  gsa_error error;
  check(info.Env(), d.backend->synchronize(d.device, &error), error);
}

Napi::Value memory_stats(const Napi::CallbackInfo& info) {
  const Device d = open_device(info[0], info[1]);
  if (!info[2].IsBoolean()) throw_type(info.Env(), "a boolean", "resetPeak", info[2]);
  gsa_memory_stats stats;
  gsa_error error;
  check(info.Env(), d.backend->memory_stats(d.device, &stats, info[2].As<Napi::Boolean>().Value(), &error),
        error);
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("currentBytes", static_cast<double>(stats.current_bytes));
  result.Set("peakBytes", static_cast<double>(stats.peak_bytes));
  result.Set("cachedBytes", static_cast<double>(stats.cached_bytes));
  result.Set("allocations", static_cast<double>(stats.allocations));
  return result;
}

void set_option(const Napi::CallbackInfo& info) {
  const Device d = open_device(info[0], info[1]);
  const std::string name = read_string(info[2], "the option's name");
  const double value = read_number(info[3], "the option's value");
  gsa_error error;
  check(info.Env(), d.backend->set_option(d.device, name.c_str(), value, &error), error);
}

Napi::Value get_option(const Napi::CallbackInfo& info) {
  const Device d = open_device(info[0], info[1]);
  const std::string name = read_string(info[2], "the option's name");
  double value = 0;
  gsa_error error;
  check(info.Env(), d.backend->get_option(d.device, name.c_str(), &value, &error), error);
  return Napi::Number::New(info.Env(), value);
}

}  // namespace gsa::addon
