"""ctypes view of pooling, selection and plans, and their references in float64."""
import ctypes as C, math, torch
from prismcu import B, Shape, View, ptr, rel, shape, view

class Pool(C.Structure):
    _fields_ = [("shape", Shape), ("q", View), ("k", View), ("q_split", C.c_void_p), ("k_image", C.c_void_p),
                ("q_energy", C.c_void_p), ("k_energy", C.c_void_p), ("k_sum", C.c_void_p), ("k_sum_stride_seq", C.c_int64),
                ("block_size", C.c_int32), ("n_done", C.c_int32), ("high", C.c_uint32 * 8), ("low", C.c_uint32 * 8)]
class Select(C.Structure):
    _fields_ = [("shape", Shape), ("q_split", C.c_void_p), ("k_image", C.c_void_p), ("q_energy", C.c_void_p), ("k_energy", C.c_void_p),
                ("block_size", C.c_int32), ("n_band", C.c_int32), ("causal", C.c_int32), ("keep_sink", C.c_int32), ("keep_own", C.c_int32),
                ("min_tokens", C.c_int32), ("top_p", C.c_float * 2), ("scale", C.c_float), ("high", C.c_uint32 * 8), ("low", C.c_uint32 * 8),
                ("scratch", C.c_void_p), ("bitmap", C.c_void_p), ("count", C.c_void_p), ("row_ptr", C.c_void_p), ("index", C.c_void_p),
                ("work", C.c_void_p), ("capacity", C.c_int64), ("full", C.c_void_p)]

