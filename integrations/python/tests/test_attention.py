"""attention() and plan() against double precision, and against each other."""

from __future__ import annotations

import inspect
import multiprocessing
import threading

import numpy as np
import pytest
import torch
from conftest import ROUNDING, error, random_qkv, truth

import prism_attn


@pytest.mark.parametrize("dtype", list(ROUNDING), ids=str)
@pytest.mark.parametrize("n_head, n_kv_head", [(4, 4), (8, 2), (8, 1)])
@pytest.mark.parametrize("n_q, n_kv", [(300, 300), (77, 300), (1, 129)])
def test_dense_is_exact(dtype, n_head, n_kv_head, n_q, n_kv):
    q, k, v = random_qkv(2, n_head, n_kv_head, n_q, n_kv, dtype=dtype)
    out = prism_attn.attention(q, k, v, method="dense")
    assert out.dtype == dtype and out.shape == q.shape
    assert error(out, truth(q, k, v)) < ROUNDING[dtype]


@pytest.mark.parametrize("layout", ["bnhd", "bhnd"])
def test_layouts_and_strides_are_the_same_call(layout):
    q, k, v = random_qkv(2)
    expected, lse = prism_attn.attention(q, k, v, method="dense", return_lse=True)
    order = (0, 2, 1, 3)
    if layout == "bnhd":
        out, other = prism_attn.attention(
            *(x.permute(order) for x in (q, k, v)), method="dense", layout=layout, return_lse=True
        )
        assert torch.equal(out.permute(order), expected) and torch.equal(other.transpose(1, 2), lse)
    else:
        padded = [torch.zeros(*x.shape[:-1], x.shape[-1] + 8) for x in (q, k, v)]
        for wide, x in zip(padded, (q, k, v), strict=True):
            wide[..., 8:] = x
        assert torch.equal(prism_attn.attention(*(x[..., 8:] for x in padded), method="dense"), expected)


def test_lse_is_the_denominator():
    q, k, v = random_qkv()
    _, lse = prism_attn.attention(q, k, v, method="dense", return_lse=True)
    logits = (q.double() @ k.double().repeat_interleave(2, 1).transpose(-1, -2)) / 8
    seen = torch.ones(300, 300, dtype=torch.bool).tril()
    expected = logits.masked_fill(~seen, -torch.inf).logsumexp(-1)
    assert (lse.double() - expected).abs().max() < 1e-5  # float32 of numbers near 6


def test_plan_says_what_attention_does():
    q, k, v = random_qkv(n_q=2000, n_kv=2000, d=128)
    options = {"rope": 1e6, "top_p": 0.3, "min_tokens": 0}
    plan = prism_attn.plan(q, k, **options)
    assert plan.path == "sparse" and 0 < plan.density < 0.9
    mask = plan.mask()
    rows = [plan.indices[a:b].tolist() for a, b in zip(plan.indptr[:-1], plan.indptr[1:], strict=True)]
    listed = np.zeros(mask.shape, bool).reshape(len(rows), -1)
    for row, blocks in enumerate(rows):
        listed[row, blocks] = True
    assert np.array_equal(listed.reshape(mask.shape), mask)
    assert plan.density == pytest.approx(mask.sum() / (4 * 16 * 17 / 2))

    token_mask = torch.from_numpy(mask).repeat_interleave(128, 2).repeat_interleave(128, 3)[:, :, :2000, :2000]
    out = prism_attn.attention(q, k, v, **options)
    assert error(out, truth(q, k, v, token_mask)) < ROUNDING[torch.float32]
    assert torch.equal(prism_attn.attention(q, k, v, plan=plan), out)
    own = prism_attn.plan_from_mask(mask, q, k)
    assert torch.equal(prism_attn.attention(q, k, v, plan=own), out)
    assert np.array_equal(own.indices, plan.indices)


