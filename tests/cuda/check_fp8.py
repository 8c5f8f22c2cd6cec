"""Attention with products of 8 bits, against float64 and against float64 on the same 8-bit numbers.

    python3 tests/cuda/check_fp8.py BUILD/libprismattn_cuda.so

Exit status 1 if a check failed."""
import ctypes as C, math, sys, time, torch
from check_attend import Case, Checker, bf, hf, f32, i32, nan, rand, repeats
from prismcu import *

# ||o - ref|| / ||ref|| for random inputs: rounding to 4 significant bits is 2.6 % root mean square (P, V); Q and K move scores
# (deviation 2) by 2 * 2.6 % * sqrt(2), weights by 7.4 %: 8.3 % in all
EXACT = .11
# the same numbers of 8 bits: tensor cores sum with some 14 bits, so that scores differ by 2^-10 and one weight in a hundred rounds to
# its other neighbour (up to 12 %): 1 %, and more where few queries, or few blocks of large values, leave nothing to average
SAME, ONE = .015, .12
# weights and values all alike: of a product's 8 bits 3 lie below what a sum over 8 tiles keeps; half of their range is lost
ALIKE = 2 ** -6
TOP, SLACK, FAR, NONE = 8.8, 2., -60., -10000.
up = lambda x: x.clamp(-448, 448).to(torch.float8_e4m3fn).double()

def exponent(x, dims):
    """Of the scale: power of two that brings the largest finite number into (224, 448]."""
    m = x.where(x.isfinite(), torch.zeros_like(x)).abs().amax(dims, keepdim=True); e = torch.ceil(torch.log2(m.clamp(min=1e-300) / 448)).clamp(min=-60)
    return e, m == 0

def blocks(x):
    return torch.nn.functional.pad(x, (0, 0, 0, -x.shape[0] % 128)).view(-1, 128, x.shape[1])

