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
    """A call that the library refused. `.status` is the status's name, the text the library's sentence."""

    def __init__(self, status: str, sentence: str) -> None:
        super().__init__(f"{sentence or 'no further explanation'} [{status}]")
        self.status = status


def _fields(*groups: tuple[type, str]) -> list[tuple[str, type]]:
    """Fields in order: a type and the names that have it."""
    return [(name, kind) for kind, names in groups for name in names.split()]


def _growing(*groups: tuple[type, str]) -> list[tuple[str, type]]:
    """The same of a struct that starts with struct_size; room for a newer library's fields follows."""
    return _fields((c_size_t, "struct_size"), *groups, (c_char * _RESERVE, "reserved"))


class Config(Structure):
    _fields_ = _growing((c_int32, "device n_thread isa ordinal"))


class Info(Structure):
    _fields_ = _growing(
        (c_int32, "device isa n_thread"), (c_char_p, "isa_name cpu_features"), (c_int32, "ordinal min_tokens fast_type")
    )


class Tensor(Structure):
    _fields_ = _fields(
        (c_void_p, "data"),
        (c_int32, "dtype"),
        (c_int64, "stride_seq stride_token stride_head stride_dim"),
        (c_void_p, "row_start page_table"),
        (c_int64, "stride_table stride_page"),
        (c_int32, "page_size n_page"),
        (c_int64, "n_element"),
    )


class Rope(Structure):
    _fields_ = _fields(
        (c_int32, "d_head n_pair"),
        ((c_int16 * 2) * (MAX_D_HEAD // 2), "dim"),
        (c_double * (MAX_D_HEAD // 2), "frequency"),
    )


class Bands(Structure):
    _fields_ = _fields((c_int32, "d_head n_high n_low"), (c_int16 * MAX_D_HEAD, "high low"))


class Options(Structure):
    """Only what is not set by name: prism_options_set() knows the rest."""

    _fields_ = _growing(
        (c_int32, "method calibration block_size"),
        (c_float, "top_p top_p_high top_p_low"),
        (c_int32, "keep_sink keep_own min_tokens"),
        (POINTER(Bands), "bands"),
    )


class OptionInfo(Structure):
    _fields_ = _growing(
        (c_char_p, "name text"),
        (c_int32, "kind"),
        (c_double, "value min max"),
        (POINTER(c_char_p), "names"),
        (c_int32, "n_name"),
    )


class Call(Structure):
    _fields_ = _growing(
        (c_int32, "n_seq n_head n_kv_head d_head n_q n_kv q_start"),
        (c_void_p, "n_q_of n_kv_of q_start_of"),
        (Tensor, "q k v o lse"),
        (c_void_p, "pooled"),
        (c_float, "scale"),
    )


class PlanView(Structure):
    _fields_ = _growing(
        (c_int32, "n_seq n_head n_qblk n_kblk block_size"),
        (c_int64, "n_row"),
        (POINTER(c_int64), "row_ptr"),
        (POINTER(c_int32), "index"),
        (c_int64, "n_selected n_causal"),
        (c_double, "density"),
        (c_int32, "path"),
        (POINTER(c_int64), "key_ptr"),
        (POINTER(c_int32), "key_index"),
        (c_int64, "n_key_selected"),
        (c_double, "select_flop pool_seconds"),
        (c_int32, "correct"),
        (c_double, "correct_flop"),
    )


class Stats(Structure):
    _fields_ = _growing(
        (c_double, "select_seconds attend_seconds"),
        (c_int64, "n_selected n_causal"),
        (c_double, "density"),
        (c_int32, "path"),
        (c_double, "work_flop dense_flop pool_seconds"),
    )


class CudaInfo(Structure):
    _fields_ = _growing(
        (c_char * 64, "name"),
        (c_int32, "n_device compute_major compute_minor n_multiprocessor"),
        (c_size_t, "memory_bytes"),
        (c_int32, "driver_version runtime_version"),
        (c_char * 256, "problem"),
    )


def sized(struct: type[Structure]) -> Structure:
    """An empty struct that knows its size, for a function that fills it in."""
    return struct(struct_size=ctypes.sizeof(struct))


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
    "prism_option_at": (_STATUS, [c_int32, c_void_p]),
    "prism_method_name": (c_char_p, [c_int32]),
    "prism_method_text": (c_char_p, [c_int32]),
    "prism_method_find": (_STATUS, [c_char_p, POINTER(c_int32)]),
    "prism_method_count": (c_int32, []),
    "prism_method_uses": (c_int32, [c_int32, c_char_p]),
    "prism_call_init": (None, [c_void_p]),
    "prism_workspace_bytes": (_STATUS, [c_void_p, c_void_p, c_void_p, POINTER(c_size_t)]),
    "prism_plan_create": (_STATUS, [c_void_p, c_void_p, c_int32, c_float, POINTER(c_void_p)]),
    "prism_plan_destroy": (None, [c_void_p]),
    "prism_plan_build": (_STATUS, [c_void_p, c_void_p, c_void_p, c_void_p, c_void_p, c_size_t]),
    "prism_plan_from_mask": (_STATUS, [c_void_p, c_void_p, c_int32, c_void_p, c_size_t, c_void_p]),
    "prism_plan_fetch": (_STATUS, [c_void_p, c_void_p]),
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


CUDA_HINT = (
    "This package was built without its CUDA part: install nvcc 12.8 or later, then the package again; "
    "pip install -v ./integrations/python says which parts it builds"
)


def has_cuda_part() -> bool:
    """Whether the CUDA backend lies beside the library."""
    return Path(lib._name).with_name("libprismattn_cuda.so").exists()


def gpu_problem(ordinal: int) -> str:
    """Why GPU number `ordinal` cannot be used; "" if it can."""
    info = sized(CudaInfo)
    if lib.prism_cuda_describe(ordinal, ctypes.byref(info)) == 0:
        return ""
    problem = info.problem.decode() or "no reason given"
    return problem if has_cuda_part() else f"{problem}. {CUDA_HINT}"


def check(status: int, ctx: c_void_p | None = None) -> None:
    """Raises PrismError for anything but PRISM_OK."""
    if status:
        sentence = lib.prism_last_error(ctx).decode() if ctx else ""
        raise PrismError(lib.prism_status_name(status).decode(), sentence)
