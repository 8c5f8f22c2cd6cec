"""The backend on NVIDIA GPUs, registered as CUSTOM: vLLM's FlashAttention, with long prefills through the library."""

from __future__ import annotations

import torch
from vllm.v1.attention.backend import AttentionCGSupport
from vllm.v1.attention.backends.flash_attn import (
    FlashAttentionBackend,
    FlashAttentionImpl,
    FlashAttentionMetadataBuilder,
)

from .common import Batch, PrismBuilder, PrismImpl


class PrismCUDABuilder(PrismBuilder, FlashAttentionMetadataBuilder):
    # Graphs of whole steps for decodes only; a step with a prefill runs attention between the pieces of its graph,
    # where the host may decide. FlashAttention alone would have graphs of mixed steps, too.
    _cudagraph_support = AttentionCGSupport.UNIFORM_SINGLE_TOKEN_DECODE


class PrismCUDAImpl(PrismImpl, FlashAttentionImpl):
    def views(self, layer, kv_cache: torch.Tensor, batch: Batch):
        k, v = kv_cache.transpose(1, 2).split(self.head_size, dim=-1)
        return k, v, "pnhd", batch.prefill


class PrismBackend(FlashAttentionBackend):
    @staticmethod
    def get_name() -> str:
        return "CUSTOM"

    @staticmethod
    def get_supported_kernel_block_sizes(kv_cache_spec=None) -> list[int]:
        return [128]  # a page is a block of the plan

    @staticmethod
    def get_impl_cls():
        return PrismCUDAImpl

    @staticmethod
    def get_builder_cls():
        return PrismCUDABuilder
