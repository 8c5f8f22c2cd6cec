#!/usr/bin/env python3
"""Causal attention by this library and by others, over the same Q, K, V and the same plans, in turns within one run.

    bench/peers/gpu.py --lengths 8K,32K,128K --densities 1,0.1,0.05           random plans on noise
    bench/peers/gpu.py --tensors qkv.safetensors --densities 1,own            the plan that --method makes of real Q, K
    bench/peers/gpu.py --device cpu --lengths 4K --threads 1 --cpu-time       PyTorch's attention on the CPU

A cell is milliseconds, TFLOP/s and the plan's density in percent: the median of --reps turns, and 4 d operations for
each query and key of the causal half, times the density. "-": that library has no block-sparse attention. The library
is called through the package prism_attn (PYTHONPATH=integrations/python, PRISM_ATTN_LIBRARY=build/libprismattn.so).
Each peer's output is compared with a float32 reference on a short prompt before it is timed; a peer that is not
installed, fails or differs is named below the table with the reason.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import statistics
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

BLOCK = 128
CHECKED_TOKENS = 1024
# Of a row's length. Weights and results are rounded to the type: four roundings, twice that for chance. One block too
# many or too few changes rows of noise by far more.
TOLERANCE = {torch.float32: 2.0**-14, torch.float16: 2.0**-9, torch.bfloat16: 2.0**-6}
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}

Run = Callable[[], torch.Tensor]


@dataclass
class Case:
    """One prompt. q [1, n, n_head, d], k and v [1, n, n_kv_head, d]; mask: the plan, bool [1, n_head, blocks, blocks],
    or None for full attention."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    mask: torch.Tensor | None

    @property
    def density(self) -> float:
        if self.mask is None:
            return 1.0
        n_head, n = self.mask.shape[1:3]
        return int(self.mask.sum()) / (n_head * n * (n + 1) / 2)

    @property
    def flop(self) -> float:
        _, n, n_head, d = self.q.shape
        return 4 * d * n_head * n * n / 2 * self.density


# ---------------------------------------------------------------------------------------------------- plans ----


def random_mask(n_head: int, n_block: int, density: float, seed: int) -> torch.Tensor:
    """bool [1, n_head, n_block, n_block]: the first and the own block of every row, and as many random others as bring
    a head's rows to the density, where two blocks a row do not exceed it."""
    wanted, listed, counts = 0.0, 0, []
    for u in range(n_block):
        wanted += density * (u + 1)
        counts.append(min(max(round(wanted) - listed, min(u + 1, 2)), u + 1))
        listed += counts[-1]
    chosen = torch.arange(n_block) < torch.tensor(counts)[:, None]
    later = torch.ones(n_block, n_block, dtype=torch.bool).triu(1)
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(1, n_head, n_block, n_block, dtype=torch.bool)
    for h in range(n_head):
        rank = torch.rand(n_block, n_block, generator=generator).masked_fill_(later, -1)
        rank[:, 0] = 2
        rank.fill_diagonal_(2)
        mask[0, h].scatter_(1, rank.argsort(-1, descending=True), chosen)
    return mask


