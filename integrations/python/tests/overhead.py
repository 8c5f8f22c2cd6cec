"""Microseconds that Python adds to one call: `python overhead.py [cuda]`. Best of 50 runs of 200.

On the CPU the C call itself is timed too, with one thread and little to compute; on a GPU the host's time is what
counts, the work runs beside.
"""

from __future__ import annotations

import sys
import time
from ctypes import byref

import torch

import prism_attn
from prism_attn import engine, torch_ops
from prism_attn._abi import lib
from prism_attn.config import parse_config


def best(call, n_run: int = 50, n_call: int = 200) -> float:
    """Microseconds a call."""
    least = float("inf")
    for _ in range(n_run):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(n_call):
            call()
        least = min(least, (time.perf_counter() - start) / n_call)
    return least * 1e6


def main() -> None:
    torch.set_num_threads(1)
    device = sys.argv[1] if len(sys.argv) > 1 else "cpu"
    dtype, d = (torch.float32, 8) if device == "cpu" else (torch.bfloat16, 128)
    q, k = (torch.randn(1, 1, 1 if device == "cpu" else 128, d, device=device, dtype=dtype) for _ in range(2))
    out, config = torch.empty_like(q), prism_attn.make_config("dense")
    arguments = (q, k, k, out, None, config, "bhnd", "bhnd", 0.0, -1, None, None, 0, 0, 0)
    print(f"prism_attn.attention      {best(lambda: prism_attn.attention(q, k, k, config=config, out=out)):6.1f} us")
    print(f"torch.ops.prism_attn      {best(lambda: torch.ops.prism_attn.attention(*arguments)):6.1f} us")
    print(f"the function under it     {best(lambda: torch_ops._attention(*arguments)):6.1f} us")
    if device == "cpu":
        key = torch_ops.pool_key(q)
        mine = engine.borrow(key)
        prepared, plan = next(iter(mine._prepared.values())), mine._plans[-1]
        options, memory = parse_config(config).options, mine._memory
        c = (mine.context.handle, byref(options), byref(prepared.call), plan.handle, memory.address, memory.n_byte)
        print(f"the C call                {best(lambda: lib.prism_attention(*c, byref(mine.stats))):6.1f} us")


if __name__ == "__main__":
    main()
