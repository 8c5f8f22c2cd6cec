"""ctypes view of the moments kernels, and docs/moments.md in float64."""
import ctypes as C, math, torch
from prismcu import B, Shape, View, ptr, shape, view
from prismplan import stream
S = 16  # single tokens of block 0
class Moments(C.Structure):
    _fields_ = [("shape", Shape), ("q", View), ("k", View), ("v", View), ("block_size", C.c_int32), ("k_sum", C.c_void_p),
                ("key", C.c_void_p), ("variance", C.c_void_p), ("value", C.c_void_p), ("log_count", C.c_void_p), ("query_sum", C.c_void_p),
                ("n_query", C.c_void_p), ("n_block_seq", C.c_int64), ("n_done", C.c_int32), ("image", C.c_void_p),
                ("scale", C.c_float), ("keep_sink", C.c_int32), ("keep_own", C.c_int32), ("min_tokens", C.c_int32), ("error", C.c_float),
                ("own_mass", C.c_void_p), ("bitmap", C.c_void_p), ("count", C.c_void_p), ("row_ptr", C.c_void_p), ("index", C.c_void_p),
                ("full", C.c_void_p), ("mean", C.c_int32), ("o", View), ("init_o", C.c_void_p), ("init_lse", C.c_void_p),
                ("lse_stride_seq", C.c_int64), ("lse_stride_token", C.c_int64), ("lse_stride_head", C.c_int64), ("lse_row_start", C.c_void_p)]
