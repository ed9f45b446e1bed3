#include "device.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <string>

#include "status.h"

namespace gsa::cuda {

namespace {

constexpr int kArchitectureMajor = 9;              // sm_90a: code for it runs on nothing else
constexpr double kMostBytes = 9007199254740992.0;  // 2^53: what a JavaScript number carries exactly

double mebibytes(uint64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

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
  device->index = index;
  device->multiprocessors = properties.multiProcessorCount;
  device->memory_limit = properties.totalGlobalMem;
  device->cache_limit = properties.totalGlobalMem;
  check(cudaStreamCreateWithFlags(&device->stream, cudaStreamNonBlocking), "creating the stream");
  check(cudaDeviceGetDefaultMemPool(&device->pool, index), "opening the memory pool");
  uint64_t keep = device->cache_limit;
  check(cudaMemPoolSetAttribute(device->pool, cudaMemPoolAttrReleaseThreshold, &keep),
        "setting up the memory pool");
  return device.release();
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
  synchronize(device);
  check(cudaMemPoolTrimTo(device.pool, bytes), "trimming the memory pool");
  device.cache_limit = bytes;
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
// clang-format on

const Option& find_option(const char* name) {
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

gsa_device& open_device(int32_t index) {
  static std::mutex mutex;
  static auto* const devices = new std::map<int32_t, gsa_device*>();
  std::lock_guard<std::mutex> lock(mutex);
  const auto found = devices->find(index);
  if (found != devices->end()) return *found->second;
  expect_index(index);
  return *devices->emplace(index, create_device(index)).first->second;
}

gsa_device_info describe_device(int32_t index) {
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

[[noreturn]] static void out_of_memory(const gsa_device& device, uint64_t bytes) {
  cudaGetLastError();
  size_t free_bytes = 0, total_bytes = 0;
  check(cudaMemGetInfo(&free_bytes, &total_bytes), "reading the device's memory");
  fail(GSA_OUT_OF_MEMORY,
       "Expected room for %.1f MiB on cuda:%d but %.1f MiB are in use here and %.1f of %.1f MiB are free; "
       "dispose tensors or make the work smaller",
       mebibytes(bytes), device.index, mebibytes(device.stats.current_bytes), mebibytes(free_bytes),
       mebibytes(total_bytes));
}

void* allocate(gsa_device& device, uint64_t bytes) {
  select(device);
  std::lock_guard<std::mutex> lock(device.mutex);
  if (bytes > device.memory_limit || device.stats.current_bytes > device.memory_limit - bytes)
    fail(GSA_OUT_OF_MEMORY,
         "Expected room for %.1f MiB but %.1f of %.1f MiB are in use; dispose tensors, make the work "
         "smaller, or "
         "raise the \"memory_limit\" option",
         mebibytes(bytes), mebibytes(device.stats.current_bytes), mebibytes(device.memory_limit));
  void* ptr = nullptr;
  cudaError_t status = cudaMallocAsync(&ptr, bytes, device.stream);
  if (status == cudaErrorMemoryAllocation) {
    // What was freed may still be cached in pieces of other sizes: give it back and try once more.
    cudaGetLastError();
    cudaStreamSynchronize(device.stream);
    cudaMemPoolTrimTo(device.pool, 0);
    status = cudaMallocAsync(&ptr, bytes, device.stream);
  }
  if (status == cudaErrorMemoryAllocation) out_of_memory(device, bytes);
  check(status, "allocating memory");
  device.stats.current_bytes += bytes;
  device.stats.peak_bytes = std::max(device.stats.peak_bytes, device.stats.current_bytes);
  ++device.stats.allocations;
  return ptr;
}

void release(gsa_device& device, void* ptr, uint64_t bytes) noexcept {
  if (!ptr) return;
  std::lock_guard<std::mutex> lock(device.mutex);
  // There is nobody to tell: a device that refuses to free is lost, and the next call says so.
  if (cudaSetDevice(device.index) == cudaSuccess) cudaFreeAsync(ptr, device.stream);
  device.stats.current_bytes -= bytes;
}

void copy(gsa_device& device, void* dst, const void* src, uint64_t bytes, gsa_copy_kind kind) {
  select(device);
  const cudaMemcpyKind direction = kind == GSA_HOST_TO_DEVICE   ? cudaMemcpyHostToDevice
                                   : kind == GSA_DEVICE_TO_HOST ? cudaMemcpyDeviceToHost
                                                                : cudaMemcpyDeviceToDevice;
  check(cudaMemcpyAsync(dst, src, bytes, direction, device.stream), "copying");
  if (kind != GSA_DEVICE_TO_DEVICE) check(cudaStreamSynchronize(device.stream), "copying");
}

void synchronize(gsa_device& device) {
  select(device);
  check(cudaStreamSynchronize(device.stream), "waiting for the device");
}

gsa_memory_stats memory_stats(gsa_device& device, bool reset_peak) {
  select(device);
  uint64_t reserved = 0;
  check(cudaMemPoolGetAttribute(device.pool, cudaMemPoolAttrReservedMemCurrent, &reserved),
        "reading the memory pool");
  std::lock_guard<std::mutex> lock(device.mutex);
  gsa_memory_stats stats = device.stats;
  stats.cached_bytes = reserved - std::min(reserved, stats.current_bytes);
  if (reset_peak) device.stats.peak_bytes = device.stats.current_bytes;
  return stats;
}

void set_option(gsa_device& device, const char* name, double value) {
  const Option& option = find_option(name);
  if (!(value >= 0 && value <= kMostBytes && value == std::floor(value)))
    fail(GSA_INVALID_ARGUMENT, "Expected an integer from 0 to 2^53 for the option \"%s\" but received %g",
         name, value);
  select(device);
  std::lock_guard<std::mutex> lock(device.mutex);
  option.set(device, value);
}

double get_option(gsa_device& device, const char* name) {
  const Option& option = find_option(name);
  std::lock_guard<std::mutex> lock(device.mutex);
  return option.get(device);
}

}  // namespace gsa::cuda
