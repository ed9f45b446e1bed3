#include "event.h"

#include <memory>

#include "backends.h"
#include "values.h"

namespace gsa::addon {

namespace {

constexpr napi_type_tag kEventTag = {0x3b8f1e6d25c94a70, 0xa1d7640fe29b583c};

struct Event {
  explicit Event(Device on) : device(on) {}
  ~Event() {
    if (event) device.backend->event_free(device.device, event);
  }
  const Device device;
  gsa_event* event = nullptr;
};

void finalize(napi_env, void* data, void*) { delete static_cast<Event*>(data); }

const Event& unwrap_event(const Napi::Value& value, const char* name) {
  const Napi::Env env = value.Env();
  bool ours = false;
  void* data = nullptr;
  if (!value.IsObject() || napi_check_object_type_tag(env, value, &kEventTag, &ours) != napi_ok || !ours ||
      napi_unwrap(env, value, &data) != napi_ok)
    throw_type(env, "an event handle", name, value);
  return *static_cast<Event*>(data);
}

}  // namespace

Napi::Value record_event(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  auto made = std::make_unique<Event>(open_device(info[0], info[1]));
  gsa_error error;
  check(env, made->device.backend->event_record(made->device.device, &made->event, &error), error);
  napi_value handle;
  if (napi_create_object(env, &handle) != napi_ok ||
      napi_type_tag_object(env, handle, &kEventTag) != napi_ok ||
      napi_wrap(env, handle, made.get(), finalize, nullptr, nullptr) != napi_ok)
    throw_coded(env, "INTERNAL", nullptr, "Node.js refused to create a handle");
  made.release();  // the finalizer's from here on
  return Napi::Value(env, handle);
}

void wait_event(const Napi::CallbackInfo& info) {
  const Event& event = unwrap_event(info[0], "the event");
  gsa_error error;
  check(info.Env(), event.device.backend->event_wait(event.device.device, event.event, &error), error);
}

Napi::Value elapsed(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const Event& from = unwrap_event(info[0], "the first event");
  const Event& to = unwrap_event(info[1], "the second event");
  if (from.device.device != to.device.device)
    throw_coded(env, "INVALID_ARGUMENT", nullptr,
                "Expected two events of one device but received two devices'");
  double milliseconds = 0;
  gsa_error error;
  check(env,
        from.device.backend->event_elapsed(from.device.device, from.event, to.event, &milliseconds, &error),
        error);
  return Napi::Number::New(env, milliseconds);
}

}  // namespace gsa::addon
