"""Arrays of any library that speaks DLPack: address, type, sizes and strides."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, c_int32, c_int64, c_uint8, c_uint16, c_uint64, c_void_p

from . import _abi
from .layout import Array


class _DLTensor(Structure):
    """DLPack's DLTensor, the head of every DLManagedTensor; its layout is frozen."""

    _fields_ = [
        ("data", c_void_p),
        ("device_type", c_int32),
        ("device_id", c_int32),
        ("ndim", c_int32),
        ("type_code", c_uint8),
        ("type_bits", c_uint8),
        ("type_lanes", c_uint16),
        ("shape", POINTER(c_int64)),
        ("strides", POINTER(c_int64)),
        ("byte_offset", c_uint64),
    ]


_DEVICES = {1: _abi.CPU, 2: _abi.CUDA, 3: _abi.CPU, 13: _abi.CUDA}  # host, CUDA, pinned host, managed
_DTYPES = {(2, 32): _abi.F32, (2, 16): _abi.F16, (4, 16): _abi.BF16}
_INT32 = (0, 32)

_get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_get_pointer.restype, _get_pointer.argtypes = c_void_p, [ctypes.py_object, ctypes.c_char_p]


class Borrowed:
    """A DLPack view of an array, alive as long as this object."""

    def __init__(self, x: object, stream: int | None = None) -> None:
        """x: anything with __dlpack__. stream: the CUDA stream that will read it, for arrays on a GPU."""
        device_type, ordinal = x.__dlpack_device__()
        if device_type not in _DEVICES:
            raise TypeError(f"{type(x).__name__} lies on DLPack device {device_type}; CPU and CUDA are supported")
        on_gpu = _DEVICES[device_type] == _abi.CUDA
        self._capsule = x.__dlpack__(stream=stream) if on_gpu else x.__dlpack__()
        address = _get_pointer(self._capsule, b"dltensor")
        self._tensor = t = ctypes.cast(address, POINTER(_DLTensor)).contents
        shape = tuple(t.shape[: t.ndim])
        strides = tuple(t.strides[: t.ndim]) if t.strides else _row_major(shape)
        self.address, self.shape, self.strides = (t.data or 0) + t.byte_offset, shape, strides
        self.device = (_DEVICES[device_type], ordinal)
        self.type = (t.type_code, t.type_bits)

    def floats(self) -> Array:
        """As queries, keys or values."""
        if self.type not in _DTYPES:
            raise TypeError(f"DLPack type {self.type} (code, bits): float32, float16 and bfloat16 are supported")
        return Array(self.address, _DTYPES[self.type], self.shape, self.strides, self.device)

    def int32s(self) -> int:
        """Address of a contiguous int32 array."""
        if self.type != _INT32 or self.strides != _row_major(self.shape):
            raise TypeError("lengths and page tables are contiguous int32 arrays")
        return self.address


def _row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= n
    return tuple(reversed(strides))
