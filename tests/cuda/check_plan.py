"""Correctness of pool, select and plans against float64.

    python3 tests/cuda/check_plan.py BUILD/libprismattn_cuda.so [-1m] [-det]

A plan may differ from float64's where a cell's exclusive mass lies within 1e-4 of p, or its weight within 1e-4 of the weight at
the cut (near ties may change places). Exit status 1 if a check failed."""
import sys, ctypes as C, torch
from prismcu import B, paged, ptr, ragged, rel, shape
from prismplan import Plan, bands, bits, blocky, load, mean_of, plan_of, stream, whole

bf, hf, sf = torch.bfloat16, torch.float16, torch.float32
failed = 0; mism = cells = 0; worst = 0.
def expect(ok, *what):
    global failed
    if not ok: failed += 1; print("  FAIL", *what, flush=True)
def judge(P, m, q, k, q0, BS, p, causal, tag, **options):
    """One sequence of a plan: q [n_q][H][d], k [n_kv][Hk][d], m its mask [H][n_qblk][n_kblk]."""
    global mism, cells, worst
    nq, nk = (q0 + q.shape[0] - 1) // BS - q0 // BS + 1, (k.shape[0] + BS - 1) // BS
    _, qm = mean_of(q, q0, BS, nq); _, km = mean_of(k, 0, BS, nk)
    ref, dist, vis = plan_of(qm, km, q0 // BS, p, causal, **options)
    bad = ref != m[:, :nq, :nk]; w = dist[bad].max().item() if bad.any() else 0
    worst = max(worst, w); mism += bad.sum().item(); cells += vis.sum().item() * q.shape[1]
    expect(w < 1e-4 and not (m[:, :nq, :nk] & ~vis).any() and not m[:, nq:].any() and not m[:, :, nk:].any(), tag, f"{bad.sum().item()} of {bad.numel()} cells, worst {w:.1e}")
    return qm, km

def single():
    for (H, Hk, n_q, n_kv, d, causal, p, BS, dt) in ((8, 2, 8192, 8192, 128, 1, .95, 128, bf), (8, 2, 8192, 8192, 128, 0, .9, 128, hf), (4, 4, 5000, 9001, 128, 1, .95, 128, bf),
            (3, 1, 5000, 9001, 64, 0, .95, 64, bf), (3, 3, 3000, 3000, 96, 1, .9, 64, sf), (4, 2, 2000, 2500, 192, 1, .95, 128, bf), (2, 2, 2000, 2000, 256, 1, .95, 128, sf),
            (4, 1, 32768, 32768, 128, 1, .95, 128, bf), (32, 8, 32768, 32768, 128, 1, .95, 128, bf), (2, 1, 100000, 100000, 128, 1, .97, 128, bf), (1, 1, 200000, 200000, 128, 1, .95, 128, bf),
            (2, 1, 1000, 300000, 128, 1, .95, 128, bf), (1, 1, 200, 2200000, 64, 1, .95, 128, bf), (2, 2, 1, 1, 128, 1, .95, 128, sf), (2, 2, 129, 130, 128, 1, .5, 128, hf), (8, 2, 8192, 8192, 128, 1, 1., 128, bf)):
        q, k = blocky(n_q, H, d, dt=dt), blocky(n_kv, Hk, d, dt=dt); q0 = n_kv - n_q; tag = f"H{H}/{Hk} n{n_q}/{n_kv} d{d} causal {causal} p {p} block {BS}"
        P = whole(lib, q, k, q0, BS=BS, p=p, causal=causal, keep_sum=True).run()
        qm, km = judge(P, P.mask()[0], q, k, q0, BS, p, causal, tag)
        a, b = P.means(); e = max(rel(a[0], qm), rel(b[0], km), rel(P.k_sum[0], mean_of(k, 0, BS, P.s.n_kblk)[0]))
        expect(e < 1e-5 and P.work_ok() and int(P.full) == 0, tag, f"pool {e:.1e}")
        if n_q == n_kv and n_q > 1000:  # appended in two calls: the same sums, to rounding (tokens of one block add up in another order)
            old = P.k_sum.clone(); ke = P.ke.clone(); P.k_sum.fill_(float("nan")); n1 = n_kv // 2 + 37; s = P.pool.shape
            s.n_kv = s.n_q = n1; s.n_kblk = (n1 + BS - 1) // BS; P.run("p")
            s.n_kv, s.n_q, s.n_kblk, P.pool.n_done = n_kv, n_q, P.s.n_kblk, n1; P.run("p")
            expect(rel(P.k_sum, old.double()) < 1e-6 and rel(P.ke, ke.double()) < 1e-5, tag, "append")
    for causal in (0, 1):  # one band, uncalibrated; sink and own block off
        q, k = blocky(4000, 4, 128, amp=.7), blocky(4000, 2, 128, amp=.7)
        judge(None, whole(lib, q, k, 0, n_band=1, p=.9).run().mask()[0], q, k, 0, B, .9, 1, "one band", n_band=1)
        m = whole(lib, q, k, 0, p=.3, causal=causal, sink=0, own=0).run().mask()[0]
        judge(None, m, q, k, 0, B, .3, causal, "nothing kept", sink=0, own=0)
    q, k = torch.zeros(20000, 2, 128, device="cuda", dtype=bf), blocky(20000, 2, 128)  # all tied: lower blocks first
    m = whole(lib, q, k, 0, p=.6, sink=0, own=0).run().mask()[0]; n = torch.arange(m.shape[1], device="cuda")
    expect(bool((m == (n[None] < (torch.tensor(.6, device="cuda").double() * (n[:, None] + 1)).ceil())).all()), "all tied")

def whole_and_parts():
    """Chunks that end on block boundaries give the rows of the whole; a band without dimensions chooses nothing; logits too large to multiply."""
    q, k = blocky(7000, 8, 128), blocky(7000, 2, 128); P = whole(lib, q, k, 0).run(); m = P.mask()[0]
    for a, b in ((0, 2560), (2560, 6912), (6912, 7000)):
        expect(torch.equal(whole(lib, q[a:b], k[:b], a).run().mask()[0], m[:, a // B:(b + B - 1) // B, :(b + B - 1) // B]), "chunk", a, b)
    low = bits(bands(128)[1])
    for S, high in ((P, low), (whole(lib, q, k, 0), bits(()))): S.pool.high = S.sel.high = high; S.run(); S.m = S.mask()
    expect(torch.equal(P.m, S.m) and int(S.m.sum()) < int(m.sum()), "band without dimensions")
    for dt, amp in ((hf, 1e4), (bf, 1e4), (bf, 1e12)):
        q, k = blocky(9000, 4, 128, amp=amp, dt=dt), blocky(9000, 2, 128, amp=amp, dt=dt); q.nan_to_num_(0, 0, 0); k.nan_to_num_(0, 0, 0)
        m = whole(lib, q, k, 0, sink=0, own=0).run().mask()[0]; _, qm = mean_of(q, 0, B, 71); _, km = mean_of(k, 0, B, 71)
        ref, _, vis = plan_of(qm, km, 0, .95, 1, sink=0, own=0)
        expect(bool(m.any(-1).all()) and not (m & ~vis).any() and (ref & ~m).sum() <= .01 * ref.sum() and m.sum() <= 1.01 * ref.sum(), "large", dt, amp, int(m.sum()), int(ref.sum()), int((ref & ~m).sum()))

def batch():
    """Ragged and paged batches with lengths on the device, a sequence without queries, one below min_tokens."""
    for d, dt, H, Hk in ((128, bf, 8, 2), (64, hf, 4, 4)):
        nq, nk = [3000, 1, 0, 2111, 700], [3000, 5000, 900, 4100, 700]; q0 = [b - a for a, b in zip(nq, nk)]
        qs, ks = [blocky(n, H, d, dt=dt) for n in nq], [blocky(n, Hk, d, dt=dt) for n in nk]; i32 = lambda x: torch.tensor(x, dtype=torch.int32, device="cuda")
        lens = [i32(nq), i32(nk)]; starts = [i32([sum(x[:i]) for i in range(5)]) for x in (nq, nk)]
        nb = max((a + b - 1) // B - a // B + 1 for a, b in zip(q0, nq) if b)
        s = shape(5, H, Hk, d, dt, max(nq), max(nk), 0, lens[0], lens[1], None, nb); q, k = torch.cat(qs), torch.cat(ks); plans = []
        for P in (0, 1, 16, 64, 256):
            kv = ragged(k, starts[1])
            if P:
                per = max((n + P - 1) // P for n in nk); table = torch.randperm(5 * per + 3, device="cuda")[:5 * per].view(5, per).to(torch.int32).contiguous()
                kp = torch.full((5 * per + 3, P, Hk, d), float("nan"), device="cuda").to(dt)
                for i in range(5): t = torch.arange(nk[i], device="cuda"); kp[table[i][t // P].long(), t % P] = ks[i]
                kv = paged(kp, table)
            plans.append(Plan(lib, s, ragged(q, starts[0]), kv, min_tokens=701).run()); m = plans[-1].mask()
            expect(torch.equal(plans[-1].bitmap, plans[0].bitmap) and plans[-1].work_ok(), f"page {P}")
        for i in range(5):
            if i == 2: expect(not m[i].any(), "sequence without queries")
            elif i == 4: own = torch.arange(nb, device="cuda"); expect(bool((m[i] == ((torch.arange(s.n_kblk, device="cuda") <= own[:, None]) & (own[:, None] < 6))).all()), "min_tokens")
            else: judge(None, m[i], qs[i], ks[i], q0[i], B, .95, 1, f"sequence {i} d{d}")

def odd_values():
    """A block whose score is not finite is selected; other rows and blocks are as if it were not there."""
    for value in (float("nan"), float("inf"), -float("inf")):
        q, k = blocky(6000, 4, 128), blocky(6000, 2, 128); good = whole(lib, q, k, 0).run().mask()[0]; k[128 * 20 + 5, 1, 3] = value
        m = whole(lib, q, k, 0).run().mask()[0]
        expect(torch.equal(m[:2], good[:2]) and torch.equal(m[:, :20], good[:, :20]), value, "reaches rows without it")
        expect(bool(m[2:, 20:, 20].all()), value, "not selected")
        k[128 * 20 + 5, 1, 3] = 0; q[128 * 30 + 9, 0, 7] = value; m = whole(lib, q, k, 0).run().mask()[0]
        good = whole(lib, q.nan_to_num(0, 0, 0), k, 0).run().mask()[0]; own = torch.ones(47, dtype=torch.bool, device="cuda"); own[30] = False
        expect(bool(m[0, 30, :31].all()) and torch.equal(m[1:], good[1:]) and torch.equal(m[0][own], good[0][own]), value, "in a query")

def plans():
    """Too little capacity; masks; the full plan; no rows."""
    q, k = blocky(5000, 8, 128), blocky(6000, 2, 128); P = whole(lib, q, k, 1000).run(); m = P.mask(); n = int(P.row_ptr[-1]); st = stream()
    for cap in (0, 1, n - 1, n):
        S = whole(lib, q, k, 1000, cap=cap).run(); torch.cuda.synchronize()
        expect(int(S.full) == (cap < n) and torch.equal(S.row_ptr, P.row_ptr) and torch.equal(S.index[:cap], P.index[:cap]) and bool((S.index[cap:] == -7).all()), "capacity", cap, n)
    u8 = torch.full(m.shape, 7, dtype=torch.uint8, device="cuda"); bad = torch.full((1,), 5, dtype=torch.int32, device="cuda")
    mask_of = lambda S: (lib.prism_plan_mask_cuda(C.byref(S.sel), C.c_void_p(ptr(u8)), st), u8)[1]
    expect(torch.equal(mask_of(P), m.to(torch.uint8)), "mask")
    own = (torch.arange(P.s.n_qblk, device="cuda") + 1000 // B)[:, None]; causal = (torch.arange(P.s.n_kblk, device="cuda") <= own).expand_as(m).to(torch.uint8)
    S = whole(lib, q, k, 1000, cap=5).run(); expect(torch.equal(mask_of(S), causal), "mask of an overflow")
    lib.prism_plan_full_cuda(C.byref(S.sel), st); S.sel.index = S.sel.full = None
    expect(torch.equal(mask_of(S), causal) and int(S.row_ptr[-1]) == int(causal.sum()) and S.work_ok(), "full plan")
    want = torch.rand(m.shape, device="cuda") < .3; want[:, :, 5] = False; want &= causal.bool()
    S = whole(lib, q, k, 1000); u8.copy_(want); r = lib.prism_plan_from_mask_cuda(C.byref(S.sel), C.c_void_p(ptr(u8)), C.c_void_p(ptr(bad)), st)
    want |= ~want.any(-1, keepdim=True) & (torch.arange(P.s.n_kblk, device="cuda") == own)
    expect(r == 0 and int(bad) == 0 and torch.equal(S.mask(), want) and S.work_ok(), "from mask")
    u8[0, 3, 2, -1] = 1; lib.prism_plan_from_mask_cuda(C.byref(S.sel), C.c_void_p(ptr(u8)), C.c_void_p(ptr(bad)), st)
    expect(int(bad) == 1 and torch.equal(S.mask(), want), "a mask above the causal limit")
    S = whole(lib, q, k, 1000); S.pool.shape.n_qblk = S.pool.shape.n_q = S.sel.shape.n_qblk = S.sel.shape.n_q = 0; S.run(); torch.cuda.synchronize()
    expect(int(S.row_ptr[0]) == 0, "no rows")

def million():
    """1M tokens in bounded memory; the last query block of each head against float64."""
    N, H, Hk, d = 1 << 20, 8, 2, 128; q, k = blocky(N, H, d), blocky(N, Hk, d); used = torch.cuda.memory_allocated()
    P = whole(lib, q, k, 0, cap=H * (N // B) * 500).run(); torch.cuda.synchronize(); used = (torch.cuda.memory_allocated() - used) / 2 ** 20
    if int(P.full): print("  1M: the lists hold", int(P.row_ptr[-1]), "blocks, more than the room given: only counts are checked")
    _, km = mean_of(k, 0, B, P.s.n_kblk)
    for u in (8191, 5000):
        _, qm = mean_of(q[u * B:(u + 1) * B], 0, B, 1); ref, dist, vis = plan_of(qm, km[:u + 1], u, .95, 1)
        words = P.bitmap.view(H, -1)[:, 16 * (u // 32) * (u // 32 + 1) + u % 32 * (u // 32 + 1):][:, :u // 32 + 1]
        m = (words[..., None] >> torch.arange(32, device="cuda", dtype=torch.int32) & 1).view(H, 1, -1)[..., :u + 1].bool(); bad = m != ref
        expect(not bad.any() or dist[bad].max() < 1e-4, f"1M row {u}: {bad.sum().item()} cells, worst {dist[bad].max().item() if bad.any() else 0:.1e}")
    print(f"1M tokens, {H}/{Hk} heads: {P.mem:.0f} MiB of estimation, {used:.0f} MiB with lists")

lib = load(sys.argv[1])
torch.manual_seed(torch.seed() % 2 ** 31); print("seed", torch.initial_seed())
for part in (single, whole_and_parts, batch, odd_values, plans) + ((million,) if "-1m" in sys.argv else ()):
    part(); torch.cuda.synchronize(); print(f"{part.__name__}: failed so far {failed}", flush=True)
if "-det" in sys.argv:  # the same plan every time?
    for n, H in ((200000, 2), (100000, 4), (20000, 32)):
        q, k = blocky(n, H, 128), blocky(n, 1, 128); P = whole(lib, q, k, 0).run(); torch.cuda.synchronize(); first = P.bitmap.clone(); other = 0
        for _ in range(30): P.run("ps"); other += not torch.equal(P.bitmap, first)
        expect(other == 0, "repeats", n, other)
print(f"plan: check {'FAILED' if failed else 'ok'}; {mism} of {cells} cells differ from float64, farthest from the cut {worst:.1e}", flush=True)
sys.exit(failed != 0)
