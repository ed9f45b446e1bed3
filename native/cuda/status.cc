#include "status.h"

namespace gsa::cuda {

namespace {

constexpr int kContained = 226;  // cudaErrorContained, unknown to older toolkits

gsa_status classify(cudaError_t status) {
  if (static_cast<int>(status) == kContained) return GSA_DEVICE_LOST;
  switch (status) {
    case cudaErrorMemoryAllocation:
      return GSA_OUT_OF_MEMORY;
    case cudaErrorInsufficientDriver:
    case cudaErrorNoDevice:
    case cudaErrorStubLibrary:
    case cudaErrorDevicesUnavailable:
    case cudaErrorCompatNotSupportedOnDevice:
    case cudaErrorSystemDriverMismatch:
    case cudaErrorSystemNotReady:
    case cudaErrorNoKernelImageForDevice:
      return GSA_UNSUPPORTED;
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorContextIsDestroyed:
    case cudaErrorMpsClientTerminated:
      return GSA_DEVICE_LOST;
    default:
      return GSA_INTERNAL;
  }
}

const char* advice(cudaError_t status) {
  switch (status) {
    case cudaErrorInsufficientDriver:
    case cudaErrorStubLibrary:
      return ". Install or update the NVIDIA driver, or use the cpu device";
    case cudaErrorNoDevice:
      return ". No NVIDIA GPU is visible to this process (CUDA_VISIBLE_DEVICES?); use the cpu device";
    case cudaErrorMemoryAllocation:
      return ". Dispose tensors or make the work smaller";
    default:
      return classify(status) == GSA_DEVICE_LOST ? ". The device is unusable until the process restarts" : "";
  }
}

}  // namespace

void check(cudaError_t status, const char* doing) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // forget what is not sticky: it must not fail the next, innocent call
  fail(classify(status), "CUDA failed while %s: %s (%s)%s", doing, cudaGetErrorString(status),
       cudaGetErrorName(status), advice(status));
}

}  // namespace gsa::cuda
