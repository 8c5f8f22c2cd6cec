"""The C library as ctypes sees it: structs of prism.h, function signatures, errors.

Structs that may grow end in `reserved` bytes: the library writes no further than its own size, and a newer library's
fields find room. Everything is checked once when the library is loaded (`_check_layout`).
"""

from __future__ import annotations

import ctypes
import os
from ctypes import (
    POINTER,
    Structure,
    c_char,
    c_char_p,
    c_double,
    c_float,
    c_int16,
    c_int32,
    c_int64,
    c_size_t,
    c_void_p,
)
from pathlib import Path

F32, F16, BF16 = 0, 1, 2  # prism_dtype
CPU, CUDA = 0, 1  # prism_device
MAX_D_HEAD = 256
_RESERVE = 512  # bytes a newer library may add to a struct


class PrismError(RuntimeError):
    """A call that the library refused: `.status` is its name, the text its sentence."""

    def __init__(self, status: str, sentence: str) -> None:
        super().__init__(f"{sentence or 'no further explanation'} [{status}]")
        self.status = status


class Config(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("device", c_int32),
        ("n_thread", c_int32),
        ("isa", c_int32),
        ("ordinal", c_int32),
        ("reserved", c_char * _RESERVE),
    ]


class Info(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("device", c_int32),
        ("isa", c_int32),
        ("n_thread", c_int32),
        ("isa_name", c_char_p),
        ("cpu_features", c_char_p),
        ("ordinal", c_int32),
        ("reserved", c_char * _RESERVE),
    ]


class Tensor(Structure):
    _fields_ = [
        ("data", c_void_p),
        ("dtype", c_int32),
        ("stride_seq", c_int64),
        ("stride_token", c_int64),
        ("stride_head", c_int64),
        ("stride_dim", c_int64),
        ("row_start", c_void_p),
        ("page_table", c_void_p),
        ("stride_table", c_int64),
        ("stride_page", c_int64),
        ("page_size", c_int32),
        ("n_page", c_int32),
        ("n_element", c_int64),
    ]