def bits(dims):
    a = [0] * 8
    for j in dims: a[j // 32] |= 1 << (j % 32)
    return (C.c_uint32 * 8)(*a)
def bands(d):  # half-split, the paper's shares
    h, l = d // 2, d * 3 // 4
    return [*range(h // 2), *range(d // 2, d // 2 + h // 2)], [*range(d // 2 - l // 2, d // 2), *range(d - l // 2, d)]
def load(path):
    lib = C.CDLL(path)
    lib.prism_select_bitmap_words.restype = lib.prism_key_image_bytes.restype = lib.prism_select_scratch_bytes.restype = C.c_int64
    return lib
def stream(): return C.c_void_p(torch.cuda.current_stream().cuda_stream)

class Plan:
    """Memory and arguments of one estimation. q, k: views; s: their shape."""
    def __init__(self, lib, s, q, k, p=.95, causal=1, BS=B, cap=None, n_band=2, sink=1, own=1, min_tokens=0, keep_sum=False):
        self.lib, self.s = lib, s
        n, H, Hk, d, nr = s.n_seq, s.n_head, s.n_kv_head, s.d_head, s.n_seq * s.n_head * s.n_qblk
        f = lambda *a: torch.full(a, float("nan"), device="cuda")
        i = lambda m, t=torch.int32: torch.full((m,), -7, dtype=t, device="cuda")
        self.q_split, self.k_image, self.k_sum = f(n, s.n_qblk, H, d), f(lib.prism_key_image_bytes(C.byref(s)) // 4), f(n, s.n_kblk, Hk, d) if keep_sum else None
        self.qe, self.ke = f(n, H, s.n_qblk, 4), f(n, Hk, s.n_kblk, 4)
        self.bitmap, self.count = i(lib.prism_select_bitmap_words(C.byref(s), BS)), i(nr)
        self.row_ptr, self.work, self.full = i(nr + 1, torch.int64), i(nr), i(1)
        self.scratch = i(lib.prism_select_scratch_bytes(C.byref(s)) // 4)
        self.cap = nr * s.n_kblk if cap is None else cap
        self.index = i(self.cap + 8)  # 8 more, to see that nothing is written there
        hi, lo = bands(d) if n_band == 2 else (range(d), ())
        self.pool = Pool(s, q, k, ptr(self.q_split), ptr(self.k_image), ptr(self.qe), ptr(self.ke), ptr(self.k_sum), s.n_kblk * Hk * d,
                         BS, 0, bits(hi), bits(lo))
        self.sel = Select(s, ptr(self.q_split), ptr(self.k_image), ptr(self.qe), ptr(self.ke), BS, n_band, causal, sink, own, min_tokens,
                          (C.c_float * 2)(p, p), d ** -.5, bits(hi), bits(lo), ptr(self.scratch), ptr(self.bitmap), ptr(self.count), ptr(self.row_ptr), ptr(self.index),
                          ptr(self.work), self.cap, ptr(self.full))
        self.mem = sum(x.nbytes for x in (self.q_split, self.k_image, self.qe, self.ke, self.scratch, self.bitmap, self.count)) / 2 ** 20
    def run(self, what="pse"):
        st = stream(); r = 0
        if "p" in what: r = r or self.lib.prism_pool_cuda(C.byref(self.pool), st)
        if "s" in what: r = r or self.lib.prism_select_cuda(C.byref(self.sel), st)
        if "e" in what: r = r or self.lib.prism_plan_emit_cuda(C.byref(self.sel), st)
        assert r == 0, r
        return self
    def means(self):  # split.cuh has the order
        s = self.s; n, Hk, d, nb = s.n_seq, s.n_kv_head, s.d_head, s.n_kblk; ni = (nb + 63) // 64
        q = self.q_split.view(torch.float16).double().view(*self.q_split.shape[:-1], -1, 2, 4).sum(-2).reshape(self.q_split.shape)
        image = self.k_image.view(n, Hk, ni, -1); scale = image[..., -64:].reshape(n, Hk, -1)[..., :nb]
        k = image[..., :-64].contiguous().view(torch.float16).double().view(n, Hk, ni, d // 16, 2, 2, 64, 4, 2).sum(4)  # chunk, half, block, four dimensions, one of two
        k = k.permute(0, 2, 5, 1, 3, 6, 4, 7).reshape(n, ni * 64, Hk, d)[:, :nb]
        assert torch.equal(scale, self.ke[..., 3])
        return q * self.qe[..., 3].double().transpose(1, 2)[..., None], k * scale.double().transpose(1, 2)[..., None]
    def mask(self):  # from the lists
        s = self.s; n = self.row_ptr[1:] - self.row_ptr[:-1]
        assert int(self.row_ptr[-1]) <= self.cap and (self.index[self.cap:] == -7).all()
        row = torch.repeat_interleave(torch.arange(len(n), device="cuda"), n); index = self.index[:len(row)].long()
        m = torch.zeros(len(n), s.n_kblk, dtype=torch.int32, device="cuda")
        m.view(-1).index_add_(0, row * s.n_kblk + index, torch.ones_like(row, dtype=torch.int32))
        assert m.max() <= 1 and ((index[1:] > index[:-1]) | (row[1:] != row[:-1])).all()
        return m.view(s.n_seq, s.n_head, s.n_qblk, s.n_kblk).bool()
    def work_ok(self):
        s = self.s; w = self.work.long().view(s.n_seq * s.n_kv_head, -1); c = self.count[w]
        return bool((c[:, 1:] <= c[:, :-1]).all()) and bool((w.sort(1)[0].view(-1) == torch.arange(w.numel(), device="cuda")).all())

def blocky(n, h, d, amp=1.5, dt=torch.bfloat16):
    """[n][h][d]: noise around a random mean of each block."""
    x = torch.randn((n + B - 1) // B, 1, h, d, device="cuda").mul_(amp).to(dt).expand(-1, B, -1, -1).reshape(-1, h, d)[:n].contiguous()
    for i in range(0, n, 16384): x[i:i + 16384] += torch.randn_like(x[i:i + 16384])
    return x
def whole(lib, q, k, q0, BS=B, **options):
    """Plan of one sequence, q [n_q][H][d], k [n_kv][Hk][d]."""
    n_q, H, d = q.shape; n_kv, Hk = k.shape[:2]
    s = shape(1, H, Hk, d, q.dtype, n_q, n_kv, q0)
    s.n_qblk, s.n_kblk = (q0 + n_q - 1) // BS - q0 // BS + 1, (n_kv + BS - 1) // BS
    return Plan(lib, s, view(q[None]), view(k[None]), BS=BS, **options)

def mean_of(x, off, BS, n_blk):  # block sums and means in float64
    blk = (torch.arange(x.shape[0], device="cuda") + off) // BS - off // BS
    z = torch.zeros(n_blk, *x.shape[1:], dtype=torch.float64, device="cuda").index_add_(0, blk, x.double())
    c = torch.zeros(n_blk, dtype=torch.float64, device="cuda").index_add_(0, blk, torch.ones(len(blk), dtype=torch.float64, device="cuda"))
    return z, z / c[:, None, None]
def plan_of(qm, km, b0, p, causal, n_band=2, sink=1, own=1):
    """Mask [H][n_qblk][n_kblk] of one sequence, and how far each cell is from the cut."""
    nq, H, d = qm.shape; nk, Hk = km.shape[:2]
    mine = torch.arange(nq, device="cuda") + b0; vis = torch.arange(nk, device="cuda")[None] <= mine[:, None]
    ref = torch.zeros(H, nq, nk, dtype=torch.bool, device="cuda"); dist = torch.full(ref.shape, 9., device="cuda", dtype=torch.float64)
    energy = lambda x, D: (x[:, D] ** 2).sum(1)
    everything = list(range(d))
    for h in range(H):
        a, b = qm[:, h], km[:, h // (H // Hk)]
        for D in bands(d) if n_band == 2 else (everything,):
            if n_band == 1: f = torch.ones((), dtype=torch.float64, device="cuda")
            elif causal: f = ((energy(a, everything) / energy(a, D)) * (energy(b, everything).cumsum(0) / energy(b, D).cumsum(0))[mine])[:, None]
            else: f = (energy(a, everything).sum() / energy(a, D).sum()) * (energy(b, everything).sum() / energy(b, D).sum())
            w = torch.softmax(((a[:, D] @ b[:, D].T) * f.sqrt() / math.sqrt(d)).masked_fill(~vis, -math.inf), 1)
            o = w.argsort(dim=1, descending=True, stable=True); ws = w.gather(1, o)
            before = torch.empty_like(w).scatter_(1, o, ws.cumsum(1) - ws)
            ref[h] |= (before < p) & vis
            cut = torch.where(before < p, w, 9.).min(1, keepdim=True)[0]
            dist[h] = torch.minimum(dist[h], torch.minimum((before - p).abs(), (w / cut - 1).abs()))
        if sink: ref[h, :, 0] = True
        if own: ref[h][torch.arange(nq, device="cuda"), mine] = True
    return ref, dist, vis

def graph_time(fn, reps=20):  # ms, median
    fn(); torch.cuda.synchronize(); g = torch.cuda.CUDAGraph()
    with torch.cuda.graph(g): fn()
    for _ in range(3): g.replay()
    ev = [torch.cuda.Event(enable_timing=True) for _ in range(2 * reps)]
    for i in range(reps): ev[2 * i].record(); g.replay(); ev[2 * i + 1].record()
    torch.cuda.synchronize()
    return sorted(ev[2 * i].elapsed_time(ev[2 * i + 1]) for i in range(reps))[reps // 2]
