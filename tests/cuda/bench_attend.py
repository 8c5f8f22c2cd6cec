"""Times of the attention kernels, beside cuDNN and FlashAttention-2 (PyTorch SDPA) if asked. check_attend.py checks them.

    python3 tests/cuda/bench_attend.py BUILD/libprismattn_cuda.so BUILD/libprismattn_cuda.so:sm80 --peers

A cell is ms (TFLOP/s): 4 d multiply-adds a pair of the causal half, times the measured density (after the @, in percent)."""
import argparse, ctypes as C, torch
from prismcu import *

def timed(fn, reps, warm=1):
    for _ in range(warm): fn()
    ev = [torch.cuda.Event(enable_timing=True) for _ in range(2 * reps)]
    for i in range(reps): ev[2 * i].record(); fn(); ev[2 * i + 1].record()
    torch.cuda.synchronize()
    t = sorted(ev[2 * i].elapsed_time(ev[2 * i + 1]) for i in range(reps))
    return t[len(t) // 2]

def ceilings():
    x = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16); y = x.clone()
    t = timed(lambda: x @ y, 20, 3); print(f"matmul 8192: {2 * 8192 ** 3 / t / 1e9:.0f} TFLOP/s")
    x = torch.empty(1 << 30, device="cuda", dtype=torch.int32).random_(); y = torch.empty_like(x)
    t = timed(lambda: y.copy_(x), 10, 2); print(f"copy: {2 * x.nbytes / t / 1e9:.2f} TB/s")

def main():
    p = argparse.ArgumentParser(); p.add_argument("lib", nargs="+", help="LIBRARY[:KERNEL], sm90 unless given; fp8: image and attention, fp8-attend: without the image"); p.add_argument("--peers", action="store_true")
    p.add_argument("-n", default="8,32,128", help="lengths in K tokens"); p.add_argument("--density", default="1,.1,.05"); p.add_argument("-d", type=int, default=128)
    p.add_argument("-b", type=int, default=128, help="block size"); p.add_argument("-q", type=int, default=0, help="queries, at the end; 0: all")
    p.add_argument("--init", action="store_true", help="with an initial state"); p.add_argument("--no-split", action="store_true")
    o = p.parse_args(); B, d, H, Hk = o.b, o.d, 32, 8
    fns = {}
    for l in o.lib:
        path, _, kernel = l.partition(":"); lib = C.CDLL(path)
        fns[path.split("/")[-1][:-3] + " " + (kernel or "sm90")] = lib, (fp8(lib, kernel == "fp8") if kernel[:3] == "fp8" else getattr(lib, "prism_attend_" + (kernel or "sm90")))
    if o.peers: ceilings()
    sizes, dens = [int(s) for s in o.n.split(",")], [float(s) for s in o.density.split(",")]
    print(f"{'d%d b%d%s%s' % (d, B, ' q%d' % o.q if o.q else '', ' init' if o.init else ''):24s} " + " ".join(f"{n}K/{x:g}".rjust(17) for n in sizes for x in dens))
    res = {n: [] for n in list(fns) + ["cudnn", "flash"]}
    for n in sizes:
        N = n * 1024; n_q = o.q or N; q0 = N - n_q; nb = n_q // B; n_causal = H * sum(q0 // B + i + 1 for i in range(nb))
        make = lambda n, h: torch.randn(1, n, h, d, device="cuda", dtype=torch.bfloat16)
        q, k, v = make(n_q, H), make(N, Hk), make(N, Hk); out = torch.empty_like(q); lse = torch.empty(1, n_q, H, device="cuda")
        flop = 4 * d * H * (N * N - q0 * q0) / 2; reps = {8: 15, 32: 9}.get(n, 5)
        ticket = torch.zeros(2, dtype=torch.int32, device="cuda"); o0, lse0 = torch.randn_like(out), torch.randn_like(lse)
        for x in dens:
            rp = idx = w = None; frac = 1.
            if x < 1:
                rp, idx = plan(1, H, nb, q0 // B, max(x - 2. / nb * 1.5, x * .5))[1:]
                w = work_list(rp, 1, H, Hk, nb); frac = len(idx) / n_causal
            a = Attend(shape(1, H, Hk, d, torch.bfloat16, n_q, N, q0, B=B), view(q), view(k), view(v), view(out), lse.data_ptr(), lse.stride(0), lse.stride(1), lse.stride(2), ptr(rp), ptr(idx), ptr(w), ticket.data_ptr(), d ** -.5, B)
            if o.init: a.init_o, a.init_lse = o0.data_ptr(), lse0.data_ptr()
            for name, (lib, fn) in fns.items():
                if hasattr(lib, "prism_attend_scratch_bytes") and not o.no_split:
                    lib.prism_attend_scratch_bytes.restype = C.c_size_t; a.scratch_bytes = lib.prism_attend_scratch_bytes(C.byref(a.shape), B)
                    scratch = torch.empty(a.scratch_bytes // 4 + 1, device="cuda"); a.scratch = scratch.data_ptr()
                st = C.c_void_p(torch.cuda.current_stream().cuda_stream); e = fn(C.byref(a), st)
                if e: res[name].append(f"error {e}"); continue
                t = timed(lambda: fn(C.byref(a), st), reps)
                res[name].append(f"{t:.3f} ({flop * frac / t / 1e9:.0f}" + (f"@{100 * frac:.1f})" if x < 1 else ")"))
            for nm, be in (("cudnn", "CUDNN_ATTENTION"), ("flash", "FLASH_ATTENTION")):
                if not o.peers or x < 1 or o.q: res[nm].append(""); continue
                from torch.nn.attention import SDPBackend, sdpa_kernel
                with sdpa_kernel(getattr(SDPBackend, be)):
                    t = timed(lambda: torch.nn.functional.scaled_dot_product_attention(*(z.transpose(1, 2) for z in (q, k, v)), is_causal=True, enable_gqa=True), min(reps, 3) if nm == "flash" else reps)
                res[nm].append(f"{t:.3f} ({flop / t / 1e9:.0f})")
    for name, r in res.items():
        if any(r): print(f"{name:24s} " + " ".join(s.rjust(17) for s in r), flush=True)
main()
