#!/usr/bin/env python3
"""PyTorch's scaled_dot_product_attention on the CPU beside full attention by libprismattn, in turns.

usage: sdpa.py DENSE_CALL.so [--tokens N] [--heads H] [--threads T] [--reps R] [--cpu-time]

--cpu-time: processor time in the place of the clock's, for machines that others use too. One thread then."""
import argparse
import ctypes
import statistics
import time

import torch

DTYPES = {torch.float32: 0, torch.bfloat16: 2}


class Shape(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int32) for name in
                ("n_q", "n_kv", "n_head", "n_kv_head", "d_head", "n_thread", "q_dtype", "kv_dtype")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library")
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--cpu-time", action="store_true")
    args = parser.parse_args()
    clock = time.process_time if args.cpu_time else time.perf_counter
    torch.set_num_threads(args.threads)
    library = ctypes.CDLL(args.library)
    library.dense_call_new.restype = ctypes.c_void_p
    gflop = 4 * 128 * args.tokens * (args.tokens + 1) / 2 * args.heads * 1e-9
    for dtype, code in DTYPES.items():
        q, k, v = (torch.randn(1, args.heads, args.tokens, 128).to(dtype) for _ in range(3))
        o = torch.zeros_like(q)
        shape = Shape(args.tokens, args.tokens, args.heads, args.heads, 128, args.threads, code, code)
        call = library.dense_call_new(ctypes.byref(shape), *(ctypes.c_void_p(x.data_ptr()) for x in (q, k, v, o)))
        assert call, "libprismattn refused the call"
        theirs, ours = [], []
        for _ in range(args.reps + 1):  # the first warms up
            start = clock()
            want = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            middle = clock()
            assert library.dense_call_run(ctypes.c_void_p(call)) == 0
            theirs.append(middle - start)
            ours.append(clock() - middle)
        library.dense_call_free(ctypes.c_void_p(call))
        theirs, ours = theirs[1:], ours[1:]
        ratio = statistics.median(a / b for a, b in zip(theirs, ours))
        print(f"{str(dtype)[6:]:9} {args.tokens} tokens, {args.heads} heads, {args.threads} threads: "
              f"SDPA {gflop / statistics.median(theirs):.1f}, ours {gflop / statistics.median(ours):.1f} GFLOP/s, "
              f"x {ratio:.2f}; largest difference {(want - o).abs().max().item():.1e}")


if __name__ == "__main__":
    main()
