"""Where sequences lie and how long they are: every combination is the sequences one by one, or is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import random_qkv

import prism_attn

N_Q, N_KV = [130, 1, 300, 0, 57], [130, 600, 700, 40, 400]
CU_Q = np.cumsum([0, *N_Q]).astype(np.int32)
OPTIONS = {"method": "prism", "rope": 1e4, "min_tokens": 0, "top_p": 0.5}


def _sequences():
    """q [n, h, d] ragged, and k and v [n, h_kv, d] of each sequence."""
    q = random_qkv(n_q=sum(N_Q), n_kv=1)[0][0].transpose(0, 1).contiguous()
    kv = [random_qkv(n_q=1, n_kv=n, seed=n)[1:] for n in N_KV]
    return q, [tuple(x[0].transpose(0, 1).contiguous() for x in pair) for pair in kv]


def _alone(q, kv):
    parts = [
        prism_attn.attention(q[a:b], *pair, **OPTIONS) for a, b, pair in zip(CU_Q[:-1], CU_Q[1:], kv, strict=True)
        if a < b
    ]  # fmt: skip
    return torch.cat(parts)


def _pages(kv, page_size, layout):
    """An engine's cache: K and V side by side in one tensor, pages in any order, and the page table."""
    n_page = -(-max(N_KV) // page_size)
    table = torch.randperm(n_page * len(kv), generator=torch.Generator().manual_seed(0)).view(len(kv), n_page).int()
    cache = torch.full((table.numel(), 2, page_size, 2, 64), torch.nan)
    for s, pair in enumerate(kv):
        for i, x in enumerate(pair):
            for a in range(0, len(x), page_size):
                cache[table[s, a // page_size], i, : len(x[a : a + page_size])] = x[a : a + page_size]
    if layout == "phnd":
        cache = cache.transpose(2, 3).contiguous()
    return cache[:, 0], cache[:, 1], table


@pytest.mark.parametrize("numbers", [torch.tensor, np.array, list])
@pytest.mark.parametrize("page_size, layout", [(16, "pnhd"), (128, "pnhd"), (128, "phnd")])
def test_ragged_queries_read_pages(page_size, layout, numbers):
    q, kv = _sequences()
    k, v, table = _pages(kv, page_size, layout)
    assert not k.is_contiguous()
    where = {"kv_layout": layout, "page_table": table, "kv_len": numbers(N_KV), "cu_seqlens_q": numbers(CU_Q.tolist())}
    out = prism_attn.attention(q, k, v, **where, **OPTIONS)
    assert torch.equal(out, _alone(q, kv))
    padded = torch.cat([q, q[:9]])  # engines pad their batch: rows of no sequence
    out = prism_attn.attention(padded, k, v, max_q=max(N_Q), max_kv=max(N_KV), **where, **OPTIONS)
    assert torch.equal(out[:-9], _alone(q, kv)) and not out[-9:].any()


def test_pages_whose_keys_lie_across():
    """K transposed inside a page, [dimension, token], as a CPU engine keeps it."""
    q, kv = _sequences()
    k, v, table = _pages(kv, 128, "phnd")
    across = k.transpose(2, 3).contiguous().transpose(2, 3)
    assert across.stride(2) == 1
    where = {"kv_layout": "phnd", "page_table": table, "kv_len": N_KV, "cu_seqlens_q": CU_Q}
    assert torch.equal(prism_attn.attention(q, across, v, **where, **OPTIONS), _alone(q, kv))


def test_ragged_queries_read_a_padded_cache():
    q, kv = _sequences()
    k, v = (torch.full((len(kv), 1000, 2, 64), torch.nan) for _ in range(2))
    for s, pair in enumerate(kv):
        k[s, : N_KV[s]], v[s, : N_KV[s]] = pair
    out = prism_attn.attention(q, k, v, kv_layout="bnhd", cu_seqlens_q=CU_Q, kv_len=N_KV, **OPTIONS)
    assert torch.equal(out, _alone(q, kv))


def test_ragged_keys_of_their_own():
    q, kv = _sequences()
    k, v = (torch.cat(x) for x in zip(*kv, strict=True))
    cu_kv = np.cumsum([0, *N_KV]).astype(np.int32)
    expected = _alone(q, kv)
    assert torch.equal(prism_attn.attention(q, k, v, cu_seqlens_q=CU_Q, cu_seqlens_kv=cu_kv, **OPTIONS), expected)
    padded = torch.zeros(len(kv), max(N_Q), 4, 64)
    for s, (a, b) in enumerate(zip(CU_Q[:-1], CU_Q[1:], strict=True)):
        padded[s, : b - a] = q[a:b]
    where = {"layout": "bnhd", "kv_layout": "nhd", "q_len": N_Q, "cu_seqlens_kv": cu_kv}
    out = prism_attn.attention(padded, k, v, **where, **OPTIONS)
    assert torch.equal(torch.cat([out[s, :n] for s, n in enumerate(N_Q)]), expected)


def test_numpy_does_the_same():
    q, kv = _sequences()
    k, v, table = _pages(kv, 128, "pnhd")
    where = {"page_table": table.numpy(), "kv_len": N_KV, "cu_seqlens_q": CU_Q}
    out = prism_attn.attention(q.numpy(), k.numpy(), v.numpy(), **where, **OPTIONS)
    assert np.array_equal(out, _alone(q, kv).numpy())


@pytest.mark.parametrize(
    "where, sentence",
    [
        ({"cu_seqlens_q": CU_Q, "q_len": N_Q}, "cu_seqlens_q and q_len both say how long sequences are: pass one"),
        ({"cu_seqlens_kv": CU_Q, "kv_len": N_Q}, "cu_seqlens_kv and kv_len both say how long sequences are: pass one"),
        ({"cu_seqlens_q": CU_Q, "kv_len": N_KV}, "5 sequences: pass cu_seqlens_kv, which says where each starts"),
        ({"cu_seqlens_kv": CU_Q}, "5 sequences: pass cu_seqlens_q, which says where each starts"),
        ({"cu_seqlens_q": CU_Q, "cu_seqlens_kv": CU_Q[:3]}, "5 sequences of queries, 2 of keys"),
        ({"cu_seqlens_q": CU_Q, "q_start": [1, 2]}, r"q_start of shape \(2,\): pass a number, or one for each of 5"),
    ],
)
def test_what_cannot_be_is_refused(where, sentence):
    q, k, v = (x[0].transpose(0, 1) for x in random_qkv(n_q=sum(N_Q), n_kv=sum(N_Q)))
    with pytest.raises(ValueError, match=sentence):
        prism_attn.attention(q, k, v, method="dense", **where)


@pytest.mark.parametrize(
    "where, sentence",
    [
        ({}, "a page table needs kv_len"),
        ({"cu_seqlens_q": CU_Q}, "a page table needs kv_len"),
        ({"cu_seqlens_q": CU_Q[:3], "kv_len": N_KV}, "2 sequences of queries, 5 of keys"),
        ({"cu_seqlens_q": CU_Q, "kv_len": N_KV[:2]}, r"kv_len of shape \(2,\): pass a number, or one for each of 5"),
        (
            {"cu_seqlens_q": CU_Q, "cu_seqlens_kv": CU_Q},
            "cu_seqlens_kv is for ragged sequences .*, not for a page table",
        ),
        ({"cu_seqlens_q": CU_Q, "kv_len": N_KV, "page_table": torch.zeros(5).int()}, r"page_table of shape \(5,\)"),
    ],
)
def test_pages_that_cannot_be_are_refused(where, sentence):
    q, kv = _sequences()
    k, v, table = _pages(kv, 128, "pnhd")
    with pytest.raises(ValueError, match=sentence):
        prism_attn.attention(q, k, v, method="dense", **{"page_table": table, **where})
