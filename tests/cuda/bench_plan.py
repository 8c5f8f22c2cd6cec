"""Correctness (against float64) and graph-replay times of pool, select and emit.

    python3 tests/cuda/bench_plan.py BUILD/libprismattn_cuda.so [-1m] [-nocheck] [-det] [-only=128]

A plan may differ from float64's where a cell's exclusive mass lies within 1e-4 of p, or its weight within 1e-4 of the weight at
the cut (near ties may change places). Exit status 1 if a check failed."""
import sys, ctypes as C, torch, math, time
from prismcu import *
class Pool(C.Structure):
    _fields_ = [("shape", Shape), ("q", View), ("k", View), ("q_split", C.c_void_p), ("k_split", C.c_void_p),
                ("q_energy", C.c_void_p), ("k_energy", C.c_void_p), ("k_sum", C.c_void_p), ("kss", C.c_int64), ("block_size", C.c_int32), ("n_done", C.c_int32), ("high", C.c_uint32 * 8), ("low", C.c_uint32 * 8)]
class Select(C.Structure):
    _fields_ = [("shape", Shape), ("q_split", C.c_void_p), ("k_split", C.c_void_p), ("q_energy", C.c_void_p), ("k_energy", C.c_void_p),
                ("block_size", C.c_int32), ("n_band", C.c_int32), ("causal", C.c_int32), ("sink", C.c_int32), ("own", C.c_int32), ("min_tokens", C.c_int32),
                ("top_p", C.c_float * 2), ("high", C.c_uint32 * 8), ("low", C.c_uint32 * 8), ("factor", C.c_void_p), ("bitmap", C.c_void_p), ("count", C.c_void_p), ("row_ptr", C.c_void_p),
                ("index", C.c_void_p), ("work", C.c_void_p), ("capacity", C.c_int64)]
