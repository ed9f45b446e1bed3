"""Matrix products through cuBLASLt with an algorithm of one's choice, as native/cuda/gemm.cc makes them: row-major matrices asked
for as their transposes. Needs torch on a CUDA device; FLASH_GSA_CUBLASLT names the library."""
import ctypes as C
import os

import torch

lt = C.CDLL(os.environ.get('FLASH_GSA_CUBLASLT', 'libcublasLt.so.13'))
FLOAT32, BFLOAT16, COMPUTE_32F = 0, 14, 68
TRANS_A, TRANS_B, MAX_WORKSPACE = 3, 4, 1
WORKSPACES = [32 << 20, 512 << 20]


class Candidate(C.Structure):
    """cublasLtMatmulHeuristicResult_t"""
    _fields_ = [('algorithm', C.c_uint64 * 8), ('workspace', C.c_size_t), ('status', C.c_int), ('waves', C.c_float),
                ('reserved', C.c_int * 4)]


def check(status, doing):
    if status:
        raise RuntimeError(f'cuBLASLt failed while {doing} (cublasStatus_t {status})')


def made(function, *arguments):
    handle = C.c_void_p()
    check(function(C.byref(handle), *arguments), function.__name__)
    return handle


def set_value(function, what, attribute, value):
    check(function(what, C.c_int(attribute), C.byref(value), C.c_size_t(C.sizeof(value))), function.__name__)


handle = made(lt.cublasLtCreate)
# One for each stream that products may run on.
workspaces = [torch.empty(max(WORKSPACES), dtype=torch.uint8, device='cuda') for _ in range(2)]


def layout(matrix):
    kind = BFLOAT16 if matrix.dtype == torch.bfloat16 else FLOAT32
    rows, columns = matrix.shape
    return made(lt.cublasLtMatrixLayoutCreate, C.c_int(kind), C.c_uint64(columns), C.c_uint64(rows), C.c_int64(matrix.stride(0)))


class Product:
    """c = op(a) op(b) + beta c, made `calls` times in a step."""

    def __init__(self, name, calls, a, b, c, trans_a=False, trans_b=False, beta=0.0):
        self.name, self.calls, self.a, self.b, self.c = name, calls, a, b, c
        self.flops = 2.0 * c.shape[0] * c.shape[1] * (a.shape[0] if trans_a else a.shape[1])
        self.description = made(lt.cublasLtMatmulDescCreate, COMPUTE_32F, FLOAT32)
        for attribute, value in ((TRANS_A, trans_b), (TRANS_B, trans_a)):  # the operands change places
            set_value(lt.cublasLtMatmulDescSetAttribute, self.description, attribute, C.c_int32(value))
        self.layouts = [layout(b), layout(a), layout(c)]
        self.alpha, self.beta = C.c_float(1.0), C.c_float(beta)

    def candidates(self, workspace, wanted=100):
        """The library's guesses, best first."""
        preference = made(lt.cublasLtMatmulPreferenceCreate)
        set_value(lt.cublasLtMatmulPreferenceSetAttribute, preference, MAX_WORKSPACE, C.c_size_t(workspace))
        found, count = (Candidate * wanted)(), C.c_int()
        a, b, c = self.layouts
        check(lt.cublasLtMatmulAlgoGetHeuristic(handle, self.description, a, b, c, c, preference, wanted, found, C.byref(count)),
              'choosing')
        return list(found[:count.value])

    def run(self, candidate, stream=None, lane=0):
        a, b, c = self.layouts
        out, at = C.c_void_p(self.c.data_ptr()), (stream or torch.cuda.current_stream()).cuda_stream
        return lt.cublasLtMatmul(
            handle, self.description, C.byref(self.alpha), C.c_void_p(self.b.data_ptr()), a, C.c_void_p(self.a.data_ptr()), b,
            C.byref(self.beta), out, c, out, c, C.byref(candidate.algorithm), C.c_void_p(workspaces[lane].data_ptr()),
            C.c_size_t(candidate.workspace), C.c_void_p(at))
