"""`python -m prism_attn.info`: the library, its methods and options, its kernels, the GPUs it can use."""

from __future__ import annotations

from . import _abi
from ._abi import CPU, CUDA, PrismError, lib
from .config import method_text, methods, options
from .engine import Context


def main() -> None:
    """Prints it."""
    print(f"library  {_abi.lib._name}, version {lib.prism_version().decode()}")
    for method in methods():
        print(f"method   {method}: {method_text(method)}")
    for option in options():
        value = option.names[int(option.value)] if option.names else f"{option.value:g}"
        print(f"option   {option.name}={value}: {option.text} ({option.range()})")
    context = Context(CPU, 0, 0)
    info = context.info()
    print(f"CPU      {info.isa_name.decode()} kernels, {info.n_thread} threads; has {info.cpu_features.decode()}")
    print(f"CUDA     {'part of this package' if _abi.has_cuda_part() else _abi.CUDA_HINT}")
    try:
        Context(CUDA, 0, 0)
    except PrismError:
        print(f"GPU      none usable: {_abi.gpu_problem(0)}")
    else:
        print("GPU      usable")


if __name__ == "__main__":
    main()
