"""ctypes view of src/cuda/launch.h, references in float64, random plans."""
import ctypes as C, torch, math

class View(C.Structure):
    _fields_ = [("data", C.c_void_p), ("stride_seq", C.c_int64), ("stride_token", C.c_int64), ("stride_head", C.c_int64),
                ("row_start", C.c_void_p), ("page_table", C.c_void_p), ("stride_table", C.c_int64), ("stride_page", C.c_int64),
                ("n_token", C.c_int64), ("page_size", C.c_int32), ("n_page", C.c_int32)]
class Shape(C.Structure):
    _fields_ = [(n, C.c_int32) for n in "n_seq n_head n_kv_head d_head dtype n_q n_kv q_start n_qblk n_kblk".split()] + \
               [(n, C.c_void_p) for n in "n_q_of n_kv_of q_start_of".split()]
class Attend(C.Structure):
    _fields_ = [("shape", Shape), ("q", View), ("k", View), ("v", View), ("o", View), ("lse", C.c_void_p),
                ("lse_stride_seq", C.c_int64), ("lse_stride_token", C.c_int64), ("lse_stride_head", C.c_int64),
                ("row_ptr", C.c_void_p), ("index", C.c_void_p), ("work", C.c_void_p), ("ticket", C.c_void_p),
                ("scale", C.c_float), ("block_size", C.c_int32), ("key_ptr", C.c_void_p), ("key_index", C.c_void_p),
                ("full", C.c_void_p), ("init_o", C.c_void_p), ("init_lse", C.c_void_p), ("scratch", C.c_void_p),
                ("scratch_bytes", C.c_size_t), ("lse_row_start", C.c_void_p), ("image", C.c_void_p)]
B = 128
DT = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
ptr = lambda t: None if t is None else t.data_ptr()

def view(t):  # t: [seq][token][head][d]
    return View(t.data_ptr(), t.stride(0), t.stride(1), t.stride(2), None, None, 0, 0, t.shape[1], 0, 0)
def ragged(t, start):  # t: [token][head][d]
    return View(t.data_ptr(), 0, t.stride(0), t.stride(1), start.data_ptr(), None, 0, 0, t.shape[0], 0, 0)
def paged(t, table):  # t: [page][token][head][d]
    return View(t.data_ptr(), 0, t.stride(1), t.stride(2), None, table.data_ptr(), table.stride(0), t.stride(0), 0,
                t.shape[1], t.shape[0])
def shape(n_seq, H, Hk, d, dtype, n_q, n_kv, q_start, n_q_of=None, n_kv_of=None, q_start_of=None, n_qblk=None, B=B):
    if n_qblk is None: n_qblk = (q_start + n_q - 1) // B - q_start // B + 1 if n_q else 0
    return Shape(n_seq, H, Hk, d, DT[dtype], n_q, n_kv, q_start, n_qblk, (n_kv + B - 1) // B, ptr(n_q_of), ptr(n_kv_of), ptr(q_start_of))

def plan(n_seq, H, n_qblk, b0, density, gen=None, own=True):
    """Random CSR plan; b0: absolute block of row 0 (int or list per sequence)."""
    b0 = [b0] * n_seq if isinstance(b0, int) else b0
    nk = max(b0) + n_qblk
    rows = []
    for s in range(n_seq):
        b = torch.arange(n_qblk, device="cuda") + b0[s]
        k = torch.arange(nk, device="cuda")
        m = torch.rand(H, n_qblk, nk, device="cuda") < density
        m &= k[None, None, :] <= b[None, :, None]
        m[:, :, 0] = True
        if own: m |= (k[None, :] == b[:, None])[None]
        rows.append(m)
    m = torch.stack(rows).view(-1, nk)
    n = m.sum(1)
    rp = torch.zeros(len(n) + 1, dtype=torch.int64, device="cuda"); rp[1:] = n.cumsum(0)
    idx = m.nonzero()[:, 1].to(torch.int32)
    return m.view(n_seq, H, n_qblk, nk), rp, idx

def work_list(rp, n_seq, H, Hk, n_qblk):
    n = (rp[1:] - rp[:-1]).view(n_seq * Hk, -1)
    order = n.argsort(dim=1, descending=True, stable=True)
    base = torch.arange(n.shape[0], device="cuda")[:, None] * n.shape[1]
    return (order + base).to(torch.int32).reshape(-1).contiguous()

def fp8(lib, image_too=True):
    """A launch function like the others from the two of 8 bits; it keeps the memory of the image."""
    lib.prism_fp8_image_bytes.restype = C.c_size_t; memory = {}
    def launch(a, stream):
        n = lib.prism_fp8_image_bytes(C.byref(a._obj.shape)); new = memory.get("n") != n
        if new: memory.update(n=n, image=torch.full((n,), 127, dtype=torch.uint8, device="cuda"))
        a._obj.image = memory["image"].data_ptr()
        e = lib.prism_fp8_image_cuda(a, stream) if image_too or new else 0
        e = e or lib.prism_attend_fp8(a, stream); a._obj.image = None
        return e
    return launch

def rel(a, b):
    e = ((a.double() - b).norm() / b.norm()).item()
    return e if e == e else float("inf")
