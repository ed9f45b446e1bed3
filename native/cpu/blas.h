// An optimised BLAS found at run time: never a build or install requirement.
#pragma once

#include <string>

namespace gsa::cpu {

// The C interface with 32-bit indices: m, n, k and leading dimensions must be below 2^31.
using CblasSgemm = void (*)(int order, int trans_a, int trans_b, int m, int n, int k, float alpha,
                            const float* a, int lda, const float* b, int ldb, float beta, float* c, int ldc);
constexpr int kCblasRowMajor = 101;
constexpr int kCblasNoTrans = 111;
constexpr int kCblasTrans = 112;

struct Blas {
  CblasSgemm sgemm;
  std::string name;  // "OpenBLAS 0.3.21 (SkylakeX)"
};

// The library in use, or null: none is installed, FLASH_GSA_BLAS=none, or the "blas" option is 0. It runs on
// the calling thread alone: gemm.cc spreads the tiles of a product over the pool. Looks for a library on the
// first call; FLASH_GSA_BLAS=PATH takes that one alone.
const Blas* blas();

// Throws OpError(GSA_INVALID_ARGUMENT) when FLASH_GSA_BLAS names a library that cannot be used.
void check_blas();

bool blas_allowed();
void allow_blas(bool allowed);

}  // namespace gsa::cpu