def block_lists(mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A plan as FlashAttention-4 and FlexAttention take it: (mask_block_cnt, mask_block_idx, full_block_cnt,
    full_block_idx), int32 [b, h, row] and [b, h, row, block].

    A row's own block holds the diagonal, so it is the one that the kernels mask; all other blocks are read in full.
    Indices ascend; zeros fill the rest. A whole prompt: as many rows as blocks.
    """
    n = mask.shape[-1]
    if mask.shape[-2] != n:
        raise ValueError(f"a plan of {mask.shape[-2]} rows over {n} blocks is not of a whole prompt")
    own = torch.eye(n, dtype=torch.bool, device=mask.device)

    def pack(part: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        count = part.sum(-1, dtype=torch.int32)
        index = part.to(torch.uint8).argsort(dim=-1, descending=True, stable=True).to(torch.int32)
        return count, index.masked_fill_(torch.arange(n, device=mask.device) >= count[..., None], 0)

    return *pack(mask & own), *pack(mask & ~own)


# ---------------------------------------------------------------------------------------------------- peers ----


@dataclass
class Peer:
    """A library. Each function prepares a case outside of the time and returns the call that is timed, whose output is
    [1, n, n_head, d]."""

    name: str
    version: str
    full: Callable[[Case], Run]
    sparse: Callable[[Case], Run] | None = None


def prism_peer() -> Peer:
    import prism_attn

    def full(c: Case) -> Run:
        return lambda: prism_attn.attention(c.q, c.k, c.v, method="dense", layout="bnhd")

    def sparse(c: Case) -> Run:
        plan = prism_attn.plan_from_mask(c.mask, c.q, c.k, block_size=BLOCK, layout="bnhd")
        return lambda: prism_attn.attention(c.q, c.k, c.v, plan=plan, layout="bnhd")

    return Peer("prism-attn", prism_attn.__version__, full, sparse)


def sdpa_peer(name: str, version: str, backend: str | None) -> Peer:
    """PyTorch's attention, by one of its backends (None: its own choice)."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def full(c: Case) -> Run:
        q, k, v = (x.transpose(1, 2) for x in (c.q, c.k, c.v))

        def run() -> torch.Tensor:
            out = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
            return out.transpose(1, 2)

        def run_by_backend() -> torch.Tensor:
            with sdpa_kernel([getattr(SDPBackend, backend)]):
                return run()

        return run_by_backend if backend else run

    return Peer(name, version, full)


def cudnn_peer() -> Peer:
    version = torch.backends.cudnn.version()
    if not version:
        raise RuntimeError("PyTorch is without cuDNN")
    return sdpa_peer("cuDNN", f"{version // 10000}.{version // 100 % 100}.{version % 100}", "CUDNN_ATTENTION")


def flash2_peer() -> Peer:
    return sdpa_peer("FlashAttention-2", f"torch {torch.__version__}", "FLASH_ATTENTION")


def flash4_peer() -> Peer:
    """The first call of each shape compiles for about ten seconds."""
    from flash_attn.cute.block_sparsity import BlockSparseTensorsTorch
    from flash_attn.cute.interface import _flash_attn_fwd

    def full(c: Case) -> Run:
        return lambda: _flash_attn_fwd(c.q, c.k, c.v, causal=True)[0]

    def sparse(c: Case) -> Run:
        lists = BlockSparseTensorsTorch(*block_lists(c.mask), block_size=(BLOCK, BLOCK))
        return lambda: _flash_attn_fwd(c.q, c.k, c.v, causal=True, block_sparse_tensors=lists)[0]

    return Peer("FlashAttention-4", importlib.metadata.version("flash-attn-4"), full, sparse)


def flex_peer() -> Peer:
    from torch.nn.attention.flex_attention import BlockMask, flex_attention

    compiled = torch.compile(flex_attention, dynamic=False)

    def causal(_b, _h, q_index, kv_index):
        return q_index >= kv_index

    def sparse(c: Case) -> Run:
        q, k, v = (x.transpose(1, 2) for x in (c.q, c.k, c.v))
        n = q.shape[2]
        blocks = BlockMask.from_kv_blocks(*block_lists(c.mask), BLOCK_SIZE=BLOCK, mask_mod=causal, seq_lengths=(n, n))
        return lambda: compiled(q, k, v, block_mask=blocks, enable_gqa=True).transpose(1, 2)

    def full(c: Case) -> Run:
        n = math.ceil(c.q.shape[1] / BLOCK)
        every = torch.ones(1, 1, n, n, dtype=torch.bool, device=c.q.device).tril()
        return sparse(Case(c.q, c.k, c.v, every))

    return Peer("FlexAttention", f"torch {torch.__version__}", full, sparse)


MAKERS = {
    "cuda": {"prism": prism_peer, "fa4": flash4_peer, "cudnn": cudnn_peer, "fa2": flash2_peer, "flex": flex_peer},
    "cpu": {"prism": prism_peer, "sdpa": lambda: sdpa_peer("PyTorch SDPA", torch.__version__, None)},
}


def reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"


def sift(peers: dict[str, Callable[[], Peer]]) -> tuple[list[Peer], dict[str, str]]:
    """The peers that come back, and why the others do not: a broken installation raises anything."""
    good, problems = [], {}
    for name, get in peers.items():
        try:
            good.append(get())
        except Exception as error:
            problems[name] = reason(error)
    return good, problems


def load_peers(device: str, wanted: list[str]) -> tuple[list[Peer], dict[str, str]]:
    """The peers that can be had, and why the others cannot."""
    return sift({name: MAKERS[device][name] for name in wanted})


# --------------------------------------------------------------------------------------------------- checks ----


def reference(c: Case) -> torch.Tensor:
    """float32, every score kept in memory."""
    n, group = c.q.shape[1], c.q.shape[2] // c.k.shape[2]
    q = c.q.float().transpose(1, 2)
    k, v = (x.float().transpose(1, 2).repeat_interleave(group, 1) for x in (c.k, c.v))
    seen = torch.ones(n, n, dtype=torch.bool, device=q.device).tril()
    if c.mask is not None:
        seen = seen & c.mask.repeat_interleave(BLOCK, -1).repeat_interleave(BLOCK, -2)[..., :n, :n].to(q.device)
    scores = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).masked_fill(~seen, -torch.inf)
    return (scores.softmax(-1) @ v).transpose(1, 2)


