"""Correctness of the moments kernels against docs/moments.md in float64.

    python3 tests/cuda/check_moments.py BUILD/libprismattn_cuda.so [-long]

Selection may differ where E lies within 1 % of the threshold: moments and queries are f16 in the products (logits of size 10 are
off by about 3e-3). The correction of a given plan: log-sum-exp within 2e-2, outputs within 1 % of their norm, for the same reason."""
import sys, torch
from prismcu import B, paged, ragged, rel, shape
from prismplan import blocky, load
from prismmoments import S, Mom, entries, one, scores
bf, hf = torch.bfloat16, torch.float16
failed = 0
def expect(ok, *what):
    global failed
    if not ok: failed += 1; print("  FAIL", *what, flush=True)
def keys(n, h, d, dt):  # block means, and a spread that differs from block to block; a loud first token
    x = blocky(n, h, d, amp=.6, dt=torch.float32); nb = (n + B - 1) // B
    x = x * torch.rand(nb, 1, h, 1, device="cuda").expand(-1, B, -1, d).reshape(-1, h, d)[:n]
    x[3 % n] += 3
    return x.to(dt)
def error_of(q, k, v, q0, h, e, scale):
    """E [n_qblk][block] of head h, by asking tokens."""
    n_q = q.shape[0]; pos = torch.arange(n_q, device="cuda") + q0; u = pos // B; last = torch.cat([u[1:] != u[:-1], torch.ones(1, dtype=torch.bool, device="cuda")])
    ask = (pos % 4 == 3) | last; pos, u = pos[ask], u[ask] - q0 // B; x = q[ask][:, h].double(); g = h // (q.shape[1] // k.shape[1])
    own = torch.empty(len(pos), dtype=torch.float64, device="cuda")
    for b in (pos // B).unique().tolist():
        i = (pos // B == b).nonzero()[:, 0]; kk = k[b * B:(b + 1) * B, g].double()
        own[i] = torch.logsumexp((scale * (x[i] @ kk.T)).masked_fill(torch.arange(len(kk), device="cuda")[None] + b * B > pos[i][:, None], -float("inf")), 1)
    L, s2 = scores(e, x, pos, g, scale); Z = torch.logaddexp(torch.logsumexp(L, 1), own)
    E = torch.zeros(int(u[-1]) + 1, L.shape[1] - S, dtype=torch.float64, device="cuda").index_add_(0, u, (s2 ** 1.5 * (L - Z[:, None]).exp())[:, S:])
    return E / torch.bincount(u, minlength=len(E))[:, None]
def judge(m, q, k, v, q0, tag, error=.02, sink=0, own=1, scale=None):
    """Plan m [H][n_qblk][n_kblk] of the kernel."""
    if k.shape[0] < B: return expect(m.all() == own or not own, tag)
    H = q.shape[1]; scale = scale or q.shape[2] ** -.5; e = entries(k, v, q, q0, scale); nq, nk = m.shape[1:]; mine = torch.arange(nq, device="cuda") + q0 // B; patience = (6144 / (mine * B).clamp(min=1)).clamp(max=1); worst = 0.; differ = kept = cells = 0
    for h in range(H):
        E = error_of(q, k, v, q0, h, e, scale) / patience[:, None]; past = torch.arange(E.shape[1], device="cuda")[None] < mine[:, None]; ref = (E >= error) & past
        if sink: ref[:, 0] |= past[:, 0]
        got = m[h][:, :E.shape[1]] & past; bad = got != ref; differ += bad.sum().item(); kept += got.sum().item(); cells += past.sum().item()
        if bad.any(): worst = max(worst, (E[bad] / error - 1).abs().max().item())
        alone = ~got.any(1) if not own else torch.ones_like(mine, dtype=torch.bool)
        expect(bool(m[h, torch.arange(nq, device="cuda"), mine][alone].all()) and not (m[h] & (torch.arange(nk, device="cuda")[None] > mine[:, None])).any(), tag, "own block")
    expect(worst < 1e-2, tag, f"worst {worst:.1e}"); print(f"{tag}: kept {kept} of {cells} past blocks, {differ} differ, E {worst:.1e} from the threshold", flush=True)
def judge_correction(m, o, lse, q, k, v, q0, tag, scale=None, mean=0):
    H = q.shape[1]; scale = scale or q.shape[2] ** -.5; pos = torch.arange(q.shape[0], device="cuda") + q0; u = pos // B - q0 // B; worst = [0., 0.]
    if k.shape[0] < B: return expect(bool((lse == -float("inf")).all()), tag, "nothing to correct")
    e = entries(k, v, q, q0, scale); b = (torch.arange(e[0].shape[1], device="cuda") - S).clamp(min=0)
    for h in range(H):
        g = h // (H // k.shape[1])
        for i in range(0, len(pos), 8192):
            r = slice(i, i + 8192); L, _ = scores(e, q[r, h].double(), pos[r], g, scale, mean); L = L.masked_fill(m[h][u[r]][:, b], -float("inf"))
            l0 = torch.logsumexp(L, 1); some = l0 > -1e30; o0 = torch.softmax(L[some], 1) @ e[3][g]
            expect(torch.equal(lse[r, h] > -1e30, some), tag, "rows without pruned entries")
            if some.any(): worst = [max(worst[0], (lse[r, h][some] - l0[some]).abs().max().item()), max(worst[1], rel(o[r, h][some], o0))]
    expect(worst[0] < 2e-2 and worst[1] < 1e-2, tag, "correction", worst); print(f"{tag}: correction: lse off by {worst[0]:.1e}, outputs {worst[1]:.1e}", flush=True)

def single():
    for H, Hk, n_q, n_kv, d, dt, o in ((4, 2, 4096, 4096, 128, bf, {}), (6, 1, 1501, 5002, 128, hf, dict(error=.05)), (4, 1, 3000, 3333, 64, bf, dict(sink=1)), (8, 2, 12000, 12000, 128, bf, dict(error=.005)),
            (2, 1, 700, 70000, 128, bf, dict(error=.003)), (2, 2, 1, 1, 128, bf, {}), (3, 1, 130, 131, 128, hf, {}), (3, 3, 200, 383, 128, bf, {}),
            (2, 2, 4096, 4096, 128, hf, dict(own=0, scale=.2)), (2, 2, 4096, 4096, 128, bf, dict(error=9e9, own=0)), (2, 2, 4096, 4096, 128, bf, dict(error=0.))):
        q, k, v = torch.randn(n_q, H, d, device="cuda").mul_(1.5).to(dt), keys(n_kv, Hk, d, dt), blocky(n_kv, Hk, d, amp=.5, dt=dt); q0 = n_kv - n_q; tag = f"H{H}/{Hk} n{n_q}/{n_kv} d{d} {str(dt)[6:]} {o}"
        P = one(lib, q, k, v, q0, **o).run(); torch.cuda.synchronize(); m = P.mask(q0 // B)[0]; judge(m, q, k, v, q0, tag, **o)
        for mean in (0, 1):
            P.a.mean = mean; P.correct(m); judge_correction(m, P.o, P.lse, q, k, v, q0, f"{tag} mean {mean}", o.get("scale"), mean)
        if n_kv > 1000:  # pooled in two calls: the same sums to rounding
            T = one(lib, q, k, v, q0, **o); s = T.a.shape; n1 = n_kv * 2 // 3 + 5; s.n_kv, s.n_q = n1, n1 - q0 if n1 > q0 else 0; s.q_start = n1 - s.n_q; T.run("p")
            s.n_kv, s.n_q, s.q_start = n_kv, n_q, q0; T.a.n_done = n1; T.run()
            off = max(rel(x[:, :len(k) // B], y[:, :len(k) // B].double()) for x, y in zip(T.state[:6], P.state[:6]))
            expect(q0 >= n1 or off < 1e-5 and (T.mask(q0 // B)[0] != m).float().mean() < 1e-3, tag, "pooled in two calls", off)
        for _ in range(3): expect(torch.equal(one(lib, q, k, v, q0, **o).run().bitmap, P.bitmap), tag, "repeats")

def batch():
    """Ragged and paged, lengths on the device, a sequence without queries."""
    H, Hk, d, dt = 4, 2, 128, bf; nq, nk = [3000, 1, 0, 2111], [3000, 2000, 900, 4100]; i32 = lambda x: torch.tensor(x, dtype=torch.int32, device="cuda")
    qs = [torch.randn(n, H, d, device="cuda").to(dt) for n in nq]; ks = [keys(n, Hk, d, dt) for n in nk]; vs = [blocky(n, Hk, d, dt=dt) for n in nk]; q0 = [b - a for a, b in zip(nq, nk)]
    nb = max((a + b - 1) // B - a // B + 1 for a, b in zip(q0, nq) if b); lens = i32(nq), i32(nk); starts = [i32([sum(x[:i]) for i in range(4)]) for x in (nq, nk)]
    s = shape(4, H, Hk, d, dt, max(nq), max(nk), 0, *lens, None, nb); q, k, v = map(torch.cat, (qs, ks, vs))
    for P in (0, 1, 16, 256):
        views = [ragged(x, starts[1]) for x in (k, v)]; memory = []
        if P:
            per = max((n + P - 1) // P for n in nk); table = torch.randperm(4 * per + 3, device="cuda")[:4 * per].view(4, per).to(torch.int32).contiguous(); views = []
            for x in (ks, vs):
                xp = torch.full((4 * per + 3, P, Hk, d), float("nan"), device="cuda").to(dt); memory.append(xp)
                for i in range(4): t = torch.arange(nk[i], device="cuda"); xp[table[i][t // P].long(), t % P] = x[i]
                views.append(paged(xp, table))
        o = torch.full_like(q, float("nan")); lse = torch.full((len(q), H), float("nan"), device="cuda")
        M = Mom(lib, s, ragged(q, starts[0]), *views, ragged(o, starts[0]), o, lse).run(); torch.cuda.synchronize(); m = M.mask(); M.correct(m); expect(not m[2].any(), "a sequence without queries")
        for i in (0, 1, 3):
            a, n = sum(nq[:i]), (q0[i] + nq[i] - 1) // B - q0[i] // B + 1; expect(not m[i, :, n:].any(), "rows that do not exist"); w = m[i, :, :n, :(nk[i] + B - 1) // B]
            judge(w, qs[i], ks[i], vs[i], q0[i], f"page {P} sequence {i}"); judge_correction(w, o[a:a + nq[i]], lse[a:a + nq[i]], qs[i], ks[i], vs[i], q0[i], f"page {P} sequence {i}")

def odd_values():
    for x in (float("nan"), float("inf")):
        q, k, v = torch.randn(4000, 4, 128, device="cuda").to(bf), keys(4000, 2, 128, bf), blocky(4000, 2, 128); good = one(lib, q, k, v, 0).run().mask()[0]
        for t in (k, v):
            t[B * 9 + 5, 1, 3] = x; P = one(lib, q, k, v, 0).run(); m = P.mask()[0]; P.correct(m); t[B * 9 + 5, 1, 3] = 0
            expect(torch.equal(m[:2], good[:2]) and bool(m[2:, 10:, 9].all()) and bool(P.o[P.lse > -1e30].isfinite().all()) and not P.lse.isnan().any(), x, "in a key or value")
        q[B * 20 + 7, 0, 5] = x; P = one(lib, q, k, v, 0).run(); m = P.mask()[0]; P.correct(m); q[B * 20 + 7, 0, 5] = 0
        expect(bool(m[0, 20, :21].all()) and torch.equal(m[1:], good[1:]), x, "in an asking query")
    full = torch.ones_like(good).tril(); P = one(lib, q, k, v, 0).run(); P.correct(full[None]); expect(bool((P.lse == -float("inf")).all()), "full plan")
    P.lse.fill_(3); P.a.index = None; P.run("c"); expect(bool((P.lse == -float("inf")).all()), "dense plan")

def long():
    N, H, Hk, d = 1 << 20, 2, 1, 128; q, k, v = torch.randn(600, H, d, device="cuda").to(bf), keys(N, Hk, d, bf), blocky(N, Hk, d)
    P = one(lib, q, k, v, N - 600, error=.0004).run(); torch.cuda.synchronize(); m = P.mask((N - 600) // B)[0]; judge(m, q, k, v, N - 600, "1M keys", .0004)
    P.correct(m); judge_correction(m, P.o, P.lse, q, k, v, N - 600, "1M keys")

lib = load(sys.argv[1]); print("seed", torch.seed() % 2 ** 31)
for part in (single, batch, odd_values) + ((long,) if "-long" in sys.argv else ()):
    part(); torch.cuda.synchronize(); print(f"{part.__name__}: failed so far {failed}", flush=True)
sys.exit(failed != 0)
