#include "tensor_map.h"

#include <cuda_runtime_api.h>

#include "../abi/args.h"
#include "status.h"

namespace gsa::cuda {
namespace {

// From the driver at run time: the backend is not linked with libcuda.
decltype(&cuTensorMapEncodeTiled) encode_tiled() {
  static const auto found = [] {
    void* entry = nullptr;
    cudaDriverEntryPointQueryResult answer{};
    check(
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000, cudaEnableDefault, &answer),
        "looking for cuTensorMapEncodeTiled in the driver");
    if (answer != cudaDriverEntryPointSuccess || !entry)
      fail(GSA_UNSUPPORTED,
           "Expected a driver for CUDA 12.0 or later, which has cuTensorMapEncodeTiled: update it");
    return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(entry);
  }();
  return found;
}

}  // namespace

CUtensorMap tensor_map(const void* base, int64_t rows, int64_t columns, int box_rows, int64_t stride) {
  CUtensorMap map{};
  const cuuint64_t extents[2] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(stride ? stride : columns) * 2};
  const cuuint32_t box[2] = {64, static_cast<cuuint32_t>(box_rows)}, steps[2] = {1, 1};
  const CUresult status =
      encode_tiled()(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<void*>(base), extents, strides,
                     box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                     CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS)
    fail(GSA_INTERNAL, "The driver refused a tensor map of %lld rows of %lld bfloat16 (CUresult %d)",
         static_cast<long long>(rows), static_cast<long long>(columns), static_cast<int>(status));
  return map;
}

}  // namespace gsa::cuda
