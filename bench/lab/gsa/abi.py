"""Calls the CUDA backend's ops on torch tensors through its C table (native/abi/gsa_abi.h), without Node."""
import ctypes as C
import re
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[3]
DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.int32: 2, torch.int64: 3}


class Tensor(C.Structure):
    _fields_ = [('data', C.c_void_p), ('shape', C.c_int64 * 6), ('strides', C.c_int64 * 6),
                ('dtype', C.c_int32), ('ndim', C.c_int32)]


class Args(C.Structure):
    _fields_ = [('inputs', C.POINTER(C.POINTER(Tensor))), ('outputs', C.POINTER(C.POINTER(Tensor))),
                ('attr', C.POINTER(C.c_double)), ('n_in', C.c_int32), ('n_out', C.c_int32), ('n_attr', C.c_int32),
                ('op', C.c_char_p)]


class Error(C.Structure):
    _fields_ = [('message', C.c_char * 512)]


OpFn = C.CFUNCTYPE(C.c_int, C.c_void_p, C.POINTER(Args), C.POINTER(Error))


class Backend(C.Structure):
    _fields_ = [('abi_version', C.c_uint32), ('n_ops', C.c_uint32), ('name', C.c_char_p), ('ops', C.POINTER(OpFn)),
                ('device_count', C.c_void_p), ('device_info', C.c_void_p), ('device_open', C.c_void_p),
                ('alloc', C.c_void_p), ('free', C.c_void_p), ('copy', C.c_void_p), ('synchronize', C.c_void_p)]


def tensor(t):
    v = Tensor(data=t.data_ptr(), dtype=DTYPES[t.dtype], ndim=t.dim())
    for i in range(t.dim()):
        v.shape[i], v.strides[i] = t.shape[i], t.stride(i)
    return v


class Ops:
    def __init__(self, path):
        lib = C.CDLL(str(path))
        header = (ROOT / 'native/abi/gsa_abi.h').read_text()
        lib.gsa_backend_get.restype = C.POINTER(Backend)
        self.backend = lib.gsa_backend_get(int(re.search(r'GSA_ABI_VERSION (\d+)', header)[1])).contents
        self.names = re.findall(r'^GSA_OP\((\w+)', (ROOT / 'native/ops/ops.def').read_text(), re.M)
        open_device = C.CFUNCTYPE(C.c_int, C.c_int32, C.POINTER(C.c_void_p), C.POINTER(Error))(self.backend.device_open)
        self.device, error = C.c_void_p(), Error()
        if open_device(0, C.byref(self.device), C.byref(error)):
            raise RuntimeError(error.message.decode())
        self.wait = C.CFUNCTYPE(C.c_int, C.c_void_p, C.POINTER(Error))(self.backend.synchronize)

    def prepare(self, name, inputs, outputs, attrs):
        """A callable that enqueues the op on the backend's own stream."""
        def pointers(tensors):
            views = [None if t is None else tensor(t) for t in tensors]
            array = (C.POINTER(Tensor) * len(views))(*[v and C.pointer(v) for v in views])
            return array, views
        (ins, keep_in), (outs, keep_out) = pointers(inputs), pointers(outputs)
        numbers = (C.c_double * len(attrs))(*attrs)
        args = Args(ins, outs, numbers, len(inputs), len(outputs), len(attrs), name.encode())
        fn, error, keep = self.backend.ops[self.names.index(name)], Error(), (keep_in, keep_out, inputs, outputs)

        def run():
            if fn(self.device, C.byref(args), C.byref(error)):
                raise RuntimeError(f'{name}: {error.message.decode()}')
            return keep
        return run

    def synchronize(self):
        error = Error()
        if self.wait(self.device, C.byref(error)):
            raise RuntimeError(error.message.decode())

    def call(self, name, inputs, outputs, attrs):
        torch.cuda.synchronize()
        self.prepare(name, inputs, outputs, attrs)()
        self.synchronize()