@pytest.mark.parametrize("method", prism_attn.methods())
def test_every_method_by_name(method):
    q, k, v = random_qkv(n_q=2500, n_kv=2500, d=128)
    options = {"method": method, "rope": 1e6, "min_tokens": 0}
    out = prism_attn.attention(q, k, v, **options)
    plan = prism_attn.plan(q, k, **options)
    assert 0 < plan.density <= 1 and plan.path == ("dense" if method == "dense" else "sparse")
    assert torch.equal(prism_attn.attention(q, k, v, plan=plan), out)
    (row,) = prism_attn.stats().rows
    assert row.density == pytest.approx(plan.density, rel=1e-2)  # single keys count as whole blocks' worth, rounded


def test_correction_brings_sparse_nearer():
    q, k, v = random_qkv(n_q=2500, n_kv=2500, d=128)
    full = truth(q, k, v)
    options = {"rope": 1e6, "min_tokens": 0, "top_p": 0.3}
    errors = [error(prism_attn.attention(q, k, v, correct=c, **options), full) for c in ("none", "mean", "moments")]
    assert errors[2] < errors[1] < 0.7 * errors[0]


def test_full_plan_lists_every_block():
    q, k, _ = random_qkv(n_q=500, n_kv=500)
    plan = prism_attn.plan(q, k, method="dense")
    assert plan.density == 1 and plan.indices.tolist() == [0, 0, 1, 0, 1, 2, 0, 1, 2, 3] * 4


def test_single_keys_of_minference():
    q, k, _ = random_qkv(n_q=4000, n_kv=4000, n_head=1, n_kv_head=1)
    plan = prism_attn.plan(q, k, method="minference", minference_vertical=50, minference_slash=100, min_tokens=0)
    ptr, keys = plan.keys
    assert ptr[-1] == len(keys) > 0 and keys.max() < 4000


def test_ragged_is_each_sequence_alone():
    lengths = [130, 1, 700, 256]
    ends = np.cumsum([0, *lengths])
    q, k, v = (x[0].transpose(0, 1).contiguous() for x in random_qkv(n_q=int(ends[-1]), n_kv=int(ends[-1])))
    options = {"rope": 1e4, "min_tokens": 0, "top_p": 0.5}
    out = prism_attn.attention(q, k, v, cu_seqlens_q=torch.from_numpy(ends.astype(np.int32)), **options)
    for a, b in zip(ends[:-1], ends[1:], strict=True):
        alone = prism_attn.attention(q[a:b], k[a:b], v[a:b], **options)
        assert torch.equal(out[a:b], alone)


def test_lengths_of_a_batch():
    q, k, v = random_qkv(3, n_q=64, n_kv=400)
    q_len, kv_len = torch.tensor([64, 10, 1]), torch.tensor([400, 100, 37])
    out = prism_attn.attention(q, k, v, method="dense", q_len=q_len, kv_len=kv_len)
    for s, (n, m) in enumerate(zip(q_len.tolist(), kv_len.tolist(), strict=True)):
        alone = prism_attn.attention(q[s : s + 1, :, :n], k[s : s + 1, :, :m], v[s : s + 1, :, :m], method="dense")
        assert torch.equal(out[s : s + 1, :, :n], alone)
        assert not out[s, :, n:].any()


