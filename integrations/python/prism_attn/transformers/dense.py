"""What does not go through the library: PyTorch's attention, or the model's own where PyTorch's lacks a feature."""

from __future__ import annotations

import sys

import torch
from torch import nn
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from .mask import is_lengths, to_bool


def dense_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float | None,
    dropout: float,
    **kwargs,
) -> tuple[torch.Tensor, None]:
    """query [B, n_head, n_q, d], key and value [B, n_kv_head, n_kv, d]; returns [B, n_q, n_head, d], as transformers
    wants it. mask: any of the forms in `mask.py`."""
    n_q, n_kv = query.shape[2], key.shape[2]
    if is_lengths(mask):
        mask = to_bool(mask, n_q, n_kv, query.device)
    if kwargs.get("s_aux") is not None or kwargs.get("softcap") is not None:
        return _of_the_model(module, query, key, value, mask, scaling, dropout, **kwargs)
    if mask is None and 1 < n_q < n_kv and kwargs.get("is_causal", getattr(module, "is_causal", True)):
        # A chunk at the end of the keys: sdpa's own is_causal would align it to their start.
        bias = causal_lower_right(n_q, n_kv)
        grouped = query.shape[1] != key.shape[1]
        if grouped and query.device.type == "cpu":
            key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
            grouped = False
        out = scaled_dot_product_attention(
            query, key, value, attn_mask=bias, dropout_p=dropout, scale=scaling, enable_gqa=grouped
        )
        return out.transpose(1, 2).contiguous(), None
    return sdpa_attention_forward(module, query, key, value, mask, dropout=dropout, scaling=scaling, **kwargs)


def _of_the_model(module, query, key, value, mask, scaling, dropout, **kwargs) -> tuple[torch.Tensor, None]:
    """eager_attention_forward of the model's code, which knows its sinks and caps; its masks are added, not boolean."""
    n_q, n_kv = query.shape[2], key.shape[2]
    if mask is None and n_q > 1:
        mask = torch.ones(n_q, n_kv, dtype=torch.bool, device=query.device).tril(n_kv - n_q)[None, None]
    if mask is not None and mask.dtype == torch.bool:
        lowest = torch.finfo(query.dtype).min
        mask = torch.zeros(mask.shape, dtype=query.dtype, device=query.device).masked_fill(~mask, lowest)
    eager = sys.modules[type(module).__module__].eager_attention_forward
    return eager(module, query, key, value, mask, scaling=scaling, dropout=dropout, **kwargs)[0], None