def bits(dims):
    a = [0] * 8
    for j in dims: a[j // 32] |= 1 << (j % 32)
    return (C.c_uint32 * 8)(*a)
def bands(d):
    h, l = d // 2, d * 3 // 4
    return [*range(h // 2), *range(d // 2, d // 2 + h // 2)], [*range(d // 2 - l // 2, d // 2), *range(d - l // 2, d)]
class Plan:
    def __init__(self, lib, q, k, q0, H, Hk, d, p=.95, causal=1, cap=None, BS=128, keep_sum=False):
        n_seq, n_q = q.shape[:2]; n_kv = k.shape[1]; dev = dict(device="cuda")
        s = shape(n_seq, H, Hk, d, q.dtype, n_q, n_kv, q0); s.n_qblk = (q0 + n_q - 1) // BS - q0 // BS + 1; s.n_kblk = (n_kv + BS - 1) // BS
        self.lib, self.s = lib, s; nr = n_seq * H * s.n_qblk
        lib.prism_select_bitmap_words.restype = C.c_int64; w = lib.prism_select_bitmap_words(C.byref(s), BS)
        f = lambda *a: torch.full(a, float("nan"), **dev)
        self.q_split, self.k_split, self.k_sum = f(n_seq, s.n_qblk, H, d), f(n_seq, s.n_kblk, Hk, d), f(n_seq, s.n_kblk, Hk, d) if keep_sum else None
        self.rs = f(nr, 2); self.qe, self.ke = f(n_seq, H, s.n_qblk, 4), f(n_seq, Hk, s.n_kblk, 4)
        i = lambda n, t=torch.int32: torch.full((n,), -7, dtype=t, **dev)
        self.bitmap, self.count, self.row_ptr, self.work = i(w), i(nr), i(nr + 1, torch.int64), i(nr)
        cap = cap or int(nr * s.n_kblk * (.55 if q0 == 0 and s.n_kblk > 64 else 1)); self.index = i(cap)
        hi, lo = bands(d)
        self.pool = Pool(s, view(q), view(k), ptr(self.q_split), ptr(self.k_split), ptr(self.qe), ptr(self.ke), ptr(self.k_sum), s.n_kblk * Hk * d, BS, 0, bits(hi), bits(lo))
        self.sel = Select(s, ptr(self.q_split), ptr(self.k_split), ptr(self.qe), ptr(self.ke), BS, 2, causal, 1, 1, 0,
                          (C.c_float * 2)(p, p), bits(hi), bits(lo), ptr(self.rs), ptr(self.bitmap), ptr(self.count), ptr(self.row_ptr), ptr(self.index), ptr(self.work), cap)
        self.mem = sum(x.nbytes for x in (self.q_split, self.k_split, self.qe, self.ke, self.rs, self.bitmap, self.count)) / 2 ** 20
    def run(self, what="pse"):
        st = C.c_void_p(torch.cuda.current_stream().cuda_stream); r = 0
        if "p" in what: r |= self.lib.prism_pool_cuda(C.byref(self.pool), st)
        if "s" in what: r |= self.lib.prism_select_cuda(C.byref(self.sel), st)
        if "e" in what: r |= self.lib.prism_plan_emit_cuda(C.byref(self.sel), st)
        assert r == 0, r
    def unsplit(self, x, e):  # means
        h = x.view(torch.float16).double().view(*x.shape[:-1], -1, 2, 4)
        return (h[..., 0, :] + h[..., 1, :]).reshape(x.shape) * e[..., 3].double().transpose(1, 2)[..., None]
    def mask(self):
        s = self.s; n = self.row_ptr[1:] - self.row_ptr[:-1]; row = torch.repeat_interleave(torch.arange(len(n), device="cuda"), n)
        m = torch.zeros(len(n), s.n_kblk, dtype=torch.int32, device="cuda"); m.view(-1).index_add_(0, row * s.n_kblk + self.index[:len(row)].long(), torch.ones_like(row, dtype=torch.int32))
        assert m.max() <= 1
        return m.view(s.n_seq, s.n_head, s.n_qblk, s.n_kblk).bool()
def data(n_seq, n_q, n_kv, H, Hk, d, amp=1.5, dt=torch.bfloat16):
    def one(n, h):
        x = torch.randn(n_seq, (n + B - 1) // B, 1, h, d, device="cuda").mul_(amp).to(dt).expand(-1, -1, B, -1, -1).reshape(n_seq, -1, h, d)[:, :n].contiguous()
        for i in range(0, n, 16384): x[:, i:i + 16384] += torch.randn_like(x[:, i:i + 16384])
        return x
    return one(n_q, H), one(n_kv, Hk)
def check(lib):
    ok = True; worst = 0; mism = cells = 0
    for (H, Hk, n_q, n_kv, d, causal, p, BS, dt) in ((8, 2, 8192, 8192, 128, 1, .95, 128, torch.bfloat16), (8, 2, 8192, 8192, 128, 0, .9, 128, torch.float16), (4, 4, 5000, 9001, 128, 1, .95, 128, torch.bfloat16),
                                            (3, 1, 5000, 9001, 64, 0, .95, 64, torch.bfloat16), (4, 1, 32768, 32768, 128, 1, .95, 128, torch.bfloat16), (2, 1, 100000, 100000, 128, 1, .97, 128, torch.bfloat16), (1, 1, 200000, 200000, 128, 1, .95, 128, torch.bfloat16),
                                            (2, 1, 1000, 300000, 128, 1, .95, 128, torch.bfloat16), (2, 2, 1, 1, 128, 1, .95, 128, torch.float32)):
        q, k = data(1, n_q, n_kv, H, Hk, d, dt=dt); q0 = n_kv - n_q
        P = Plan(lib, q, k, q0, H, Hk, d, p, causal, BS=BS, keep_sum=True); P.run(); torch.cuda.synchronize(); s = P.s
        m = P.mask()[0]
        def means(x, off, nb):
            blk = (torch.arange(x.shape[1], device="cuda") + off) // BS - off // BS
            z = torch.zeros(nb, *x.shape[2:], dtype=torch.float64, device="cuda").index_add_(0, blk, x[0].double())
            c = torch.zeros(nb, dtype=torch.float64, device="cuda").index_add_(0, blk, torch.ones(len(blk), dtype=torch.float64, device="cuda")); return z, z / c[:, None, None]
        qs, qm = means(q, q0, s.n_qblk); ks, km = means(k, 0, s.n_kblk)
        e_pool = max(rel(P.unsplit(P.q_split, P.qe)[0], qm), rel(P.unsplit(P.k_split, P.ke)[0], km), rel(P.k_sum[0], ks))
        hi, lo = bands(d); ref = torch.zeros_like(m); dist = torch.full(m.shape, 9., device="cuda", dtype=torch.float64)
        own = torch.arange(s.n_qblk, device="cuda") + q0 // BS; vis = torch.arange(s.n_kblk, device="cuda")[None] <= own[:, None]
        for h in range(H):
            a, b = qm[:, h], km[:, h // (H // Hk)]
            E = lambda x, D: (x[:, D] ** 2).sum(1)
            al = list(range(d))
            for D in (hi, lo):
                if causal: f = (E(a, al) / E(a, D)) * (E(b, al).cumsum(0) / E(b, D).cumsum(0))[own]; f = f[:, None]
                else: f = (E(a, al).sum() / E(a, D).sum()) * (E(b, al).sum() / E(b, D).sum())
                l = (a[:, D] @ b[:, D].T) * f.sqrt() / math.sqrt(d)
                w = torch.softmax(l.masked_fill(~vis, -math.inf), 1)
                o = w.argsort(dim=1, descending=True, stable=True); ws = w.gather(1, o); ex = torch.empty_like(w).scatter_(1, o, ws.cumsum(1) - ws)
                ref[h] |= (ex < p) & vis; cut = torch.where(ex < p, w, 9.).min(1, keepdim=True)[0]; dist[h] = torch.minimum(dist[h], torch.minimum((ex - p).abs(), (w / cut - 1).abs()))
            ref[h, :, 0] = True; ref[h][torch.arange(s.n_qblk), own] = True
        bad = (ref != m); w = dist[bad].max().item() if bad.any() else 0; worst = max(worst, w); mism += bad.sum().item(); cells += (vis.sum() * H).item()
        wl = P.work.long().view(Hk, -1); c = P.count[wl]; good = bool((c[:, 1:] <= c[:, :-1]).all()) and bool((wl.sort(1)[0].view(-1) == torch.arange(wl.numel(), device="cuda")).all())
        good &= e_pool < 1e-5 and w < 1e-4 and not (m[0] & ~vis).any()
        ok &= good
        if not good: print(f"  FAIL H{H}/{Hk} n{n_q}/{n_kv} d{d} causal {causal}: pool {e_pool:.1e}, mismatches {bad.sum().item()} of {bad.numel()}, worst distance {w:.1e}, density {m.sum().item() / (vis.sum() * H).item():.3f} ref {ref.sum().item() / (vis.sum() * H).item():.3f}")
        # append: the same sums in two calls
        if n_q == n_kv and n_q > 1000:
            old = P.k_sum.clone(); P.k_sum.fill_(float("nan")); n1 = n_kv // 2 + 37
            P.pool.shape.n_kv = n1; P.pool.shape.n_kblk = (n1 + BS - 1) // BS; P.pool.shape.n_q = n1; ke = P.ke.clone(); P.run("p")
            P.pool.shape.n_kv = n_kv; P.pool.shape.n_kblk = s.n_kblk; P.pool.shape.n_q = n_q; P.pool.n_done = n1; P.run("p"); torch.cuda.synchronize()
            if rel(P.k_sum, old.double()) > 1e-6 or rel(P.ke, ke.double()) > 1e-5: print("  FAIL append", rel(P.k_sum, old.double()), rel(P.ke, ke.double())); ok = False
    print(f"plan: check {'ok' if ok else 'FAILED'}; {mism} of {cells} cells differ from float64, farthest from the cut {worst:.1e}", flush=True)
    return ok
def graph_time(fn, reps=20):
    fn(); torch.cuda.synchronize(); g = torch.cuda.CUDAGraph()
    with torch.cuda.graph(g): fn()
    for _ in range(3): g.replay()
    ev = [torch.cuda.Event(enable_timing=True) for _ in range(2 * reps)]
    for i in range(reps): ev[2 * i].record(); g.replay(); ev[2 * i + 1].record()
    torch.cuda.synchronize()
    return sorted(ev[2 * i].elapsed_time(ev[2 * i + 1]) for i in range(reps))[reps // 2]
def main():
    lib = C.CDLL(sys.argv[1])
    if "-det" in sys.argv:  # the same plan every time?
        for n, H in ((200000, 2), (100000, 4)):
            q, k = data(1, n, n, H, 1, 128); P = Plan(lib, q, k, 0, H, 1, 128); P.run(); torch.cuda.synchronize(); b0 = P.bitmap.clone(); c0 = P.count.clone(); bad = []
            for _ in range(30): P.run("s"); torch.cuda.synchronize(); bad.append((P.bitmap != b0).sum().item())
            P.run("e"); print("repeat", n, bad, flush=True)
        del q, k, P
    ok = True if "-nocheck" in sys.argv else check(lib)
    H, Hk, d = 32, 8, 128
    only = next((int(a[6:]) for a in sys.argv if a.startswith('-only=')), 0)
    for n in (only,) if only else (8, 32, 128) + ((1024,) if "-1m" in sys.argv else ()):
        N = n * 1024
        if n > 128: H, Hk = 8, 2
        q, k = data(1, N, N, H, Hk, d)
        P = Plan(lib, q, k, 0, H, Hk, d, cap=H * (N // B) * 500 if n > 128 else None); P.run()
        if only: torch.cuda.synchronize(); return ok
        t = {w: graph_time(lambda: P.run(w)) for w in ("p", "s", "e", "ps", "pse")}
        den = P.count.sum().item() / (H * (N // B) * (N // B + 1) / 2)
        print(f"{n:5d}K H{H}/{Hk}: pool {t['p']:.4f}  select {t['s']:.4f}  emit {t['e']:.4f}  pool+select {t['ps']:.4f}  all {t['pse']:.4f} ms   {P.mem:.2f} MiB  density {den:.3f}  pool {(q.nbytes + k.nbytes) / t['p'] / 1e9:.2f} TB/s", flush=True)
        del q, k, P
    return ok
sys.exit(not main())