@pytest.mark.parametrize("page_size", [1, 16, 128])
def test_pages_are_the_keys_they_hold(page_size):
    q, k, v = random_qkv(2, n_q=50, n_kv=320)
    n_page = -(-320 // page_size)
    table = torch.randperm(2 * n_page, generator=torch.Generator().manual_seed(0)).view(2, n_page).int()
    pools = []
    for x in (k, v):
        pool = torch.full((2 * n_page, page_size, 2, 64), torch.nan)  # what no sequence owns must not be read
        for s in range(2):
            for t in range(320):
                pool[table[s, t // page_size], t % page_size] = x[s, :, t]
        pools.append(pool)
    out = prism_attn.attention(q, *pools, method="dense", page_table=table, kv_len=torch.tensor([320, 320]))
    assert torch.equal(out, prism_attn.attention(q, k, v, method="dense"))


def test_chunks_are_the_whole():
    q, k, v = random_qkv(n_q=1024, n_kv=1024, d=128)
    options = {"rope": 1e6, "top_p": 0.4, "min_tokens": 0}
    whole = prism_attn.attention(q, k, v, **options)
    for a, b in ((0, 256), (256, 640), (640, 1024)):
        part = prism_attn.attention(q[:, :, a:b], k[:, :, :b], v[:, :, :b], **options)
        assert torch.equal(part, whole[:, :, a:b])
    later = prism_attn.attention(q[:, :, 256:640], k, v, q_start=256, **options)
    assert torch.equal(later, whole[:, :, 256:640])


def test_numpy_without_torch_types():
    q, k, v = random_qkv(n_q=600, n_kv=600, d=128)
    options = {"rope": 1e6, "top_p": 0.4, "min_tokens": 0, "return_lse": True}
    expected = prism_attn.attention(q, k, v, **options)
    got = prism_attn.attention(q.numpy(), k.numpy(), v.numpy(), **options)
    for a, b in zip(got, expected, strict=True):
        assert isinstance(a, np.ndarray) and np.array_equal(a, b.numpy())
    half = prism_attn.attention(*(x.numpy().astype(np.float16) for x in (q, k, v)), method="dense")
    assert half.dtype == np.float16 and error(torch.from_numpy(half), truth(q, k, v)) < ROUNDING[torch.float16]
    n = np.array([600], np.int32)
    again = prism_attn.attention(q.numpy(), k.numpy(), v.numpy(), rope=1e6, top_p=0.4, min_tokens=0, kv_len=n)
    assert np.array_equal(again, expected[0].numpy())
    plan = prism_attn.plan(q.numpy(), k.numpy(), rope=1e6, top_p=0.4, min_tokens=0)
    planned = prism_attn.attention(q.numpy(), k.numpy(), v.numpy(), plan=plan)
    assert np.array_equal(planned, expected[0].numpy())


def test_arrays_without_the_array_api_standard():
    """CuPy before 14: the array's own package is asked."""
    from prism_attn import array_api

    class Old:
        __module__ = "numpy.old"

    assert array_api.namespace(Old()) is np
    Old.__module__ = "threading"
    with pytest.raises(TypeError, match="threading cannot make arrays"):
        array_api.namespace(Old())


def test_threads_do_not_meet():
    calls = [random_qkv(n_q=200 + 30 * i, n_kv=200 + 30 * i, seed=i) for i in range(4)]
    expected = [prism_attn.attention(*x, method="dense") for x in calls]
    wrong = []

    def work(i: int) -> None:
        for _ in range(20):
            if not torch.equal(prism_attn.attention(*calls[i], method="dense"), expected[i]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_caches_are_bounded():
    from prism_attn import engine

    prism_attn.clear()
    for n in range(2, 2 + 2 * engine.MAX_PREPARED):
        q, k, v = random_qkv(n_head=1, n_kv_head=1, n_q=1, n_kv=n, d=8)
        prism_attn.attention(q, k, v, method="dense")
    for n in (1000, 2000, 4000, 8000, 16000):
        q, k, _ = random_qkv(n_head=1, n_kv_head=1, n_q=1, n_kv=n, d=8)
        prism_attn.attention(q, k, k, method="dense")
    (pool,) = engine._free.values()
    assert len(pool) == 1
    assert len(pool[0]._prepared) == engine.MAX_PREPARED and len(pool[0]._plans) == engine.MAX_PLAN


def test_mistakes_are_said():
    q, k, v = random_qkv()
    with pytest.raises(ValueError, match="unknown method 'prsm'"):
        prism_attn.attention(q, k, v, method="prsm")
    with pytest.raises(ValueError, match="option top_q=1: unknown name; there are block_size, "):
        prism_attn.attention(q, k, v, method="dense", top_q=1)
    with pytest.raises(ValueError, match=r"option top_p=2: mass .*; [0-9.e-]+ to 1$"):
        prism_attn.attention(q, k, v, method="dense", top_p=2)
    with pytest.raises(ValueError, match=r"option correct=all: .* one of default, none, mean, moments"):
        prism_attn.attention(q, k, v, method="dense", correct="all")
    with pytest.raises(ValueError, match=r"method prism needs rope: .* need neither: dense, "):
        prism_attn.attention(q, k, v, method="prism")
    for rope in (-1, 0, float("nan"), float("inf"), "1e4"):
        with pytest.raises(ValueError, match=f"rope={rope!r}: the base of the rotation is a number above 0"):
            prism_attn.attention(q, k, v, method="prism", rope=rope)
    with pytest.raises(ValueError, match="config says all of it: method, top_p beside it would be ignored"):
        prism_attn.attention(q, k, v, config=prism_attn.make_config("dense"), method="prism", top_p=0.5)
    with pytest.raises(ValueError, match="plan says all of it: rope beside it"):
        prism_attn.attention(q, k, v, plan=prism_attn.plan(q, k, method="dense"), rope=1e4)
    with pytest.raises(ValueError, match="k has 4 axes, kv_layout 'nhd' names 3: pass kv_layout"):
        prism_attn.attention(q[0], k, v, method="dense")
    with pytest.raises(ValueError, match="layout='nbhd': one of bhnd, bnhd, nhd, hnd"):
        prism_attn.attention(q, k, v, method="dense", layout="nbhd")
    with pytest.raises(TypeError, match=r"q is builtins.list: pass a torch tensor or an array with DLPack"):
        prism_attn.attention([1.0], k, v, method="dense")
    with pytest.raises(TypeError, match=r"k is builtins.NoneType: pass a torch tensor, as q is"):
        prism_attn.attention(q, None, v, method="dense")
    with pytest.raises(TypeError, match=r"v is numpy.ndarray: pass a torch tensor, as q is"):
        prism_attn.attention(q, k, v.numpy(), method="dense")
    with pytest.raises(prism_attn.PrismError, match="PRISM_ERROR_INVALID"):
        prism_attn.attention(q, k[:, :, :100], v[:, :, :100], method="dense")  # more queries than keys
    with pytest.raises(ValueError, match="keys of shape"):
        prism_attn.attention(q, k, v[:, :, :100], method="dense")
    with pytest.raises(TypeError, match="float64"):
        prism_attn.attention(q.double(), k.double(), v.double(), method="dense")
    with pytest.raises(RuntimeError, match="no backward"):
        prism_attn.attention(q.requires_grad_(), k, v, method="dense")


def test_methods_and_options_are_the_librarys():
    names = [option.name for option in prism_attn.options()]
    assert len(set(names)) == len(names) and {"top_p", "correct", "min_tokens"} <= set(names)
    for option in prism_attn.options():
        assert option.text and option.min <= option.value <= option.max
        value = option.names[int(option.value)] if option.names else f"{option.value:.9g}"
        prism_attn.make_config(**{option.name: value})
    assert prism_attn.make_config() == "method=prism"
    assert "kv_len" in inspect.signature(prism_attn.plan).parameters


def test_nothing_is_counted_twice():
    q, k, v = random_qkv(n_q=500, n_kv=500)
    for _ in range(3):
        prism_attn.attention(q, k, v, method="dense", layer=5)
    prism_attn.attention(q, k, v, rope=1e4, layer=6)
    stats = prism_attn.stats()
    assert [(r.layer, r.path, r.calls, r.queries) for r in stats.rows] == [
        (5, "dense", 3, 1500),
        (6, "dense: short", 1, 500),
    ]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("kind", ["torch", "numpy"])
def test_a_child_of_fork_computes_the_same(kind):
    """OpenMP's threads are not copied by fork(): a child that waited for them would never return."""
    arrays = [x if kind == "torch" else x.numpy() for x in random_qkv(n_q=1500, n_kv=1500)]
    options = {"rope": 1e4, "top_p": 0.5, "min_tokens": 0}
    expected = np.asarray(prism_attn.attention(*arrays, **options))
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    child = fork.Process(target=lambda: sender.send_bytes(np.asarray(prism_attn.attention(*arrays, **options))))
    child.start()
    try:
        assert receiver.poll(60), "the child does not return"
        assert receiver.recv_bytes() == expected.tobytes()
    finally:
        child.kill()
        child.join()