class Mom:
    """Memory and arguments. q, k, v: views of shape s; o [token][head][d], seen through o_view, and lse [token][head]."""
    def __init__(self, lib, s, q, k, v, o_view, o, lse, error=.02, sink=0, own=1, min_tokens=0, scale=None, mean=0):
        lib.prism_moments_image_bytes.restype = lib.prism_moments_own_floats.restype = C.c_int64
        self.lib, self.s, d, nr = lib, s, s.d_head, s.n_seq * s.n_head * s.n_qblk
        f = lambda *a: torch.full(a, float("nan"), device="cuda"); i = lambda n, t=torch.int32: torch.full((n,), -7, dtype=t, device="cuda")
        self.image = torch.full((lib.prism_moments_image_bytes(C.byref(s)),), 0x7f, dtype=torch.uint8, device="cuda")  # NaN
        state = [f(s.n_seq, s.n_kblk, s.n_kv_head, n) for n in (d, d, d // 8, d, 1, d)] + [i(s.n_seq * s.n_kblk * s.n_kv_head)]; self.state = state
        self.own = f(lib.prism_moments_own_floats(C.byref(s)))
        self.bitmap, self.count, self.o, self.lse = i(lib.prism_select_bitmap_words(C.byref(s), B)), i(nr), o, lse
        self.a = Moments(s, q, k, v, B, *(ptr(x) for x in state), s.n_kblk, 0, ptr(self.image), scale or d ** -.5, sink, own, min_tokens, error,
                         ptr(self.own), ptr(self.bitmap), ptr(self.count), None, None, None, mean, o_view, ptr(o), ptr(lse), 0, s.n_head, 1, o_view.row_start)
        self.mem = sum(x.nbytes for x in (self.image, *state, self.own, self.bitmap, self.count)) / 2 ** 20
    def run(self, what="pis"):
        st = stream(); r = 0
        for c, name in zip("pisc", ("pool", "image", "select", "correct")):
            if c in what: r = r or getattr(self.lib, f"prism_moments_{name}_cuda")(C.byref(self.a), st)
        assert r == 0, r
        return self
    def mask(self, b0=0):  # [seq][head][n_qblk][n_kblk] from the bitmap; b0: own block of row 0 where lengths are not on the device
        s = self.s; w = self.bitmap.view(s.n_seq * s.n_head, -1); ragged = s.n_kv_of is not None or s.n_q_of is not None
        tri = lambda b: 16 * (b // 32) * (b // 32 + 1) + b % 32 * (b // 32 + 1)
        m = torch.zeros(s.n_seq * s.n_head, s.n_qblk, (s.n_kblk + 31) // 32 * 32, dtype=torch.bool, device="cuda")
        for u in range(s.n_qblk):
            n = m.shape[2] // 32 if ragged else (b0 + u) // 32 + 1; x = w[:, u * n:u * n + n] if ragged else w[:, tri(b0 + u) - tri(b0):][:, :n]
            m[:, u, :n * 32] = (x[..., None] >> torch.arange(32, device="cuda", dtype=torch.int32) & 1).view(len(w), -1).bool()
        assert not m[..., s.n_kblk:].any() and torch.equal(m.sum(2).view(-1).int(), self.count)
        return m[..., :s.n_kblk].view(s.n_seq, s.n_head, s.n_qblk, -1)
    def correct(self, mask):  # of a plan of one's own: [seq][head][n_qblk][n_kblk]
        m = mask.reshape(-1, mask.shape[-1]); self.rp = torch.zeros(len(m) + 1, dtype=torch.int64, device="cuda"); self.rp[1:] = m.sum(1).cumsum(0)
        self.index = torch.cat([m.nonzero()[:, 1].int(), torch.zeros(1, dtype=torch.int32, device="cuda")]); self.a.row_ptr, self.a.index = ptr(self.rp), ptr(self.index)
        return self.run("c")
def one(lib, q, k, v, q0, **options):
    n_q, H, d = q.shape; n_kv, Hk = k.shape[:2]
    o = torch.full_like(q, float("nan")); lse = torch.full((n_q, H), float("nan"), device="cuda")
    return Mom(lib, shape(1, H, Hk, d, q.dtype, n_q, n_kv, q0), view(q[None]), view(k[None]), view(v[None]), view(o[None]), o, lse, **options)

def mean_queries(q, Hk, q0, nb):
    """Float64 [block][Hk][d]: of the sampled queries up to each block's end; before the first, those of the first block with one."""
    H, d = q.shape[1:]; pos = torch.arange(len(q), device="cuda") + q0; on = pos % 16 == 15; x = q[on].double().view(-1, Hk, H // Hk, d)
    good = x.isfinite().all(-1, keepdim=True); blocks = max(nb, (len(q) + q0 + B - 1) // B)
    add = lambda y: torch.zeros(blocks, *y.shape[1:], dtype=torch.float64, device="cuda").index_add_(0, pos[on] // B, y).cumsum(0)
    n = add(good.double().sum(2)); total = add(x.masked_fill(~good, 0).sum(2)); first = (n[:, 0, 0] > 0).nonzero()
    if len(first): f = first[0].item(); n[:f] = n[f]; total[:f] = total[f]
    return (total / n.clamp(min=1))[:nb]
def entries(k, v, q, q0, scale):
    """Float64, [Hk][entry]...: logarithms of counts, mean keys, variances by groups of 8, mean values. Block b is entry S + b."""
    n, Hk, d = k.shape; nb = n // B; kb = k[:nb * B].double().view(nb, B, Hk, d).permute(2, 0, 1, 3); vb = v[:nb * B].double().view(nb, B, Hk, d).permute(2, 0, 1, 3)
    far = (kb[:, 0] - kb[:, 0].mean(1, keepdim=True)).square().sum(-1); order = far.argsort(dim=1, descending=True, stable=True)
    take = lambda x, i: x.gather(1, i[..., None].expand(-1, -1, d))
    one_k, one_v, rest_k, rest_v = take(kb[:, 0], order[:, :S]), take(vb[:, 0], order[:, :S]), take(kb[:, 0], order[:, S:]), take(vb[:, 0], order[:, S:])
    r = mean_queries(q, Hk, q0, nb).permute(1, 0, 2)
    def tilted(kk, vv, rr):  # [Hk][block][token][d], [Hk][block][d]
        t = scale * torch.einsum("hbid,hbd->hbi", kk, rr); t = t - t.mean(-1, keepdim=True); t = t * (.8 / t.square().mean(-1, keepdim=True).sqrt()).clamp(max=1)
        p = torch.softmax(t, -1); key = torch.einsum("hbi,hbid->hbd", p, kk)
        return torch.logsumexp(t, -1) - (p * t).sum(-1), key, torch.einsum("hbi,hbid->hbd", p, (kk - key[:, :, None]).square()), torch.einsum("hbi,hbid->hbd", p, vv)
    first, others = tilted(rest_k[:, None], rest_v[:, None], r[:, :1]), tilted(kb[:, 1:], vb[:, 1:], r[:, 1:])
    zero = torch.zeros_like(one_k); ln, K, W, V = [torch.cat(x, 1) for x in zip((zero[..., 0], one_k, zero, one_v), first, others)]
    return ln, K, W.unflatten(-1, (d // 8, 8)).mean(-1), V
def scores(e, q, pos, h, scale, mean=0):
    """Of query rows q [row][d] (float64) at positions pos: L and sigma^2, [row][entry], entries not in the past -inf and 0."""
    ln, K, W, _ = e; s2 = scale ** 2 * (q.square().unflatten(-1, (q.shape[1] // 8, 8)).sum(-1) @ W[h].T)
    b = (torch.arange(ln.shape[1], device="cuda") - S).clamp(min=0); past = b[None] < (pos // B)[:, None]
    L = ln[h] + scale * (q @ K[h].T) + (0 if mean else (s2 / 2).clamp(max=6))
    return L.masked_fill(~past, -math.inf), s2 * past
