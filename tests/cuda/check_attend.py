"""Every attention kernel against float64: fresh random inputs, poisoned outputs, poison in memory that belongs to nobody.

    python3 tests/cuda/check_attend.py BUILD/libprismattn_cuda.so [sm90 sm80 any cuda]

Exit status 1 if a check failed. sm90 is left out where there is no such GPU."""
import ctypes as C, math, sys, time, torch
from prismcu import *

bf, hf, f32 = torch.bfloat16, torch.float16, torch.float32
# ||o - ref|| / ||ref||: weights and output are rounded to the dtype; f32: scores of 20 in units of log2, one rounding each
TOLERANCE = {bf: 6e-3, hf: 8e-4, f32: 1e-5}
nan = float("nan")
i32 = lambda x: torch.tensor(x, dtype=torch.int32, device="cuda")
rand = lambda *n: torch.rand(*n, device="cuda")


class Case:
    """One call. Sequences of n_q[i] queries at q_start[i] behind n_kv[i] keys; o and lse are what the call writes."""

    def __init__(self, n_q, n_kv, H=4, Hk=2, d=128, dt=bf, B=128, q_start=None, density=None, page=0, keys=0, init=False, split=False,
                 full=False, empty=0, scale=None, pad=0, tail=0):
        self.n_q, self.n_kv, self.H, self.Hk, self.d, self.dt, self.B = n_q, n_kv, H, Hk, d, dt, B
        self.q_start = [b - a for a, b in zip(n_q, n_kv)] if q_start is None else q_start
        self.scale = d ** -.5 if scale is None else scale
        self.tag = f"d{d} {str(dt)[6:]} b{B} H{H}/{Hk} n{n_q}/{n_kv}@{self.q_start}" + "".join(f" {k} {v}" for k, v in (("density", density), ("page", page), ("keys", keys), ("init", init), ("split", split), ("full", full), ("empty", empty), ("scale", scale), ("pad", pad)) if v)
        n = len(n_q)
        # tokens lie one after the other, with tail tokens of poison behind each sequence's keys
        make = lambda ns, h: torch.randn(sum(ns), h, d + pad, device="cuda").to(dt)[..., :d]
        self.q, self.k, self.v = make(n_q, H) * 2, make(n_kv, Hk), make(n_kv, Hk)
        self.o, self.lse = torch.full((sum(n_q), H, d + pad), nan, device="cuda").to(dt)[..., :d], torch.full((sum(n_q), H), nan, device="cuda")
        self.row = [sum(n_q[:i]) for i in range(n + 1)]
        self.kv_row = [sum(n_kv[:i]) for i in range(n + 1)]
        self.n_qblk = max((a + b - 1) // B - a // B + 1 for a, b in zip(self.q_start, n_q))
        self.n_kblk = max((x + B - 1) // B for x in n_kv)
        # the plan, u8 [sequence][head][query block][key block], and single keys [sequence][head][query block][key]
        own = torch.tensor(self.q_start, device="cuda")[:, None] // B + torch.arange(self.n_qblk, device="cuda")
        causal = (torch.arange(self.n_kblk, device="cuda") <= own[..., None])[:, None].expand(n, H, -1, -1)
        self.mask = causal.clone()
        if density is not None:
            self.mask &= rand(n, H, self.n_qblk, self.n_kblk) < density
            self.mask |= (torch.arange(self.n_kblk, device="cuda") == own[..., None])[:, None]
        if empty: self.mask &= (rand(n, H, self.n_qblk) >= empty)[..., None]
        self.single = None
        if keys:
            whole = self.mask.repeat_interleave(B, 3)[..., :max(n_kv)]
            self.single = (rand(n, H, self.n_qblk, max(n_kv)) < keys) & ~whole & (torch.arange(max(n_kv), device="cuda") < (own[..., None] + 1) * B)[:, None]
            self.single &= torch.arange(max(n_kv), device="cuda") < i32(n_kv)[:, None, None, None]
        self.keep = keep = []  # tensors that only their addresses hold
        def hold(t): keep.append(t); return t.data_ptr()
        def csr(m):
            c = m.reshape(-1, m.shape[-1]); ptr = torch.zeros(len(c) + 1, dtype=torch.int64, device="cuda"); ptr[1:] = c.sum(1).cumsum(0)
            return ptr, c.nonzero()[:, 1].to(torch.int32)
        listed = density is not None or empty or keys
        a = self.a = Attend()
        a.shape = shape(n, H, Hk, d, dt, max(n_q), max(n_kv), self.q_start[0], None, None, None, self.n_qblk, B)
        a.shape.n_kblk = self.n_kblk
        if n > 1:
            a.shape.q_start = 12345
            a.shape.n_q_of, a.shape.n_kv_of, a.shape.q_start_of = (hold(i32(x)) for x in (n_q, n_kv, self.q_start))
        starts = i32(self.row)
        hold(starts)
        flat = n > 1 or tail > 0
        place = lambda t, start: ragged(t, start) if flat else view(t[None])
        a.q, a.o = place(self.q, starts), place(self.o, starts)
        if page:
            per = (max(n_kv) + page - 1) // page; n_page = n * per + 3
            table = torch.randperm(n_page, device="cuda")[:n * per].view(n, per).to(torch.int32).contiguous(); hold(table)
            views = []
            for x in (self.k, self.v):
                p = torch.full((n_page, page, Hk, d), nan, device="cuda").to(dt)
                for i in range(n):
                    t = torch.arange(n_kv[i], device="cuda"); p[table[i][t // page].long(), t % page] = x[self.kv_row[i]:self.kv_row[i + 1]]
                hold(p); views.append(paged(p, table))
            a.k, a.v = views
        else:
            at = i32([s + i * tail for i, s in enumerate(self.kv_row)]); hold(at); views = []
            for x in (self.k, self.v):
                p = torch.full((sum(n_kv) + n * tail, Hk, d + pad), nan, device="cuda").to(dt)[..., :d]
                for i in range(n): p[at[i]:at[i] + n_kv[i]] = x[self.kv_row[i]:self.kv_row[i + 1]]
                hold(p); views.append(place(p, at))
            a.k, a.v = views
        self.placed = keep[-2:]  # K and V where the kernel reads them (page 0, one sequence: the same rows)
        a.lse, a.lse_stride_token, a.lse_stride_head, a.lse_row_start = self.lse.data_ptr(), H, 1, a.o.row_start
        if listed:
            ptr, index = csr(self.mask)
            if full: ptr = torch.full_like(ptr, 1 << 40)  # an overflowed plan: not to be followed
            work = work_list(csr(self.mask)[0], n, H, Hk, self.n_qblk)
            a.row_ptr, a.index, a.work = hold(ptr), hold(torch.cat([index, i32([-1])])), hold(work)
        if self.single is not None:
            ptr, index = csr(self.single); a.key_ptr, a.key_index = hold(ptr), hold(torch.cat([index, i32([-1])]))
        if listed and full is not False: a.full = hold(i32([int(full)]))
        if full: self.mask = causal; self.single = None
        self.init = None
        if init:
            o0 = torch.full_like(self.o, nan); lse0 = torch.full_like(self.lse, -math.inf)
            some = rand(sum(n_q), H) < .7
            o0[some] = torch.randn_like(o0[some]); lse0[some] = torch.randn_like(lse0[some]) * 3 + 4
            o0 = torch.empty(sum(n_q), H, d + pad, device="cuda", dtype=dt)[..., :d].copy_(o0)
            self.init = o0, lse0; a.init_o, a.init_lse = o0.data_ptr(), lse0.data_ptr()
        self.ticket = i32([0, 0]); a.ticket = self.ticket.data_ptr()
        a.scale, a.block_size = self.scale, B
        self.split = split

    def scratch(self, lib):
        if not self.split: return 0
        n = lib.prism_attend_scratch_bytes(C.byref(self.a.shape), self.B); t = torch.full((n // 4 + 1,), nan, device="cuda"); self.keep.append(t)
        self.a.scratch, self.a.scratch_bytes = t.data_ptr(), n
        return n

    def reference(self):
        """o, lse in float64, as dense attention over what each query may read."""
        o, lse = torch.zeros(self.o.shape, dtype=torch.float64, device="cuda"), torch.zeros(self.lse.shape, dtype=torch.float64, device="cuda")
        for i in range(len(self.n_q)):
            pos = torch.arange(self.n_q[i], device="cuda") + self.q_start[i]; key = torch.arange(self.n_kv[i], device="cuda")
            u = pos // self.B - self.q_start[i] // self.B
            for h in range(self.H):
                q = self.q[self.row[i]:self.row[i + 1], h].double(); k, v = (x[self.kv_row[i]:self.kv_row[i + 1], h * self.Hk // self.H].double() for x in (self.k, self.v))
                see = self.mask[i, h][u][:, key // self.B]
                if self.single is not None: see = see | self.single[i, h][u][:, key]
                see = see & (key <= pos[:, None])
                s = (q @ k.T * self.scale).masked_fill(~see, -math.inf)
                if self.init: s = torch.cat([s, self.init[1][self.row[i]:self.row[i + 1], h, None].double()], 1)
                l = torch.logsumexp(s, 1); w = torch.exp(s - l[:, None]); w[l == -math.inf] = 0
                w[:, :len(key)][~see] = 0
                # what is not finite reaches those that see it, and nobody else
                bad = ~v.isfinite(); seen = see.double()
                r = w[:, :len(key)] @ v.masked_fill(bad, 0)
                up, down, no = (seen @ x.double() > 0 for x in (v == math.inf, v == -math.inf, v.isnan()))
                r[up], r[down] = math.inf, -math.inf; r[no | (up & down)] = nan
                if self.init:
                    o0 = self.init[0][self.row[i]:self.row[i + 1], h].double(); r += torch.where(w[:, -1:] > 0, w[:, -1:] * o0, 0.)
                o[self.row[i]:self.row[i + 1], h], lse[self.row[i]:self.row[i + 1], h] = r, l
        return o, lse


class Checker:
    def __init__(self, lib, name):
        self.lib, self.name, self.failed, self.n, self.worst = lib, name, 0, 0, 0.
        fn = getattr(lib, "prism_attend_" + name)
        self.fn = (lambda a, s: fn(a, s, None)) if name == "cuda" else fn

    def ok(self, good, text):
        self.n += 1
        if not good: self.failed += 1; print(f"  FAIL {self.name}: {text}", flush=True)

    def compare(self, case, tag=""):
        o, lse = case.reference(); got = case.o.double(); fine = o.isfinite()
        self.ok(bool((got.isnan() == o.isnan()).all()) and bool((got[got.isinf() | o.isinf()] == o[got.isinf() | o.isinf()]).all()), case.tag + tag + f": not finite where it should be, or the reverse: {(got.isfinite() != fine).sum().item()} of {fine.numel()}")
        both = fine & got.isfinite()
        e = rel(got[both], o[both]) if o[both].any() else got[both].abs().sum().item()
        self.worst = max(self.worst, e)
        self.ok(e < TOLERANCE[case.dt], case.tag + tag + f": {e:.2e}")
        there = lse.isfinite(); l = case.lse.double(); same = torch.equal(l[~there].nan_to_num(7.), lse[~there].nan_to_num(7.))
        self.ok(same and (not there.any() or (l - lse)[there].abs().max().item() < 2e-3), case.tag + tag + " lse")

    def launch(self, case):
        r = self.fn(C.byref(case.a), None); torch.cuda.synchronize()
        if r: self.ok(False, case.tag + f": cuda error {r}")
        return r

    def run(self, *a, **k):
        case = Case(*a, **k); n = case.scratch(self.lib)
        if case.split: self.ok(n > 0, case.tag + ": not split")
        if self.launch(case): return case
        self.compare(case)
        self.ok(case.ticket.tolist() == [0, 0], case.tag + " ticket")
        return case


def refused(c, **k):
    """The kernel says so instead of computing something else."""
    case = Case([100], [100], **k); r = c.fn(C.byref(case.a), None); torch.cuda.synchronize()
    c.ok(r == 801 and bool(case.o.isnan().all()), case.tag + f": taken ({r})")


def shapes(c, d, dt, B):
    k = dict(d=d, dt=dt, B=B)
    c.run([1024], [1024], H=4, Hk=1, **k)
    c.run([1000], [1000], **k)
    c.run([700], [1000], H=2, Hk=2, density=.5, **k)
    c.run([1537], [2049], H=6, density=.3, empty=.2, init=True, **k)
    c.run([2048], [2048], H=8, Hk=1, density=.1, init=True, **k)
    c.run([1], [1], H=2, Hk=1, **k)
    c.run([5], [133], H=2, Hk=1, init=True, **k)
    c.run([128], [4096], H=2, Hk=1, density=.5, split=True, **k)
    c.run([15], [9000], H=8, Hk=1, split=True, init=True, **k)
    c.run([300], [6000], H=2, Hk=1, density=.6, empty=.3, split=True, init=True, **k)
    c.run([200], [500], q_start=[131], density=.5, **k)  # keys after the last query
    c.run([1000], [1500], density=.3, full=1, **k)
    c.run([1000], [1500], density=.3, full=0, **k)
    c.run([1000], [3500], H=2, density=.3, full=1, split=True, **k)


def batches(c, d, dt, B, pages, H=4, Hk=2):
    for page in pages:
        c.run([300, 515, 1], [700, 515, 2100], H=H, Hk=Hk, d=d, dt=dt, B=B, density=.5, page=page, tail=77)
    c.run([300, 40, 7], [3000, 40, 9000], H=H, Hk=Hk, d=d, dt=dt, B=B, density=.5, page=pages[-1], tail=77, split=H == 4, init=True, empty=.1)


def poison(c, d, dt, B):
    """What is not finite in V, K and Q, in a query's own block and elsewhere."""
    for where, what in (("v", nan), ("v", math.inf), ("v", -math.inf), ("k", nan), ("q", nan)):
        for split in (False, True):
            case = Case([333], [5000 if split else 1000], H=2, Hk=1, d=d, dt=dt, B=B, density=.7, split=split); case.scratch(c.lib)
            x = getattr(case, where); n = x.shape[0]
            for t in (n - 1, n - 70, n - 200, 130, 0):
                x[t, :, (t * 7) % d] = what
                if where != "q": case.placed[where == "v"][t, :, (t * 7) % d] = what
            if not c.launch(case): c.compare(case, f" {what} in {where}")


def repeats(c, d, dt):
    """The same bits every time, also from a graph; the ticket is left at zero."""
    case = Case([200], [8000], H=2, Hk=1, d=d, dt=dt, density=.7, split=True, init=True); case.scratch(c.lib)
    if c.launch(case): return
    first = case.o.clone(); graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph): r = c.fn(C.byref(case.a), C.c_void_p(torch.cuda.current_stream().cuda_stream))
    for _ in range(5):
        case.o.fill_(nan); graph.replay(); torch.cuda.synchronize()
        c.ok(r == 0 and torch.equal(case.o, first), case.tag + " graph")
    none = Case([1], [1], d=d, dt=dt); none.a.shape.n_qblk = 0
    c.ok(c.launch(none) == 0 and bool(none.o.isnan().all()), "no rows")


def main():
    lib = C.CDLL(sys.argv[1]); lib.prism_attend_scratch_bytes.restype = C.c_size_t
    seed = int(time.time()); torch.manual_seed(seed); failed = 0
    names = sys.argv[2:] or (["sm90"] if torch.cuda.get_device_capability() == (9, 0) else []) + ["sm80", "any", "cuda"]
    for name in names:
        c = Checker(lib, name); tensor = name in ("sm90", "sm80")
        for d in {"sm90": (128, 64, 256), "sm80": (128, 64), "any": (128, 80), "cuda": (128, 72)}[name]:
            for dt in (bf, hf) if tensor else (bf, hf, f32):
                for B in (128, 64):
                    shapes(c, d, dt, B)
                    poison(c, d, dt, B)
        batches(c, 128, bf, 128, (0, 8, 16, 64, 128, 256) if name == "sm90" else (0, 1, 16, 64, 128))
        batches(c, 64, hf, 64, (0, 16, 64))
        batches(c, 128, bf, 128, (0, 64), H=32, Hk=8)  # more rows than multiprocessors
        c.run([4000], [4100], H=16, density=.2, init=True)
        c.run([4000], [4100], H=16, B=64)
        repeats(c, 128, bf)
        if tensor:
            refused(c, dt=f32); refused(c, d=72); refused(c, scale=-.1); refused(c, scale=0.); refused(c, pad=3); refused(c, density=.5, keys=.1)
        else:
            for dt in (bf, hf, f32):
                for d in (1, 33, 96, 192, 256): c.run([200], [333], d=d, dt=dt, density=.5, pad=d % 4)
                for scale in (-.2, 0., 3.): c.run([200], [333], dt=dt, scale=scale, density=.5, init=True)
                for B in (128, 64): c.run([500], [1333], dt=dt, B=B, density=.2, keys=.1, empty=.2, init=True); c.run([100], [4000], H=1, Hk=1, dt=dt, B=B, density=.5, keys=.1, split=True)
            batches(c, 40, f32, 64, (0, 1, 7))
        print(f"{name}: {c.n} checks, {'FAILED %d' % c.failed if c.failed else 'ok'}, worst {c.worst:.2e}; seed {seed}", flush=True)
        failed += c.failed
    if "cuda" in names:  # the choice
        best = 0 if torch.cuda.get_device_capability() == (9, 0) else 1
        for want, k in ((best, {}), (best, dict(page=16)), (1, dict(page=1)), (2, dict(dt=f32)), (2, dict(scale=-1.))):
            case = Case([300], [300], **k); got = C.c_int32(-1); lib.prism_attend_cuda(C.byref(case.a), None, C.byref(got)); torch.cuda.synchronize()
            if got.value != want: failed += 1; print(f"  FAIL choice {case.tag}: {got.value}")
    return failed

if __name__ == "__main__": sys.exit(1 if main() else 0)
