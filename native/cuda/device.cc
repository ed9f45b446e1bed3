#include "device.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>

#include "device_pages.h"
#include "fault.h"
#include "memory.h"
#include "status.h"

namespace gsa::cuda {

namespace {

constexpr int kArchitectureMajor = 9;              // sm_90a: code for it runs on nothing else
constexpr double kMostBytes = 9007199254740992.0;  // 2^53: what a JavaScript number carries exactly

void expect_index(int32_t index) {
  const int32_t count = count_devices();
  if (index < 0 || index >= count)
    fail(GSA_INVALID_ARGUMENT, "Expected a CUDA device index below %d but received %d", count, index);
}

gsa_device* create_device(int32_t index) {
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, index), "reading the device's properties");
  if (properties.major != kArchitectureMajor)
    fail(GSA_UNSUPPORTED, "Expected a GPU of compute capability %d.x (H100, H200) but received %s (%d.%d)",
         kArchitectureMajor, properties.name, properties.major, properties.minor);
  check(cudaSetDevice(index), "selecting the device");
  auto device = std::make_unique<gsa_device>();
  if (debug_memory::wanted()) device->ledger = std::make_unique<debug_memory::Ledger>();
  device->index = index;
  device->multiprocessors = properties.multiProcessorCount;
  device->memory_limit = properties.totalGlobalMem;
  device->cache_limit = properties.totalGlobalMem;
  check(cudaStreamCreateWithFlags(&device->stream, cudaStreamNonBlocking), "creating the stream");
  check(cudaDeviceGetDefaultMemPool(&device->pool, index), "opening the memory pool");
  uint64_t keep = device->cache_limit;
  check(cudaMemPoolSetAttribute(device->pool, cudaMemPoolAttrReleaseThreshold, &keep),
        "setting up the memory pool");
  if (auto pages = device_pages(index, properties.totalGlobalMem))
    device->heap = std::make_unique<Heap>(std::move(pages));
  return device.release();
}

// "1" in an environment variable that only tests set.
bool set_to_1(const char* variable) {
  const char* value = std::getenv(variable);
  return value && std::strcmp(value, "1") == 0;
}

struct Option {
  const char* name;
  double (*get)(gsa_device&);
  void (*set)(gsa_device&, double);
};

void set_cache_limit(gsa_device& device, double value) {
  uint64_t bytes = static_cast<uint64_t>(value);
  check(cudaMemPoolSetAttribute(device.pool, cudaMemPoolAttrReleaseThreshold, &bytes),
        "setting the cache limit");
  device.cache_limit = bytes;
  check(cudaStreamSynchronize(device.stream), "waiting for the device");
  trim(device, bytes);
}

// clang-format off
const Option kOptions[] = {
    {"memory_limit",
     [](gsa_device& device) { return static_cast<double>(device.memory_limit); },
     [](gsa_device& device, double value) { device.memory_limit = static_cast<uint64_t>(value); }},
    {"cache_limit",
     [](gsa_device& device) { return static_cast<double>(device.cache_limit); },
     set_cache_limit},
};
// For tests, each only under its environment variable: see memory.h and fault.h.
const Option kOverrun = {"debug_overrun",
     [](gsa_device&) { return 0.0; },
     [](gsa_device& device, double value) { overrun(device, static_cast<uint64_t>(value)); }};
const Option kTrap = {"debug_trap",
     [](gsa_device&) { return 0.0; },
     [](gsa_device& device, double) { trap(device); }};
// clang-format on

const Option& find_option(const gsa_device& device, const char* name) {
  if (device.ledger && std::strcmp(name, kOverrun.name) == 0) return kOverrun;
  if (std::strcmp(name, kTrap.name) == 0 && set_to_1("FLASH_GSA_DEBUG_FAULTS")) return kTrap;
  std::string known;
  for (const Option& option : kOptions) {
    if (std::strcmp(option.name, name) == 0) return option;
    known += (known.empty() ? "" : ", ") + std::string(option.name);
  }
  fail(GSA_INVALID_ARGUMENT, "Expected one of %s for the option's name but received \"%.60s\"", known.c_str(),
       name);
}

}  // namespace