def emulate(case, i, h):
    """o of sequence i, head h (float64), as the kernel computes: tiles from the last to the first, whole rows."""
    q = case.q[case.row[i]:case.row[i + 1], h].double(); k, v = (blocks(x[case.kv_row[i]:case.kv_row[i + 1], h * case.Hk // case.H].double()[:case.q_start[i] + case.n_q[i]]) for x in (case.k, case.v))
    pos = torch.arange(len(q), device="cuda") + case.q_start[i]; see = case.mask[i, h][pos // 128 - case.q_start[i] // 128]
    at = pos % 128 // (256 // case.d) + pos // 128 * 128; rows_of = torch.zeros(int(at.max()) + 1, case.d, dtype=torch.float64, device="cuda")
    size = q.abs().where(q.isfinite(), torch.zeros_like(q)); rows_of.scatter_reduce_(0, at[:, None].expand(-1, case.d), size, "amax")
    eq, eqz = exponent(rows_of[at], 1); ek, ekz = exponent(k, (1, 2)); ev, evz = exponent(v, (1, 2))
    eq[eqz] = 0; ek[ekz] = 0; ev[evz] = NONE
    scale_v = torch.where(evz, torch.ones_like(ev), 2 ** ev); q, k, v = up((q / 2 ** eq).float()), up((k / 2 ** ek).float()), up((v / scale_v).float())
    n, d = q.shape; o = torch.zeros(n, d, dtype=torch.float64, device="cuda"); l = torch.zeros(n, 1, dtype=torch.float64, device="cuda")
    m = torch.full((n, 1), -math.inf, dtype=torch.float64, device="cuda"); top = torch.full((n, 1), NONE, dtype=torch.float64, device="cuda")
    for t in range(len(k) - 1, -1, -1):
        at = see[:, t] if t < see.shape[1] else torch.zeros(n, dtype=torch.bool, device="cuda"); at = at & (pos >= t * 128)
        if not at.any(): continue
        x = q[at] @ k[t].T * (case.scale * 1.4426950408889634 * 2 ** eq[at] * 2 ** ek[t])
        x = x.masked_fill(t * 128 + torch.arange(128, device="cuda") > pos[at, None], -math.inf)
        new = torch.maximum(top[at], ev[t].expand_as(top[at])); below = (ev[t] - new).clamp(min=FAR); a = x.amax(1, keepdim=True)
        a = torch.where(a - m[at] <= SLACK, m[at], a); moved = torch.exp2(m[at] - a)
        w = torch.exp2(x - a + (TOP - SLACK) + below); l[at] = l[at] * moved + w.sum(1, keepdim=True) * torch.exp2(-below)
        o[at] = o[at] * moved * torch.exp2(top[at] - new) + up(w.float()) @ v[t]; m[at], top[at] = a, new
    return torch.where(l > 0, o * torch.exp2(top) / l, 0.)


class Eight(Checker):
    worst_same = 0.

    def __init__(self, lib):
        super().__init__(lib, "sm90"); self.name, self.fn = "fp8", fp8(lib)

    def compare(self, case, tag="", exact=EXACT, same=SAME):
        o, lse = case.reference(); got = case.o.double()
        self.ok(bool((got.isfinite() == o.isfinite()).all()), case.tag + tag + f": not finite where it should be, or the reverse: {(got.isfinite() != o.isfinite()).sum().item()} of {o.numel()}")
        fine = o.isfinite() & got.isfinite()
        if exact: e = rel(got[fine], o[fine]) if o[fine].any() else got[fine].abs().sum().item(); self.worst = max(self.worst, e); self.ok(e < exact, case.tag + tag + f": {e:.2e}")
        there = lse.isfinite(); l = case.lse.double()
        self.ok(torch.equal(l.isfinite(), there), case.tag + tag + " lse not finite")
        if there.any(): e = (l - lse)[there].abs().max().item(); self.ok(e < .5, case.tag + tag + f" lse {e:.2e}")
        if case.split or case.init or not same: return
        for i in range(len(case.n_q)):
            for h in range(case.H):
                x, g = emulate(case, i, h), got[case.row[i]:case.row[i + 1], h]; f = x.isfinite() & g.isfinite() & o[case.row[i]:case.row[i + 1], h].isfinite()
                if not x[f].any(): continue
                e = rel(g[f], x[f]); self.worst_same = max(self.worst_same, e); self.ok(e < max(same, ONE / len(x) ** .5), case.tag + tag + f" sequence {i} head {h}: {e:.2e} from the same 8-bit numbers")


def shapes(c, d, dt):
    k = dict(d=d, dt=dt)
    c.run([1024], [1024], H=4, Hk=1, **k)
    c.run([1000], [1000], **k)
    c.run([700], [1000], H=2, Hk=2, density=.5, **k)
    c.run([1537], [2049], H=6, density=.3, empty=.2, init=True, **k)
    c.run([2048], [2048], H=8, Hk=1, density=.1, **k)
    c.run([1], [1], H=2, Hk=1, **k)
    c.run([5], [133], H=2, Hk=1, init=True, **k)
    c.run([5], [133], H=2, Hk=1, **k)
    c.run([128], [4096], H=2, Hk=1, density=.5, split=True, **k)
    c.run([15], [9000], H=8, Hk=1, split=True, init=True, **k)
    c.run([300], [6000], H=2, Hk=1, density=.6, empty=.3, split=True, init=True, **k)
    c.run([200], [500], q_start=[131], density=.5, **k)
    c.run([1000], [1500], density=.3, full=1, **k)
    c.run([1000], [1500], density=.3, full=0, **k)
    c.run([300], [6000], H=2, Hk=1, density=.6, empty=.3, **k)

def batches(c, d, dt, pages, H=4, Hk=2):
    for page in pages: c.run([300, 515, 1], [700, 515, 2100], H=H, Hk=Hk, d=d, dt=dt, density=.5, page=page, tail=77)
    c.run([300, 40, 7], [3000, 40, 9000], H=H, Hk=Hk, d=d, dt=dt, density=.5, page=pages[-1], tail=77, split=H == 4, init=True, empty=.1)

def change(case, which, f):
    """f on Q, K or V, and where the kernel reads them."""
    x = getattr(case, which); f(x)
    if which != "q": case.placed[which == "v"][:len(x)].copy_(x)

def poison(c, d, dt):
    for where, what in (("v", nan), ("v", math.inf), ("v", -math.inf), ("k", nan), ("k", math.inf), ("q", nan)):
        for split in (False, True):
            case = Case([333], [5000 if split else 1000], H=2, Hk=1, d=d, dt=dt, density=.7, split=split); case.scratch(c.lib); n = len(case.k if where != "q" else case.q)
            def put(x):
                for t in (n - 1, n - 70, n - 200, 130, 0): x[t, :, (t * 7) % d] = what
            change(case, where, put)
            if where == "k": case.k[case.k == math.inf] = nan  # that is what it is in 8 bits
            if not c.launch(case): c.compare(case, f" {what} in {where}")

def scales(c, d, dt):
    """Blocks whose scales differ, up to where values vanish beside others; blocks of zeros."""
    for tag, f, where in (("values 2^-12 .. 2^12", lambda x: x.mul_(2. ** (torch.arange(len(x), device="cuda") // 128 % 25 - 12)[:, None, None]), "v"),
                          ("zeros among the values", lambda x: x.mul_((torch.arange(len(x), device="cuda") // 128 % 3 == 1)[:, None, None]), "v"),
                          ("no values", lambda x: x.zero_(), "v"), ("no keys", lambda x: x.zero_(), "k"), ("no queries", lambda x: x.zero_(), "q"),
                          ("keys 2^-9 .. 1", lambda x: x.mul_(2. ** (torch.arange(len(x), device="cuda") // 128 % 10 - 9)[:, None, None]), "k"),
                          ("queries 2^-9 .. 1", lambda x: x.mul_(2. ** (torch.arange(len(x), device="cuda") % 10 - 9)[:, None, None]), "q")):
        case = Case([700], [5000], H=2, Hk=1, d=d, dt=dt, density=.6); case.scratch(c.lib); change(case, where, f)
        if not c.launch(case): c.compare(case, " " + tag, exact=0, same=2 * SAME)

def long(c, n, n_q=128):
    """Sums over many keys: weights alike, values around 1, where lost bits do not cancel."""
    case = Case([n_q], [n], H=2, Hk=1, q_start=[n - n_q]); change(case, "v", lambda x: x.mul_(.5).add_(1)); change(case, "q", lambda x: x.mul_(.1))
    if c.launch(case): return
    for h in range(2):
        x, g = emulate(case, 0, h), case.o[:, h].double(); e = rel(g, x); e1 = rel(g, case.reference()[0][:, h]); shift = (g / x).mean().item() - 1
        print(f"{n} keys alike: {e:.2e} from the same 8-bit numbers, of it {shift:+.2e} one way; {e1:.2e} from float64")
        c.ok(e < ALIKE, f"long {n}: {e:.2e}")

def refused(c, **k):
    case = Case([100], [100], **k); r = c.fn(C.byref(case.a), None); torch.cuda.synchronize()
    c.ok(r == 801 and bool(case.o.isnan().all()), case.tag + f": taken ({r})")

def main():
    lib = C.CDLL(sys.argv[1]); lib.prism_attend_scratch_bytes.restype = C.c_size_t
    seed = int(time.time()); torch.manual_seed(seed); c = Eight(lib)
    for d in (128, 64):
        for dt in (bf, hf):
            shapes(c, d, dt); poison(c, d, dt); scales(c, d, dt)
    for n in (8192, 131072): long(c, n)
    batches(c, 128, bf, (0, 1, 8, 16, 64, 128, 256)); batches(c, 64, hf, (0, 16, 64)); batches(c, 128, bf, (0, 64), H=32, Hk=8)
    c.run([4000], [4100], H=16, density=.2)
    repeats(c, 128, bf)
    refused(c, dt=f32); refused(c, d=72); refused(c, d=256); refused(c, B=64); refused(c, scale=-.1); refused(c, scale=0.); refused(c, pad=3); refused(c, density=.5, keys=.1)
    print(f"fp8: {c.n} checks, {'FAILED %d' % c.failed if c.failed else 'ok'}, worst {c.worst:.2e}, from the same 8-bit numbers {c.worst_same:.2e}; seed {seed}", flush=True)
    return c.failed

if __name__ == "__main__": sys.exit(1 if main() else 0)