def row_error(got: torch.Tensor, want: torch.Tensor) -> float:
    """The largest distance of a row, relative to its length; NaN if there is one."""
    return float(((got.float() - want).norm(dim=-1) / want.norm(dim=-1)).max())


def check(peers: list[Peer], cases: list[Case]) -> tuple[list[Peer], dict[str, str]]:
    """The peers whose output is right on a full and on a sparse case, and what is wrong with the others."""

    def checked(peer: Peer) -> Peer:
        for c in cases:
            prepare = peer.full if c.mask is None else peer.sparse
            off = row_error(prepare(c)(), reference(c)) if prepare else 0.0
            if not off <= TOLERANCE[c.q.dtype]:
                raise ArithmeticError(f"rows are off by {off:.1e} at density {c.density:.2f}")
        return peer

    return sift({peer.name: partial(checked, peer) for peer in peers})


# --------------------------------------------------------------------------------------------------- timing ----


def timed_on_gpu(run: Run) -> float:
    """Seconds between two events. The GPU sleeps for about two milliseconds first, in which Python launches everything:
    Python's own time does not count."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(4_000_000)
    start.record()
    run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) * 1e-3


def timed_on_cpu(run: Run, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds by the clock."""
    start = clock()
    run()
    return clock() - start


def measure(runs: dict[str, Run], reps: int, timed: Callable[[Run], float]) -> dict[str, list[float]]:
    """Seconds of each run, in turns, after one round to warm up."""
    for run in runs.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(reps):
        for name, run in runs.items():
            seconds[name].append(timed(run))
    return seconds


def measure_case(peers: list[Peer], c: Case, reps: int, timed: Callable[[Run], float]) -> list[dict]:
    """A row for each peer that can do the case."""
    runs = {p.name: (p.full if c.mask is None else p.sparse)(c) for p in peers if c.mask is None or p.sparse}
    rows = []
    for name, seconds in measure(runs, reps, timed).items():
        median = statistics.median(seconds)
        rows.append({
            "peer": name, "tokens": c.q.shape[1], "density": c.density, "seconds": median, "seconds_min": min(seconds),
            "seconds_max": max(seconds), "repetitions": reps, "tflops": c.flop / median * 1e-12,
        })  # fmt: skip
    return rows


