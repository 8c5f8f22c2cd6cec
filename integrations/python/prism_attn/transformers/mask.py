"""The mask that transformers hands to every layer, for attention that knows positions.

Three forms reach `interface.prism_attention`:
- None: every key up to the query's position, queries being the last of the keys;
- lengths, int32 [5, B, 1, 1] on the host (`layout.Q_ROW`): one run of tokens in each sequence, with padding left or
  right of it, or keys of a static cache that are not written yet;
- what sdpa_mask makes, bool [B, 1, n_q, n_kv]: anything else (sliding windows, packed sequences, holes), and one query.
Four axes, because transformers passes prepared masks of four axes on as they are.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers.masking_utils import causal_mask_function, sdpa_mask

from ..layout import KV_ROW, N_KV, N_LENGTH, N_Q, Q_ROW, Q_START


def prism_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | torch.Tensor = 0,
    kv_offset: int = 0,
    mask_function: Callable = causal_mask_function,
    attention_mask: torch.Tensor | None = None,
    **kwargs,
) -> torch.Tensor | None:
    """The mask function registered beside the attention; arguments are transformers'."""
    if mask_function is causal_mask_function and q_length > 1 and isinstance(kv_offset, int) and kv_offset == 0:
        padding = None if attention_mask is None else attention_mask[:, :kv_length]
        at_end = isinstance(q_offset, int) and q_offset + q_length == kv_length
        if at_end and padding is None:
            return None
        lengths = _lengths(batch_size, q_length, kv_length, q_offset, padding)
        if torch.compiler.is_compiling():
            return lengths
        if lengths is not None:
            if at_end and bool((lengths[N_KV] == kv_length).all()):
                return None
            lengths._prism_rows = {}  # kept for all layers of this forward pass
            return lengths
    # q_offset of a tensor with is_causal would be taken for granted: let sdpa_mask look at everything.
    return sdpa_mask(
        batch_size=batch_size,
        q_length=q_length,
        kv_length=kv_length,
        q_offset=q_offset,
        kv_offset=kv_offset,
        mask_function=mask_function,
        attention_mask=attention_mask,
        **kwargs,
    )


def _lengths(
    batch_size: int, q_length: int, kv_length: int, q_offset: int | torch.Tensor, padding: torch.Tensor | None
) -> torch.Tensor | None:
    """int32 [5, B, 1, 1]; None if some sequence's tokens are not one run.

    padding: [B, at most kv_length], true where a token is. One copy from the GPU a forward pass.
    """
    offset = torch.as_tensor(q_offset, dtype=torch.int32).to("cpu")
    last = offset + q_length  # no query sees keys from here on
    if padding is None:
        first, end = torch.zeros(batch_size, dtype=torch.int32), last.expand(batch_size)
    else:
        valid = padding.to("cpu", torch.bool)
        index = torch.arange(valid.shape[1], dtype=torch.int32)
        valid = valid & (index < last)
        count = valid.sum(1, dtype=torch.int32)
        first = torch.where(count > 0, valid.int().argmax(1).int(), 0)
        end = torch.where(valid, index + 1, 0).amax(1)
        if torch.compiler.is_compiling():
            torch._assert_async((count == end - first).all(), "prism_attn: padding inside a sequence; do not compile")
        elif not bool((count == end - first).all()):
            return None
    q_row = (first - offset).clamp(0, q_length)
    n_q = ((end - offset).clamp(0, q_length) - q_row).clamp(min=0)
    rows = {
        Q_ROW: q_row,
        N_Q: n_q,
        KV_ROW: first,
        N_KV: end - first,
        Q_START: torch.where(n_q > 0, offset + q_row - first, 0),
    }
    return torch.stack([rows[i].expand(batch_size).int() for i in range(N_LENGTH)])[:, :, None, None].contiguous()


def is_lengths(mask: torch.Tensor | None) -> bool:
    """Whether a mask is the second form above."""
    if mask is None or mask.dtype != torch.int32:
        return False
    return mask.dim() == 4 and mask.shape[0] == N_LENGTH and mask.shape[2:] == (1, 1)


def to_bool(lengths: torch.Tensor, q_length: int, kv_length: int, device: torch.device) -> torch.Tensor:
    """What sdpa_mask would have made of the same sequences: bool [B, 1, n_q, n_kv]."""
    x = lengths.to(device).view(N_LENGTH, -1, 1, 1, 1)
    i = torch.arange(q_length, device=device)[:, None]
    j = torch.arange(kv_length, device=device)[None, :]
    position = i - x[Q_ROW] + x[Q_START] + x[KV_ROW]
    return (j >= x[KV_ROW]) & (j < x[KV_ROW] + x[N_KV]) & (j <= position)
