"""On an NVIDIA GPU: equal to the CPU's results, streams, graphs, compile, CuPy, transformers.

`PRISM_ATTN_GPU=1 pytest tests/test_cuda.py`, with a wheel that has the CUDA backend; without the variable nothing here
runs, with it a missing GPU is a failure.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor

import families
import numpy as np
import pytest
import torch
from conftest import ROUNDING, error, random_qkv, truth

import prism_attn
import prism_attn.transformers as pt

pytestmark = pytest.mark.skipif(not os.environ.get("PRISM_ATTN_GPU"), reason="PRISM_ATTN_GPU is not set")
SPARSE = {"rope": 1e6, "top_p": 0.4, "min_tokens": 0}


def _gpu(*tensors):
    return tuple(x.cuda() for x in tensors)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("d", [64, 128])
@pytest.mark.parametrize("n_q, n_kv", [(300, 300), (77, 1000), (1, 129), (2000, 2000)])
def test_dense(dtype, d, n_q, n_kv):
    q, k, v = random_qkv(2, 8, 2, n_q, n_kv, d, dtype)
    out, lse = prism_attn.attention(*_gpu(q, k, v), method="dense", return_lse=True)
    assert error(out.cpu(), truth(q, k, v)) < ROUNDING[dtype]
    _, expected = prism_attn.attention(q.float(), k.float(), v.float(), method="dense", return_lse=True)
    assert (lse.cpu() - expected).abs().max() < 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("d", [64, 128])
def test_sparse_is_the_cpus(dtype, d):
    q, k, v = random_qkv(2, 8, 2, 3000, 3000, d, dtype)
    ours = prism_attn.plan(*_gpu(q, k), **SPARSE)
    theirs = prism_attn.plan(q, k, **SPARSE)
    differ = (ours.mask() != theirs.mask()).sum()
    assert theirs.density < 0.9 and differ <= 1e-3 * theirs.mask().sum()  # masses within 1e-4 of the cut
    out = prism_attn.attention(*_gpu(q, k, v), **SPARSE)
    mask = torch.from_numpy(ours.mask()).repeat_interleave(128, 2).repeat_interleave(128, 3)[:, :, :3000, :3000]
    assert error(out.cpu(), truth(q, k, v, mask)) < ROUNDING[dtype]
    assert torch.equal(prism_attn.attention(*_gpu(q, k, v), plan=ours), out)
    own = prism_attn.plan_from_mask(ours.mask(), *_gpu(q, k))
    assert torch.equal(prism_attn.attention(*_gpu(q, k, v), plan=own), out)


def test_threads_read_one_plan():
    q, k, _ = random_qkv(n_q=3000, n_kv=3000, d=128, dtype=torch.bfloat16)
    plan = prism_attn.plan(*_gpu(q, k), **SPARSE)
    with ThreadPoolExecutor(4) as pool:
        masks = list(pool.map(lambda _: plan.mask(), range(16)))
    assert masks[0].any() and all(np.array_equal(mask, masks[0]) for mask in masks)


def test_counts_come_without_waiting():
    q, k, v = _gpu(*random_qkv(n_q=3000, n_kv=3000, d=128, dtype=torch.bfloat16))
    prism_attn.attention(q, k, v, **SPARSE, layer=3)
    (row,) = prism_attn.stats().rows
    plan = prism_attn.plan(q, k, **SPARSE)
    assert (row.layer, row.path, row.calls) == (3, "sparse", 1) and row.density == pytest.approx(plan.density)


def test_ragged_lengths_and_pages():
    lengths = [130, 1, 700, 256]
    ends = np.cumsum([0, *lengths]).astype(np.int32)
    q, k, v = (x[0].transpose(0, 1).contiguous().cuda() for x in random_qkv(n_q=1087, n_kv=1087, dtype=torch.bfloat16))
    cu = torch.from_numpy(ends).cuda()
    out = prism_attn.attention(q, k, v, cu_seqlens_q=cu, max_q=700, max_kv=700, **SPARSE)
    for a, b in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        alone = prism_attn.attention(q[a:b], k[a:b], v[a:b], **SPARSE)
        assert error(out[a:b], alone) < 1e-2

    q, k, v = random_qkv(2, n_q=50, n_kv=320, dtype=torch.bfloat16)
    table = torch.randperm(40).view(2, 20).int()
    pools = []
    for x in (k, v):
        pool = torch.zeros(40, 16, 2, 64, dtype=x.dtype)
        for s in range(2):
            for page in range(20):
                pool[table[s, page]] = x[s, :, 16 * page : 16 * page + 16].transpose(0, 1)
        pools.append(pool)
    kv_len = torch.tensor([320, 320], dtype=torch.int32).cuda()
    paged = prism_attn.attention(*_gpu(q, *pools), method="dense", page_table=table.cuda(), kv_len=kv_len)
    assert error(paged.cpu(), truth(q, k, v)) < ROUNDING[torch.bfloat16]


def test_streams_keep_apart():
    calls = [_gpu(*random_qkv(n_q=2000, n_kv=2000, d=128, dtype=torch.bfloat16, seed=i)) for i in range(3)]
    expected = [prism_attn.attention(*x, **SPARSE) for x in calls]
    torch.cuda.synchronize()
    streams, outs = [torch.cuda.Stream() for _ in calls], []
    for _ in range(5):
        for stream, x in zip(streams, calls, strict=True):
            with torch.cuda.stream(stream):
                outs.append(prism_attn.attention(*x, **SPARSE))
    torch.cuda.synchronize()
    for i, out in enumerate(outs):
        assert torch.equal(out, expected[i % 3])


@pytest.mark.parametrize("warm", [True, False])
def test_cuda_graph(warm):
    prism_attn.clear()
    q, k, v = _gpu(*random_qkv(n_q=2500, n_kv=2500, d=128, dtype=torch.bfloat16))
    out, config = torch.empty_like(q), prism_attn.make_config(d_head=128, **SPARSE)
    if warm:
        prism_attn.attention(q, k, v, config=config, out=out)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        prism_attn.attention(q, k, v, config=config, out=out)
    for seed in (1, 2):
        fresh = _gpu(*random_qkv(n_q=2500, n_kv=2500, d=128, dtype=torch.bfloat16, seed=seed))
        for x, y in zip((q, k, v), fresh, strict=True):
            x.copy_(y)
        graph.replay()
        assert torch.equal(out, prism_attn.attention(*fresh, config=config))


def test_compiled():
    q, k, v = _gpu(*random_qkv(n_q=2000, n_kv=2000, d=128, dtype=torch.bfloat16))
    config = prism_attn.make_config(d_head=128, **SPARSE)

    def f(q, k, v):
        return prism_attn.attention(q * 2, k, v, config=config) + 1

    assert torch.equal(torch.compile(f, fullgraph=True)(q, k, v), f(q, k, v))
    reduced = torch.compile(f, fullgraph=True, mode="reduce-overhead")  # CUDA graphs
    for _ in range(4):
        out = reduced(q, k, v).clone()
    assert torch.equal(out, f(q, k, v))


def test_cupy():
    cupy = pytest.importorskip("cupy")
    q, k, v = random_qkv(n_q=2000, n_kv=2000, d=128, dtype=torch.float16)
    out = prism_attn.attention(*(cupy.asarray(x.numpy()) for x in (q, k, v)), **SPARSE)
    assert isinstance(out, cupy.ndarray)
    assert torch.equal(torch.from_dlpack(out), prism_attn.attention(*_gpu(q, k, v), **SPARSE))
    n = cupy.asarray([2000], dtype=cupy.int32)
    again = prism_attn.attention(*(cupy.asarray(x.numpy()) for x in (q, k, v)), kv_len=n.get(), **SPARSE)
    assert error(torch.from_dlpack(again), torch.from_dlpack(out)) < 1e-3


@pytest.mark.parametrize("name", ["qwen3", "gemma3", "glm4", "gpt-oss"])
def test_models_with_padding(name):
    # gpt-oss routes tokens to experts: a rounding of bfloat16 may send one elsewhere, which says nothing of attention
    dtype = torch.float32 if name == "gpt-oss" else torch.bfloat16
    model = families.make(name, dtype).cuda()
    g = torch.Generator().manual_seed(1)
    ids = torch.randint(3, families.VOCABULARY, (2, 1500), generator=g).cuda()
    mask = torch.ones_like(ids)
    mask[0, :300] = 0
    options = {"attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
    with torch.no_grad():
        expected = model(ids, **options).logits
        pt.enable(model, method="dense")
        logits = model(ids, **options).logits
    assert error(logits[mask == 1], expected[mask == 1]) < (1e-4 if dtype == torch.float32 else 2e-2)
    pt.enable(model, min_tokens=0, top_p=0.3)
    with torch.no_grad():
        generated = model.generate(ids, attention_mask=mask, max_new_tokens=4, do_sample=False)
    assert generated.shape[1] > 1500 and prism_attn.stats().calls() > 0


def test_refused_shapes_go_to_pytorch():
    """Heads of 32 dimensions have no selection on the GPU: said, not hidden."""
    model = families.make("llama", torch.bfloat16).cuda()
    pt.enable(model, min_tokens=0, top_p=0.3)
    ids = torch.randint(3, families.VOCABULARY, (1, 600)).cuda()
    with torch.no_grad():
        model(ids)
    (path,) = prism_attn.stats().reasons()
    assert path.startswith("dense: ") and "UNSUPPORTED" in path


def test_overhead_of_python():
    """Microseconds of the host for one call; the work itself is small and runs beside."""
    q, k, v = _gpu(*random_qkv(n_q=128, n_kv=128, d=128, dtype=torch.bfloat16))
    out, config = torch.empty_like(q), prism_attn.make_config("dense")
    op = torch.ops.prism_attn.attention
    for warm in (True, False):
        best = 1e9
        for _ in range(20):
            torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(50):
                op(q, k, v, out, None, config, "bhnd", "bhnd", 0.0, -1, None, None, 0, 0, 0)
            best = min(best, (time.perf_counter() - start) / 50)
        if not warm:
            print(f"{best * 1e6:.1f} us a call")
            assert best < 100e-6
