// The CPU backend's entry in the C table of abi/gsa_abi.h.
#include <chrono>
#include <cstring>

#include "device.h"

// Work is done when it was submitted, so an event is a reading of the host's clock.
struct gsa_event {
  std::chrono::steady_clock::time_point time;
};

namespace gsa::cpu {

#define GSA_OP(name, inputs, outputs, attributes) void name(gsa_device&, const Args&);
#include "../ops/ops.def"
#undef GSA_OP

namespace {

template <Op op>
gsa_status run(gsa_device* device, const gsa_args* raw, gsa_error* error) {
  return guard(error, [&] {
    const Args args(*raw);
    if (!device->allocator.debugging()) return op(*device, args);
    const debug_memory::Running running(args.op());
    op(*device, args);
    device->allocator.inspect(args);
  });
}

const gsa_op_fn* op_table() {
#define GSA_OP(name, inputs, outputs, attributes) run<&name>,
  static const gsa_op_fn table[] = {
#include "../ops/ops.def"
  };
#undef GSA_OP
  return table;
}

constexpr uint32_t kOps = 0
#define GSA_OP(name, inputs, outputs, attributes) +1
#include "../ops/ops.def"
#undef GSA_OP
    ;

void expect_first(int32_t index) {
  if (index != 0)
    fail(GSA_INVALID_ARGUMENT, "Expected 0 for the device index but received %d: there is one CPU", index);
}

gsa_status device_count(int32_t* count, gsa_error*) {
  *count = 1;
  return GSA_OK;
}

gsa_status device_info(int32_t index, gsa_device_info* info, gsa_error* error) {
  return guard(error, [&] {
    expect_first(index);
    the_device();  // reports unusable environment variables
    *info = describe_device();
  });
}

gsa_status device_open(int32_t index, gsa_device** device, gsa_error* error) {
  return guard(error, [&] {
    expect_first(index);
    *device = &the_device();
  });
}

gsa_status allocate(gsa_device* device, uint64_t bytes, void** ptr, gsa_error* error) {
  return guard(error, [&] { *ptr = device->allocator.allocate(bytes); });
}

void release(gsa_device* device, void* ptr, uint64_t bytes) { device->allocator.release(ptr, bytes); }

gsa_status copy(gsa_device*, void* dst, const void* src, uint64_t bytes, gsa_copy_kind, gsa_error*) {
  if (bytes > 0) std::memcpy(dst, src, bytes);
  return GSA_OK;
}

// Ops return when they are done.
gsa_status synchronize(gsa_device*, gsa_error*) { return GSA_OK; }

gsa_status memory_stats(gsa_device* device, gsa_memory_stats* stats, int32_t reset_peak, gsa_error* error) {
  return guard(error, [&] { *stats = device->allocator.stats(reset_peak != 0); });
}

gsa_status set(gsa_device* device, const char* name, double value, gsa_error* error) {
  return guard(error, [&] { set_option(*device, name, value); });
}

gsa_status get(gsa_device* device, const char* name, double* value, gsa_error* error) {
  return guard(error, [&] { *value = get_option(*device, name); });
}

gsa_status event_record(gsa_device*, gsa_event** event, gsa_error* error) {
  return guard(error, [&] { *event = new gsa_event{std::chrono::steady_clock::now()}; });
}

gsa_status event_wait(gsa_device*, gsa_event*, gsa_error*) { return GSA_OK; }

gsa_status event_elapsed(gsa_device*, gsa_event* from, gsa_event* to, double* milliseconds, gsa_error*) {
  *milliseconds = std::chrono::duration<double, std::milli>(to->time - from->time).count();
  return GSA_OK;
}

void event_free(gsa_device*, gsa_event* event) { delete event; }

// Copied at once: a copy by another thread would see what ops write meanwhile.
gsa_status read_start(gsa_device*, void* dst, const void* src, uint64_t bytes, gsa_read** read, gsa_error*) {
  if (bytes > 0) std::memcpy(dst, src, bytes);
  *read = nullptr;
  return GSA_OK;
}

gsa_status read_end(gsa_device*, gsa_read*, gsa_error*) { return GSA_OK; }

}  // namespace

extern "C" const gsa_backend* gsa_backend_get(uint32_t abi_version) {
  static const gsa_backend backend = {GSA_ABI_VERSION, kOps,          "cpu",      op_table(), device_count,
                                      device_info,     device_open,   allocate,   release,    copy,
                                      synchronize,     memory_stats,  set,        get,        event_record,
                                      event_wait,      event_elapsed, event_free, read_start, read_end};
  return abi_version == GSA_ABI_VERSION ? &backend : nullptr;
}

}  // namespace gsa::cpu