int32_t count_devices() {
  int driver = 0;
  if (cudaDriverGetVersion(&driver) == cudaSuccess && driver == 0)
    fail(GSA_UNSUPPORTED, "No NVIDIA driver was found (libcuda.so.1): install it, or use the cpu device");
  int count = 0;
  check(cudaGetDeviceCount(&count), "counting the devices");
  return count;
}

static std::mutex open_mutex;

static std::map<int32_t, gsa_device*>& open_devices() {
  static auto* const devices = new std::map<int32_t, gsa_device*>();
  return *devices;
}

gsa_device& open_device(int32_t index) {
  std::lock_guard<std::mutex> lock(open_mutex);
  const auto found = open_devices().find(index);
  if (found != open_devices().end()) return *found->second;
  expect_index(index);
  return *open_devices().emplace(index, create_device(index)).first->second;
}

void expect_usable(const gsa_device& device) {
  if (device.lost)
    fail(GSA_DEVICE_LOST, "cuda:%d was lost: %.400s", device.index, device.lost_reason.c_str());
}

gsa_status diagnose(gsa_device& device, gsa_status status, gsa_error* error) noexcept {
  if (status != GSA_DEVICE_LOST && status != GSA_INTERNAL) return status;
  gsa_error found;
  // cuBLASLt has codes of its own for a context that is gone.
  if (status == GSA_INTERNAL) {
    const gsa_status now =
        guard(&found, [&] { check(cudaStreamQuery(device.stream), "looking at the device"); });
    if (now != GSA_DEVICE_LOST) return status;
    report(error, now, found.message);
  }
  std::lock_guard<std::mutex> lock(device.mutex);
  if (!device.lost) {
    device.lost_reason = error ? error->message : "an earlier call failed";
    device.lost = true;
  }
  return GSA_DEVICE_LOST;
}

gsa_device_info describe_device(int32_t index) {
  {
    std::lock_guard<std::mutex> lock(open_mutex);
    const auto found = open_devices().find(index);
    if (found != open_devices().end()) expect_usable(*found->second);
  }
  expect_index(index);
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, index), "reading the device's properties");
  int driver = 0, runtime = 0;
  check(cudaDriverGetVersion(&driver), "reading the driver's version");
  check(cudaRuntimeGetVersion(&runtime), "reading the runtime's version");
  size_t free_bytes = 0, total_bytes = 0;
  check(cudaSetDevice(index), "selecting the device");
  check(cudaMemGetInfo(&free_bytes, &total_bytes), "reading the device's memory");

  gsa_device_info info{};
  std::snprintf(info.name, sizeof info.name, "%.127s", properties.name);
  std::snprintf(info.detail, sizeof info.detail, "CUDA %d.%d driver, %d.%d runtime", driver / 1000,
                driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
  info.total_bytes = total_bytes;
  info.free_bytes = free_bytes;
  info.compute_major = properties.major;
  info.compute_minor = properties.minor;
  info.units = properties.multiProcessorCount;
  return info;
}

void select(const gsa_device& device) { check(cudaSetDevice(device.index), "selecting the device"); }

void synchronize(gsa_device& device) {
  select(device);
  check(cudaStreamSynchronize(device.stream), "waiting for the device");
  // Where the pool looks at its limit too. The stream may have got more work from another thread meanwhile.
  std::lock_guard<std::mutex> lock(device.mutex);
  if (!device.heap || device.heap->free_bytes() <= device.cache_limit) return;
  check(cudaStreamSynchronize(device.stream), "waiting for the device");
  device.heap->trim(device.cache_limit);
}

void set_option(gsa_device& device, const char* name, double value) {
  const Option& option = find_option(device, name);
  if (!(value >= 0 && value <= kMostBytes && value == std::floor(value)))
    fail(GSA_INVALID_ARGUMENT, "Expected an integer from 0 to 2^53 for the option \"%s\" but received %g",
         name, value);
  select(device);
  std::lock_guard<std::mutex> lock(device.mutex);
  option.set(device, value);
}

double get_option(gsa_device& device, const char* name) {
  const Option& option = find_option(device, name);
  std::lock_guard<std::mutex> lock(device.mutex);
  return option.get(device);
}

}  // namespace gsa::cuda
