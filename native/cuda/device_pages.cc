#include "device_pages.h"

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace gsa::cuda {

namespace {

// From the driver at run time: the backend is not linked with libcuda.
struct Driver {
  decltype(&cuDeviceGetAttribute) attribute;
  decltype(&cuMemGetAllocationGranularity) granularity;
  decltype(&cuMemAddressReserve) reserve;
  decltype(&cuMemCreate) create;
  decltype(&cuMemRelease) release;
  decltype(&cuMemMap) map;
  decltype(&cuMemUnmap) unmap;
  decltype(&cuMemSetAccess) set_access;
};

template <typename Function>
bool find(Function& function, const char* name) {
  void* entry = nullptr;
  cudaDriverEntryPointQueryResult answer{};
  // 12.0: the oldest toolkit that this is built with.
  if (cudaGetDriverEntryPointByVersion(name, &entry, 12000, cudaEnableDefault, &answer) != cudaSuccess ||
      answer != cudaDriverEntryPointSuccess || !entry) {
    cudaGetLastError();
    return false;
  }
  function = reinterpret_cast<Function>(entry);
  return true;
}

bool find_driver(Driver& d) {
  return find(d.attribute, "cuDeviceGetAttribute") && find(d.granularity, "cuMemGetAllocationGranularity") &&
         find(d.reserve, "cuMemAddressReserve") && find(d.create, "cuMemCreate") &&
         find(d.release, "cuMemRelease") && find(d.map, "cuMemMap") && find(d.unmap, "cuMemUnmap") &&
         find(d.set_access, "cuMemSetAccess");
}

// Large enough that a device has few thousand, small enough that what is left of one does not matter.
constexpr uint64_t kPage = 32u << 20;
// Of the device's memory: addresses cost nothing, and a gap that is too small for a block is passed over.
constexpr uint64_t kTimes = 8;

CUmemAllocationProp on_device(int index) {
  CUmemAllocationProp properties{};
  properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  properties.location.id = index;
  return properties;
}

class DevicePages : public Pages {
 public:
  DevicePages(const Driver& driver, int index, CUdeviceptr base, uint64_t page_bytes, uint64_t count)
      : Pages(reinterpret_cast<char*>(base), page_bytes, count), driver_(driver), index_(index) {}

  bool put(uint64_t page) noexcept override {
    const CUmemAllocationProp properties = on_device(index_);
    CUmemGenericAllocationHandle memory;
    if (cudaSetDevice(index_) != cudaSuccess ||
        driver_.create(&memory, page_bytes, &properties, 0) != CUDA_SUCCESS)
      return false;
    bool there = driver_.map(address(page), page_bytes, 0, memory, 0) == CUDA_SUCCESS;
    if (there) {
      CUmemAccessDesc access{};
      access.location = properties.location;
      access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
      there = driver_.set_access(address(page), page_bytes, &access, 1) == CUDA_SUCCESS;
      if (!there) driver_.unmap(address(page), page_bytes);
    }
    driver_.release(memory);  // it lives as long as it is mapped
    return there;
  }

  bool take(uint64_t page) noexcept override {
    return cudaSetDevice(index_) == cudaSuccess && driver_.unmap(address(page), page_bytes) == CUDA_SUCCESS;
  }

 private:
  CUdeviceptr address(uint64_t page) const { return reinterpret_cast<CUdeviceptr>(base) + page * page_bytes; }

  const Driver driver_;
  const int index_;
};

}  // namespace

std::unique_ptr<Pages> device_pages(int index, uint64_t total) {
  const char* setting = std::getenv("FLASH_GSA_HEAP");
  if (setting && std::strcmp(setting, "0") == 0) return nullptr;
  Driver driver{};
  int known = 0;
  if (!find_driver(driver) ||
      driver.attribute(&known, CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED, index) !=
          CUDA_SUCCESS ||
      !known)
    return nullptr;
  const CUmemAllocationProp properties = on_device(index);
  size_t least = 0;
  if (driver.granularity(&least, &properties, CU_MEM_ALLOC_GRANULARITY_RECOMMENDED) != CUDA_SUCCESS ||
      least == 0)
    return nullptr;
  const uint64_t page = std::max<uint64_t>((kPage + least - 1) / least * least, least);
  const uint64_t count = (total + page - 1) / page * kTimes;
  CUdeviceptr base = 0;
  if (driver.reserve(&base, count * page, 0, 0, 0) != CUDA_SUCCESS) return nullptr;
  return std::make_unique<DevicePages>(driver, index, base, page, count);
}

}  // namespace gsa::cuda
