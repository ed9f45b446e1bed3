// The part of cuBLASLt's C interface that gemm.cc calls, declared here so that its headers are not needed to
// build. Values and layouts are those of the public interface, stable since version 11.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace gsa::cuda::lt {

using Handle = void*;
using Desc = void*;
using Layout = void*;
using Preference = void*;

enum DataType : int { kFloat32 = 0, kBFloat16 = 14, kFloat8E4M3 = 28, kFloat8E5M2 = 29 };
enum ComputeType : int { kCompute32F = 68 };
enum Operation : int32_t { kNone = 0, kTranspose = 1 };
enum DescAttribute : int {
  kTransA = 3,
  kTransB = 4,
  kEpilogue = 7,
  kBiasPointer = 8,
  kScaleA = 17,
  kScaleB = 18,
  kFastSums = 25
};
enum Epilogue : uint32_t { kDefault = 1, kBias = 4 };
enum LayoutAttribute : int { kBatchCount = 5, kBatchStride = 6 };
enum PreferenceAttribute : int { kMaxWorkspace = 1, kAlignA = 5, kAlignB = 6, kAlignC = 7, kAlignD = 8 };

struct Algorithm {
  uint64_t data[8];
};

struct Heuristic {
  Algorithm algorithm;
  size_t workspace;
  int status;
  float waves;
  int reserved[4];
};

struct Functions {
  int (*create)(Handle*);
  int (*desc_create)(Desc*, int compute, int scale);
  int (*desc_destroy)(Desc);
  int (*desc_set)(Desc, int attribute, const void*, size_t);
  int (*layout_create)(Layout*, int type, uint64_t rows, uint64_t cols, int64_t ld);
  int (*layout_destroy)(Layout);
  int (*layout_set)(Layout, int attribute, const void*, size_t);
  int (*preference_create)(Preference*);
  int (*preference_destroy)(Preference);
  int (*preference_set)(Preference, int attribute, const void*, size_t);
  int (*heuristic)(Handle, Desc, Layout a, Layout b, Layout c, Layout d, Preference, int wanted, Heuristic*,
                   int* found);
  int (*matmul)(Handle, Desc, const void* alpha, const void* a, Layout, const void* b, Layout,
                const void* beta, const void* c, Layout, void* d, Layout, const Algorithm*, void* workspace,
                size_t, cudaStream_t);
};

// Loads the library on first use; throws GSA_UNSUPPORTED naming what to install.
const Functions& functions();

}  // namespace gsa::cuda::lt
