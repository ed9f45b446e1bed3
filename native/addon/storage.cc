#include "storage.h"

#include <cstring>
#include <utility>

#include "values.h"

namespace gsa::addon {

namespace {

// Garbage collection is told of the most host memory that tensors ever held, not of every rise and fall: V8
// starts a full collection for every 64 MiB that it learns of, and a training step, which disposes of all it
// makes, would pay for dozens. A program that forgets to dispose goes past its mark and is collected.
void tell_garbage_collector(Napi::Env env, Counters& counters) {
  constexpr int64_t kStep = 16 << 20;
  if (counters.host_bytes <= counters.host_bytes_told) return;
  const int64_t more = (counters.host_bytes - counters.host_bytes_told + kStep - 1) / kStep * kStep;
  int64_t total;
  if (napi_adjust_external_memory(env, more, &total) == napi_ok) counters.host_bytes_told += more;
}

void collect_device_garbage(Napi::Env env, Counters& counters) {
  // More external memory than V8 tolerates makes it collect at once, 64 MiB more than after its last
  // collection begin to.
  constexpr int64_t kAnyBound = int64_t{1} << 40, kRise = 65 << 20;
  const auto collect = counters.mark.passed(counters.device_bytes, counters.device_bytes_collected);
  if (collect == CollectionMark::Collect::kNo) return;
  const int64_t more = collect == CollectionMark::Collect::kNow ? kAnyBound : kRise;
  int64_t total;
  napi_adjust_external_memory(env, more, &total);
  napi_adjust_external_memory(env, -more, &total);
}

bool in_host_memory(const Device& device) { return std::strcmp(device.backend->name, "cpu") == 0; }

}  // namespace

Storage::Storage(Napi::Env env, Device device, uint64_t bytes, std::shared_ptr<Counters> shared)
    : device(device), bytes(bytes), counters(std::move(shared)) {
  if (bytes > 0) {
    gsa_error error;
    check(env, device.backend->alloc(device.device, bytes, &data, &error), error);
  }
  ++counters->alive;
  held() += static_cast<int64_t>(bytes);
  tell_garbage_collector(env, *counters);
  collect_device_garbage(env, *counters);
}

int64_t& Storage::held() const {
  return in_host_memory(device) ? counters->host_bytes : counters->device_bytes;
}

void Storage::count_as_garbage() {
  ++counters->finalized;
  if (!in_host_memory(device)) counters->device_bytes_collected += static_cast<int64_t>(bytes);
}

Storage::~Storage() {
  device.backend->free(device.device, data, bytes);
  --counters->alive;
  held() -= static_cast<int64_t>(bytes);
}

}  // namespace gsa::addon