# ---------------------------------------------------------------------------------------------------- input ----


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors q, k and v, [heads][tokens][d]."""
    types = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    data = bytearray(path.read_bytes())
    (n,) = struct.unpack_from("<Q", data)
    header, tensors = json.loads(data[8 : 8 + n]), {}
    for name in "qkv":
        entry = header[name]
        begin, end = entry["data_offsets"]
        flat = torch.frombuffer(data[8 + n + begin : 8 + n + end], dtype=types[entry["dtype"]])
        tensors[name] = flat.reshape(entry["shape"])
    return tensors


def noise(args: argparse.Namespace, n: int, n_head: int, n_kv_head: int) -> list[torch.Tensor]:
    generator = torch.Generator(args.device).manual_seed(args.seed)
    heads = (n_head, n_kv_head, n_kv_head)
    shapes = ((1, n, h, args.d) for h in heads)
    return [torch.randn(s, generator=generator, device=args.device).to(DTYPES[args.dtype]) for s in shapes]


def own_mask(args: argparse.Namespace, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    import prism_attn

    plan = prism_attn.plan(q, k, method=args.method, rope=args.rope_base, block_size=BLOCK, layout="bnhd", min_tokens=0)
    return torch.from_numpy(plan.mask())


def make_case(args: argparse.Namespace, qkv: list[torch.Tensor], density: str) -> Case:
    """density: "1" for full attention, "own" for the plan of --method, else a random plan's."""
    q, k, v = qkv
    if density == "own":
        return Case(q, k, v, own_mask(args, q, k).to(q.device))
    if float(density) == 1:
        return Case(q, k, v, None)
    mask = random_mask(q.shape[2], math.ceil(q.shape[1] / BLOCK), float(density), args.seed)
    return Case(q, k, v, mask.to(q.device))


def read_inputs(args: argparse.Namespace) -> dict[str, torch.Tensor]:
    """The saved tensors, whose heads and d then hold for noise, too; nothing without --tensors."""
    if not args.tensors:
        args.lengths = args.lengths or [8192, 32768, 131072]
        return {}
    saved = read_safetensors(args.tensors)
    args.heads, n_saved, args.d = saved["q"].shape
    args.kv_heads = saved["k"].shape[0]
    args.lengths = args.lengths or [n_saved]
    if max(args.lengths) > n_saved:
        raise SystemExit(f"gpu.py: {args.tensors} has {n_saved} tokens, {max(args.lengths)} are wanted")
    return saved


def make_inputs(args: argparse.Namespace, saved: dict[str, torch.Tensor], n: int) -> list[torch.Tensor]:
    """q, k and v of n tokens: the saved ones' first, or noise."""
    if not saved:
        return noise(args, n, args.heads, args.kv_heads)
    return [saved[x][:, :n].transpose(0, 1).contiguous()[None].to(args.device, DTYPES[args.dtype]) for x in "qkv"]


# --------------------------------------------------------------------------------------------------- output ----


def length_text(n: int) -> str:
    return f"{n // 1024}K" if n % 1024 == 0 else str(n)


def table(report: dict) -> str:
    """A line for each peer, a column for each case; then what was not timed."""
    columns = list(dict.fromkeys((r["tokens"], r["case"]) for r in report["results"]))
    cells = {
        (r["peer"], r["tokens"], r["case"]): f"{r['seconds'] * 1e3:.3f} ({r['tflops']:.{report['digits']}f}"
        + (f"@{100 * r['density']:.1f})" if r["case"] != "1" else ")")
        for r in report["results"]
    }
    lines = [report["machine"], " " * 28 + "".join(f"{length_text(n) + '/' + case:>22}" for n, case in columns)]
    for peer in report["peers"]:
        name = f"{peer['name']} {peer['version']}"[:27]
        lines.append(f"{name:28}" + "".join(f"{cells.get((peer['name'], *column), '-'):>22}" for column in columns))
    lines += [f"not timed: {name}: {problem}" for name, problem in report["problems"].items()]
    return "\n".join(lines)


