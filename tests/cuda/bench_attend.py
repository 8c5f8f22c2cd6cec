"""Correctness (against float64, fresh random inputs, poisoned outputs) and times of the attention kernels.

    python3 tests/cuda/bench_attend.py BUILD/libprismattn_cuda.so BUILD/libprismattn_cuda.so:sm80 [
        -peers] [-n=8,32,128] [-dens=1,.1,.05] [-d64] [-nocheck] [-checkonly]

A cell is ms (TFLOP/s): 4 d multiply-adds a pair of the causal half, times the measured density (after the @, in percent).
Exit status 1 if a check failed."""
import sys, ctypes as C, torch, math, time
from prismcu import *
torch.manual_seed(int(time.time()))
bf, hf = torch.bfloat16, torch.float16

def check(fn, name):
    bad = 0; worst = 0
    def one(tag, e, tol):
        nonlocal bad, worst
        worst = max(worst, e)
        if not e < tol: bad += 1; print(f"  FAIL {name} {tag}: {e:.3e}")
    for d in (128, 64):
        for dt in (bf, hf):
            for (H, Hk, n_q, n_kv, dens) in ((4, 1, 1024, 1024, None), (4, 2, 1000, 1000, None), (2, 2, 700, 1000, None), (6, 2, 1537, 2049, .3), (8, 1, 2048, 2048, .1), (2, 1, 1, 1, None), (2, 1, 5, 133, None), (2, 1, 128, 4096, .5),
                                               (16, 4, 4000, 4100, None), (16, 4, 4000, 4100, .2)):  # the last two: more rows than multiprocessors
                q0 = n_kv - n_q
                q = torch.randn(1, n_q, H, d, device="cuda").to(dt) * 2; k = torch.randn(1, n_kv, Hk, d, device="cuda").to(dt); v = torch.randn(1, n_kv, Hk, d, device="cuda").to(dt)
                o = torch.full_like(q, float("nan")); lse = torch.full((1, n_q, H), float("nan"), device="cuda")
                s = shape(1, H, Hk, d, dt, n_q, n_kv, q0)
                m = rp = idx = w = None
                if dens: m, rp, idx = plan(1, H, s.n_qblk, q0 // B, dens); w = work_list(rp, 1, H, Hk, s.n_qblk); m = m[0]
                tk = torch.zeros(2, dtype=torch.int32, device="cuda")
                a = Attend(s, view(q), view(k), view(v), view(o), lse.data_ptr(), lse.stride(0), lse.stride(1), lse.stride(2), ptr(rp), ptr(idx), ptr(w), tk.data_ptr(), d ** -.5)
                r = fn(C.byref(a), None); torch.cuda.synchronize()
                ro, rl = reference(q[0], k[0], v[0], q0, m, d ** -.5)
                tag = f"d{d} {str(dt)[6:]} H{H}/{Hk} n{n_q}/{n_kv} dens {dens}"
                if r: one(tag + f" cuda error {r}", 9, 0); continue
                one(tag, rel(o[0], ro), 6e-3 if dt == bf else 8e-4); one(tag + " lse", (lse[0] - rl).abs().max().item(), 2e-3)
                if tk.tolist() != [0, 0]: one(tag + " ticket", 9, 0)
    # ragged and paged: two sequences, garbage (NaN) beyond the ends
    for d, dt, H, Hk in ((128, bf, 4, 2), (64, hf, 4, 2), (128, bf, 32, 8)):  # the last: more rows than multiprocessors
        nq = [300, 515]; nk = [700, 515]; q0 = [400, 0]
        mk = lambda n, h: torch.randn(n, h, d, device="cuda").to(dt)
        qs, ks, vs = [mk(n, H) for n in nq], [mk(n, Hk) for n in nk], [mk(n, Hk) for n in nk]
        i32 = lambda x: torch.tensor(x, dtype=torch.int32, device="cuda")
        nan = torch.full((77, Hk, d), float("nan"), device="cuda").to(dt)
        nqd, nkd = i32(nq), i32(nk)
        nb = max((a + b - 1) // B - a // B + 1 for a, b in zip(q0, nq))
        s = shape(2, H, Hk, d, dt, max(nq), max(nk), 0, nqd, nkd, None, nb)
        m, rp, idx = plan(2, H, nb, [a // B for a in q0], .5)
        w = work_list(rp, 2, H, Hk, nb)
        q = torch.cat(qs); k = torch.cat([ks[0], nan, ks[1], nan]); v = torch.cat([vs[0], nan, vs[1], nan])
        sq, sk = i32([0, nq[0]]), i32([0, nk[0] + 77])
        for P in (0, 1, 8, 16, 64, 128, 256):
            o = torch.full_like(q, float("nan")); lse = torch.full((q.shape[0], H), float("nan"), device="cuda")
            tk = torch.zeros(2, dtype=torch.int32, device="cuda")
            if P:
                per = max((n + P - 1) // P for n in nk); npg = 2 * per + 3
                table = torch.randperm(npg, device="cuda")[:2 * per].view(2, per).to(torch.int32).contiguous()
                kp = torch.full((npg, P, Hk, d), float("nan"), device="cuda").to(dt); vp = kp.clone()
                for i in range(2):
                    t = torch.arange(nk[i], device="cuda"); pg = table[i][t // P].long()
                    kp[pg, t % P] = ks[i]; vp[pg, t % P] = vs[i]
                kv, vv = paged(kp, table), paged(vp, table)
            else: kv, vv = ragged(k, sk), ragged(v, sk)
            a = Attend(s, ragged(q, sq), kv, vv, ragged(o, sq), lse.data_ptr(), 0, H, 1, rp.data_ptr(), idx.data_ptr(), w.data_ptr(), tk.data_ptr(), .1)
            r = fn(C.byref(a), None); torch.cuda.synchronize()
            if r:  # sm90 copies whole 8-row groups: pages of one token are refused (cudaErrorNotSupported)
                if not (P == 1 and r == 801 and name.endswith("sm90")): one(f"d{d} H{H} page {P} cuda error {r}", 9, 0)
                continue
            for i in range(2):
                ro, rl = reference(qs[i], ks[i], vs[i], q0[i], m[i], .1)
                one(f"d{d} H{H} {'page %d' % P if P else 'ragged'} seq {i}", rel(o[sum(nq[:i]):sum(nq[:i + 1])], ro), 6e-3 if dt == bf else 8e-4)
                one(f"d{d} H{H} {'page %d' % P if P else 'ragged'} seq {i} lse", (lse[sum(nq[:i]):sum(nq[:i + 1])] - rl).abs().max().item(), 2e-3)
    print(f"{name}: check {'FAILED %d' % bad if bad else 'ok'}, worst {worst:.2e}", flush=True)
    return not bad

def timed(fn, reps, warm=1):
    for _ in range(warm): fn()
    ev = [torch.cuda.Event(enable_timing=True) for _ in range(2 * reps)]
    for i in range(reps): ev[2 * i].record(); fn(); ev[2 * i + 1].record()
    torch.cuda.synchronize()
    t = sorted(ev[2 * i].elapsed_time(ev[2 * i + 1]) for i in range(reps))
    return t[len(t) // 2]

def main():
    opts = [a for a in sys.argv[1:] if a.startswith("-")]; libs = [a for a in sys.argv[1:] if not a.startswith("-")]
    fns = {}
    for l in libs:
        path, _, kernel = l.partition(":")  # LIBRARY.so[:sm80]
        fns[path.split("/")[-1][:-3] + " " + (kernel or "sm90")] = getattr(C.CDLL(path), "prism_attend_" + (kernel or "sm90"))
    ok = {n: check(f, n) if "-nocheck" not in opts else True for n, f in fns.items()}
    if "-checkonly" in opts: return all(ok.values())
    if "-peers" in opts:
        x = torch.randn(8192, 8192, device="cuda", dtype=bf); y = torch.randn(8192, 8192, device="cuda", dtype=bf)
        t = timed(lambda: x @ y, 20, 3); print(f"matmul 8192: {2 * 8192 ** 3 / t / 1e9:.0f} TFLOP/s")
        x = torch.empty(1 << 30, device="cuda", dtype=torch.int32).random_(); y = torch.empty_like(x)
        t = timed(lambda: y.copy_(x), 10, 2); print(f"copy: {2 * x.nbytes / t / 1e9:.2f} TB/s"); del x, y
    H, Hk, d = 32, 8, int(next((o[2:] for o in opts if o.startswith("-d")), 128))
    sizes = [int(s) for s in next((o[3:] for o in opts if o.startswith("-n=")), "8,32,128").split(",")]
    dens = [float(s) for s in next((o[6:] for o in opts if o.startswith("-dens=")), "1,.1,.05").split(",")]
    print(f"{'variant':24s} " + " ".join(f"{n}K/{x:g}".rjust(16) for n in sizes for x in dens))
    res = {n: [] for n in list(fns) + ["cudnn", "flash"]}
    for n in sizes:
        N = n * 1024; nb = N // B
        q = torch.randn(1, N, H, d, device="cuda", dtype=bf); k = torch.randn(1, N, Hk, d, device="cuda", dtype=bf); v = torch.randn(1, N, Hk, d, device="cuda", dtype=bf); o = torch.empty_like(q)
        full = 4 * N * N * d * H / 2; reps = {8: 15, 32: 9}.get(n, 5)
        tk = torch.zeros(2, dtype=torch.int32, device="cuda")
        for x in dens:
            rp = idx = w = None; frac = 1.
            if x < 1:
                m, rp, idx = plan(1, H, nb, 0, max(x - 2. / nb * 1.5, x * .5)); del m
                w = work_list(rp, 1, H, Hk, nb); frac = len(idx) / (H * nb * (nb + 1) / 2)
            a = Attend(shape(1, H, Hk, d, bf, N, N, 0), view(q), view(k), view(v), view(o), None, 0, 0, 0, ptr(rp), ptr(idx), ptr(w), tk.data_ptr(), d ** -.5)
            for name, fn in fns.items():
                if not ok[name]: res[name].append("-"); continue
                st = torch.cuda.current_stream().cuda_stream
                t = timed(lambda: fn(C.byref(a), C.c_void_p(st)), reps)
                res[name].append(f"{t:.3f} ({full * frac / t / 1e9:.0f}" + (f"@{100 * frac:.1f})" if x < 1 else ")"))
            if "-peers" in opts and x == 1:
                from torch.nn.attention import SDPBackend, sdpa_kernel
                qt, kt, vt = (z.transpose(1, 2) for z in (q, k, v))
                for nm, be in (("cudnn", SDPBackend.CUDNN_ATTENTION), ("flash", SDPBackend.FLASH_ATTENTION)):
                    with sdpa_kernel(be):
                        t = timed(lambda: torch.nn.functional.scaled_dot_product_attention(qt, kt, vt, is_causal=True, enable_gqa=True), min(reps, 3) if nm == "flash" else reps)
                    res[nm].append(f"{t:.3f} ({full / t / 1e9:.0f})")
            else: res["cudnn"].append(""); res["flash"].append("")
    for name, r in res.items():
        if any(r): print(f"{name:24s} " + " ".join(s.rjust(16) for s in r))
    return all(ok.values())
sys.exit(not main())
