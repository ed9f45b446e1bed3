// The CUDA backend's entry in the C table of abi/gsa_abi.h.
#include "copy.h"
#include "device.h"
#include "event.h"
#include "memory.h"
#include "status.h"

namespace gsa::cuda {

// Weak: an op without a *_sm90.cu has a null address, and its place in the table stays empty.
#define GSA_OP(name, inputs, outputs, attributes) __attribute__((weak)) void name(gsa_device&, const Args&);
#include "../ops/ops.def"
#undef GSA_OP

namespace {

// The way into everything on a device: a lost one refuses, and what shows that it is lost is remembered.
template <typename Body>
gsa_status on_device(gsa_device* device, gsa_error* error, Body&& body) {
  const gsa_status status = guard(error, [&] {
    expect_usable(*device);
    body();
  });
  return status == GSA_OK ? status : diagnose(*device, status, error);
}

// An op launches on device.stream; that a launch was refused shows here, what goes wrong while it runs shows
// later.
template <Op op>
gsa_status launched(gsa_device* device, const gsa_args* raw, gsa_error* error) {
  return on_device(device, error, [&] {
    const Args args(*raw);
    const debug_memory::Running running(args.op());
    select(*device);
    op(*device, args);
    check(cudaPeekAtLastError(), "launching a kernel");
    if (device->ledger) inspect(*device, args);
  });
}

const gsa_op_fn* op_table() {
#define GSA_OP(name, inputs, outputs, attributes) &name ? launched<&name> : nullptr,
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

gsa_status device_count(int32_t* count, gsa_error* error) {
  return guard(error, [&] { *count = count_devices(); });
}

gsa_status device_info(int32_t index, gsa_device_info* info, gsa_error* error) {
  return guard(error, [&] { *info = describe_device(index); });
}

gsa_status device_open(int32_t index, gsa_device** device, gsa_error* error) {
  return guard(error, [&] { *device = &open_device(index); });
}

gsa_status alloc(gsa_device* device, uint64_t bytes, void** ptr, gsa_error* error) {
  return on_device(device, error, [&] { *ptr = allocate(*device, bytes); });
}

void free_memory(gsa_device* device, void* ptr, uint64_t bytes) { release(*device, ptr, bytes); }

gsa_status copy_memory(gsa_device* device, void* dst, const void* src, uint64_t bytes, gsa_copy_kind kind,
                       gsa_error* error) {
  return on_device(device, error, [&] { copy(*device, dst, src, bytes, kind); });
}

gsa_status wait(gsa_device* device, gsa_error* error) {
  return on_device(device, error, [&] { synchronize(*device); });
}

gsa_status stats(gsa_device* device, gsa_memory_stats* found, int32_t reset_peak, gsa_error* error) {
  return on_device(device, error, [&] { *found = memory_stats(*device, reset_peak != 0); });
}

gsa_status set(gsa_device* device, const char* name, double value, gsa_error* error) {
  return on_device(device, error, [&] { set_option(*device, name, value); });
}

gsa_status get(gsa_device* device, const char* name, double* value, gsa_error* error) {
  return on_device(device, error, [&] { *value = get_option(*device, name); });
}

gsa_status record(gsa_device* device, gsa_event** event, gsa_error* error) {
  return on_device(device, error, [&] { *event = record_event(*device); });
}

gsa_status wait_event(gsa_device* device, gsa_event* event, gsa_error* error) {
  return on_device(device, error, [&] { wait_for(*device, *event); });
}

gsa_status elapsed(gsa_device* device, gsa_event* from, gsa_event* to, double* milliseconds,
                   gsa_error* error) {
  return on_device(device, error, [&] { *milliseconds = elapsed_milliseconds(*device, *from, *to); });
}

void drop_event(gsa_device* device, gsa_event* event) { free_event(*device, event); }

gsa_status start(gsa_device* device, void* dst, const void* src, uint64_t bytes, gsa_read** read,
                 gsa_error* error) {
  return on_device(device, error, [&] { *read = start_read(*device, dst, src, bytes); });
}

gsa_status end(gsa_device* device, gsa_read* read, gsa_error* error) {
  // Also on a lost device: the read must be freed.
  const gsa_status status = guard(error, [&] { end_read(*device, read); });
  return status == GSA_OK ? status : diagnose(*device, status, error);
}

}  // namespace
}  // namespace gsa::cuda

extern "C" __attribute__((visibility("default"))) const gsa_backend* gsa_backend_get(uint32_t abi_version) {
  using namespace gsa::cuda;
  static const gsa_backend backend = {
      GSA_ABI_VERSION, kOps,        "cuda",      op_table(), device_count, device_info, device_open,
      alloc,           free_memory, copy_memory, wait,       stats,        set,         get,
      record,          wait_event,  elapsed,     drop_event, start,        end};
  return abi_version == GSA_ABI_VERSION ? &backend : nullptr;
}