def machine(args: argparse.Namespace) -> str:
    if args.device == "cuda":
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}, CUDA {torch.version.cuda}"
    return f"CPU, {torch.get_num_threads()} threads, torch {torch.__version__}"


def comma(text: str) -> list[str]:
    return text.split(",")


def lengths(text: str) -> list[int]:
    found = [int(x[:-1]) * 1024 if x[-1:] in "kK" else int(x) for x in comma(text)]
    if min(found) < 1:
        raise ValueError
    return found


def densities(text: str) -> list[str]:
    for x in comma(text):
        if x != "own" and not 0 < float(x) <= 1:
            raise ValueError
    return comma(text)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=MAKERS, default="cuda")
    parser.add_argument("--lengths", type=lengths, help="tokens, 8192 or 8K (8K,32K,128K; with --tensors: all)")
    parser.add_argument("--densities", type=densities, help="1: full attention; own: --method's plan (1,0.1,0.05)")
    parser.add_argument("--tensors", type=Path, metavar="FILE", help="safetensors with q, k, v [heads][tokens][d]")
    parser.add_argument("--method", default="prism", help="whose plan 'own' is (prism)")
    parser.add_argument("--rope-base", type=float, default=1e6, help="of the saved tensors' rotation (1e6)")
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--kv-heads", type=int, default=8)
    parser.add_argument("--d", type=int, default=128)
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--peers", type=comma, help="of " + ", ".join(f"{d}: {' '.join(m)}" for d, m in MAKERS.items()))
    parser.add_argument("--reps", type=int, default=9)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, help="of the CPU")
    parser.add_argument("--cpu-time", action="store_true", help="processor time, for a CPU that others use, too")
    parser.add_argument("--json", action="store_true", help="one JSON object in place of the table")
    args = parser.parse_args(argv)
    args.peers = args.peers or list(MAKERS[args.device])
    args.densities = args.densities or (["1", "own"] if args.tensors else ["1", "0.1", "0.05"])
    unknown = [p for p in args.peers if p not in MAKERS[args.device]]
    if unknown:
        parser.error(f"--peers {unknown[0]}: on {args.device} there are {', '.join(MAKERS[args.device])}")
    if args.cpu_time and args.device != "cpu":
        parser.error("--cpu-time is of --device cpu")
    if args.reps < 1 or args.heads < 1 or args.kv_heads < 1 or args.heads % args.kv_heads:
        parser.error("--reps, --heads and --kv-heads are at least 1, and heads a multiple of KV heads")
    return args


def compare(args: argparse.Namespace) -> dict:
    """Everything that was measured."""
    timed = timed_on_gpu
    if args.device == "cpu":
        torch.set_num_threads(args.threads or torch.get_num_threads())
        timed = partial(timed_on_cpu, clock=time.process_time if args.cpu_time else time.perf_counter)
    peers, problems = load_peers(args.device, args.peers)
    saved = read_inputs(args)
    group = args.heads // args.kv_heads
    short = noise(args, CHECKED_TOKENS, 2 * group, 2)
    peers, wrong = check(peers, [make_case(args, short, density) for density in ("1", "0.5")])
    report = {
        "machine": machine(args), "dtype": args.dtype, "peers": [{"name": p.name, "version": p.version} for p in peers],
        "problems": problems | wrong, "digits": 0 if args.device == "cuda" else 3, "results": [],
    }  # fmt: skip
    for n in args.lengths:
        qkv = make_inputs(args, saved, n)
        for density in args.densities:
            print(f"{n} tokens, density {density}", file=sys.stderr)
            rows = measure_case(peers, make_case(args, qkv, density), args.reps, timed)
            report["results"] += [row | {"case": density} for row in rows]
    return report


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    if args.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("gpu.py: PyTorch sees no GPU; --device cpu times PyTorch's attention on the CPU")
    with torch.no_grad():
        report = compare(args)
    print(json.dumps(report, indent=1) if args.json else table(report))


if __name__ == "__main__":
    main()
