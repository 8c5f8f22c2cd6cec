"""The backend on the CPU: vLLM's CPU_ATTN, with the library reading its paged cache."""

from __future__ import annotations

import torch
from vllm.v1.attention.backends.cpu_attn import (
    CPUAttentionBackend,
    CPUAttentionBackendImpl,
    CPUAttentionMetadataBuilder,
)

from ..layout import N_KV
from ..serving import Prefill
from .common import Batch, PrismBuilder, PrismImpl

# How vLLM's kernels pack a page of a head, by layer.isa. First K, then V, each page_size * d elements.
#   vec, vec16   K [d][token], V [token][d]: read in place
#   amx          K [token / 16][d / 2][16 tokens][2], V [d / 16][token / 2][16 dimensions][2]: copied
IN_PLACE, COPIED = ("vec", "vec16"), ("amx",)


def views_in_place(kv_cache: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """kv_cache [page, head, token, 2 d] as K and V [page, head, token, d]."""
    n_page, n_head, n_token, two_d = kv_cache.shape
    both = kv_cache.view(n_page, n_head, 2, n_token * two_d // 2)
    k = both[:, :, 0].view(n_page, n_head, two_d // 2, n_token).transpose(2, 3)
    return k, both[:, :, 1].view(n_page, n_head, n_token, two_d // 2)


def pages_of(prefill: Prefill, page_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The pages that the requests have, one request after the other, and a page table into that list.

    Behind a request's last page vLLM's page table has old entries."""
    n_page = (prefill.lengths[N_KV] + page_size - 1) // page_size
    used = torch.arange(prefill.page_table.shape[1]) < n_page[:, None]
    table = torch.zeros_like(prefill.page_table)
    table[used] = torch.arange(int(n_page.sum()), dtype=table.dtype)
    return prefill.page_table[used], table


def unpacked(kv_cache: torch.Tensor, pages: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """K and V [page, head, token, d] of these pages, copied."""
    _, n_head, n_token, two_d = kv_cache.shape
    d, n_page = two_d // 2, len(pages)
    both = kv_cache.view(-1, n_head, 2, n_token * d)[pages]
    k = both[:, :, 0].view(n_page, n_head, n_token // 16, d // 2, 16, 2).transpose(3, 4)
    v = both[:, :, 1].view(n_page, n_head, d // 16, n_token // 2, 16, 2).permute(0, 1, 3, 5, 2, 4)
    return tuple(x.reshape(n_page, n_head, n_token, d) for x in (k, v))


class PrismCPUBuilder(PrismBuilder, CPUAttentionMetadataBuilder):
    pass


class PrismCPUImpl(PrismImpl, CPUAttentionBackendImpl):
    def why_dense(self, layer) -> str:
        why = super().why_dense(layer)
        return why or ("" if layer.isa in IN_PLACE + COPIED else f"cache packed for {layer.isa}")

    def views(self, layer, kv_cache: torch.Tensor, batch: Batch):
        if layer.isa in IN_PLACE:
            return *views_in_place(kv_cache), "phnd", batch.prefill
        pages, table = pages_of(batch.prefill, kv_cache.shape[2])
        return *unpacked(kv_cache, pages), "phnd", batch.prefill._replace(page_table=table)


class PrismBackend(CPUAttentionBackend):
    @staticmethod
    def get_impl_cls():
        return PrismCPUImpl

    @staticmethod
    def get_builder_cls():
        return PrismCPUBuilder