class Rope(Structure):
    _fields_ = [
        ("d_head", c_int32),
        ("n_pair", c_int32),
        ("dim", (c_int16 * 2) * (MAX_D_HEAD // 2)),
        ("frequency", c_double * (MAX_D_HEAD // 2)),
    ]


class Bands(Structure):
    _fields_ = [
        ("d_head", c_int32),
        ("n_high", c_int32),
        ("n_low", c_int32),
        ("high", c_int16 * MAX_D_HEAD),
        ("low", c_int16 * MAX_D_HEAD),
    ]


class Options(Structure):
    """Only what is not set by name: prism_options_set() knows the rest."""

    _fields_ = [
        ("struct_size", c_size_t),
        ("method", c_int32),
        ("calibration", c_int32),
        ("block_size", c_int32),
        ("top_p", c_float),
        ("top_p_high", c_float),
        ("top_p_low", c_float),
        ("keep_sink", c_int32),
        ("keep_own", c_int32),
        ("min_tokens", c_int32),
        ("bands", POINTER(Bands)),
        ("reserved", c_char * _RESERVE),
    ]


class Call(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("n_seq", c_int32),
        ("n_head", c_int32),
        ("n_kv_head", c_int32),
        ("d_head", c_int32),
        ("n_q", c_int32),
        ("n_kv", c_int32),
        ("q_start", c_int32),
        ("n_q_of", c_void_p),
        ("n_kv_of", c_void_p),
        ("q_start_of", c_void_p),
        ("q", Tensor),
        ("k", Tensor),
        ("v", Tensor),
        ("o", Tensor),
        ("lse", Tensor),
        ("pooled", c_void_p),
        ("scale", c_float),
        ("reserved", c_char * _RESERVE),
    ]


class PlanView(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("n_seq", c_int32),
        ("n_head", c_int32),
        ("n_qblk", c_int32),
        ("n_kblk", c_int32),
        ("block_size", c_int32),
        ("n_row", c_int64),
        ("row_ptr", POINTER(c_int64)),
        ("index", POINTER(c_int32)),
        ("n_selected", c_int64),
        ("n_causal", c_int64),
        ("density", c_double),
        ("path", c_int32),
        ("key_ptr", POINTER(c_int64)),
        ("key_index", POINTER(c_int32)),
        ("n_key_selected", c_int64),
        ("select_flop", c_double),
        ("pool_seconds", c_double),
        ("correct", c_int32),
        ("correct_flop", c_double),
        ("reserved", c_char * _RESERVE),
    ]


class Stats(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("select_seconds", c_double),
        ("attend_seconds", c_double),
        ("n_selected", c_int64),
        ("n_causal", c_int64),
        ("density", c_double),
        ("path", c_int32),
        ("work_flop", c_double),
        ("dense_flop", c_double),
        ("pool_seconds", c_double),
        ("reserved", c_char * _RESERVE),
    ]


class CudaInfo(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("name", c_char * 64),
        ("n_device", c_int32),
        ("compute_major", c_int32),
        ("compute_minor", c_int32),
        ("n_multiprocessor", c_int32),
        ("memory_bytes", c_size_t),
        ("driver_version", c_int32),
        ("runtime_version", c_int32),
        ("problem", c_char * 256),
        ("reserved", c_char * _RESERVE),
    ]


_STATUS = c_int32
_SIGNATURES: dict[str, tuple] = {
    # name: (result, arguments)
    "prism_status_name": (c_char_p, [_STATUS]),
    "prism_version": (c_char_p, []),
    "prism_config_init": (None, [c_void_p]),
    "prism_create": (_STATUS, [c_void_p, POINTER(c_void_p)]),
    "prism_destroy": (None, [c_void_p]),
    "prism_last_error": (c_char_p, [c_void_p]),
    "prism_get_info": (_STATUS, [c_void_p, c_void_p]),
    "prism_rope_init": (_STATUS, [c_void_p, c_int32]),
    "prism_rope_add": (_STATUS, [c_void_p, c_int32, c_int32, c_int32, c_double]),
    "prism_bands_split": (_STATUS, [c_void_p, c_void_p, c_int32, c_int32]),
    "prism_bands_auto": (_STATUS, [c_void_p, c_void_p, c_int32]),
    "prism_options_init": (None, [c_void_p]),
    "prism_options_set": (_STATUS, [c_void_p, c_char_p, c_char_p]),
    "prism_method_name": (c_char_p, [c_int32]),
    "prism_method_find": (_STATUS, [c_char_p, POINTER(c_int32)]),
    "prism_method_count": (c_int32, []),
    "prism_method_uses": (c_int32, [c_int32, c_char_p]),
    "prism_call_init": (None, [c_void_p]),
    "prism_workspace_bytes": (_STATUS, [c_void_p, c_void_p, c_void_p, POINTER(c_size_t)]),
    "prism_plan_create": (_STATUS, [c_void_p, c_void_p, c_int32, c_float, POINTER(c_void_p)]),
    "prism_plan_destroy": (None, [c_void_p]),
    "prism_plan_build": (_STATUS, [c_void_p, c_void_p, c_void_p, c_void_p, c_void_p, c_size_t]),
    "prism_plan_from_mask": (_STATUS, [c_void_p, c_void_p, c_int32, c_void_p, c_size_t, c_void_p]),
    "prism_plan_read": (_STATUS, [c_void_p, c_void_p]),
    "prism_plan_mask": (_STATUS, [c_void_p, c_void_p, c_size_t]),
    "prism_attend": (_STATUS, [c_void_p, c_void_p, c_void_p, c_void_p, c_size_t]),
    "prism_attention": (_STATUS, [c_void_p, c_void_p, c_void_p, c_void_p, c_void_p, c_size_t, c_void_p]),
    "prism_cuda_describe": (_STATUS, [c_int32, c_void_p]),
    "prism_cuda_set_stream": (_STATUS, [c_void_p, c_void_p]),
    "prism_cuda_plan_counts": (_STATUS, [c_void_p, c_void_p, c_void_p]),
}


def _find_library() -> Path:
    """The library beside this file; PRISM_ATTN_LIBRARY in the environment names another (an editable checkout's)."""
    named = os.environ.get("PRISM_ATTN_LIBRARY")
    path = Path(named) if named else Path(__file__).with_name("libprismattn.so")
    if not path.exists():
        raise ImportError(f"{path} is not there: install the package (pip install .) or set PRISM_ATTN_LIBRARY")
    return path.resolve()


def _load() -> ctypes.CDLL:
    library = ctypes.CDLL(str(_find_library()))
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    _check_layout(library)
    return library


def _check_layout(library: ctypes.CDLL) -> None:
    """Refuses a library whose structs are not the ones above, by what its _init functions write into them."""
    options, call = Options(), Call()
    library.prism_options_init(ctypes.byref(options))
    library.prism_call_init(ctypes.byref(call))
    same = (
        (options.block_size, options.keep_sink, options.keep_own, options.min_tokens) == (128, 1, 1, -1)
        and not options.bands
        and (call.n_seq, call.q_start) == (1, -1)
        and options.struct_size <= ctypes.sizeof(options)
        and call.struct_size <= ctypes.sizeof(call)
    )
    if not same:
        raise ImportError(f"libprismattn {library.prism_version().decode()} has another ABI than this package")


lib = _load()


def gpu_problem(ordinal: int) -> str:
    """Why GPU number `ordinal` cannot be used; "" if it can."""
    info = CudaInfo(struct_size=ctypes.sizeof(CudaInfo))
    if lib.prism_cuda_describe(ordinal, ctypes.byref(info)) == 0:
        return ""
    return info.problem.decode() or "no reason given"


def check(status: int, ctx: c_void_p | None = None) -> None:
    """Raises PrismError for anything but PRISM_OK."""
    if status:
        sentence = lib.prism_last_error(ctx).decode() if ctx else ""
        raise PrismError(lib.prism_status_name(status).decode(), sentence)
