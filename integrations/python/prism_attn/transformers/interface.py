"""The attention function that transformers calls in every layer."""

from __future__ import annotations

import torch
from torch import nn

from .. import counting, torch_ops
from .._abi import PrismError
from ..config import has_bands, make_config
from ..rope import NoRotation
from ..settings import Settings
from .dense import dense_attention
from .mask import is_lengths
from .rotary import regime_length, rotation_of

FEW_QUERIES = 32  # below it a plan gains nothing, and checking guessed tokens (assisted decoding) must be exact

_op = torch.ops.prism_attn.attention
SINKS_CONFIG = make_config("dense", note="sinks")
default_settings = Settings.of()


def set_default_settings(settings: Settings) -> None:
    """For layers without settings of their own."""
    global default_settings
    default_settings = settings


def _settings_of(module: nn.Module) -> Settings:
    own = getattr(module, "_prism_settings", None)
    return default_settings if own is None else own


def layer_config(module: nn.Module, n_token: int) -> tuple[str, str]:
    """(configuration, ""), or ("", why this layer cannot be sparse)."""
    return _kept_config(module, _settings_of(module).text, regime_length(module, n_token))


@torch.compiler.assume_constant_result
def _kept_config(module: nn.Module, settings_text: str, length: int) -> tuple[str, str]:
    """A compiled graph holds the result; its guards are on the arguments, so other settings compile anew."""
    configs = module.__dict__.setdefault("_prism_configs", {})
    key = settings_text, length
    if key not in configs:
        configs[key] = _find_config(module, _settings_of(module), length)
    return configs[key]


def _find_config(module: nn.Module, settings: Settings, n_token: int) -> tuple[str, str]:
    rope = None
    if has_bands(settings.method):
        try:
            rope = rotation_of(module, n_token)
        except NoRotation as why:
            return "", str(why)
    return settings.config(rope), ""


def _why_not(module: nn.Module, query, key, value, mask, dropout: float, kwargs: dict) -> str:
    """The reason why PyTorch computes this call; "" if the library can."""
    if query.shape[2] < FEW_QUERIES:
        return "one query" if query.shape[2] == 1 else "few queries"
    if not kwargs.get("is_causal", True) or not getattr(module, "is_causal", True):
        return "not causal"
    if kwargs.get("sliding_window") is not None and key.shape[2] > kwargs["sliding_window"]:
        return "sliding window"
    if mask is not None and not is_lengths(mask):
        if not (mask.dtype is torch.bool or mask.is_floating_point()):
            raise TypeError(f"attention_mask of 4 axes is {mask.dtype}: pass bool (true: seen), or floats to be added")
        return "mask is not causal with padding"
    if kwargs.get("softcap") is not None:
        return "softcap"
    if kwargs.get("position_bias") is not None or kwargs.get("cache") is not None:
        return "position bias or paged cache of transformers"
    if dropout:
        return "dropout"
    if module.training:  # checkpoints compute without gradients first, then again with them: both must be one function
        return "model in training mode"
    if torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad):
        return "gradients wanted"
    if not query.dtype == key.dtype == value.dtype or query.dtype not in torch_ops.DTYPES:
        return f"types {query.dtype}, {key.dtype}, {value.dtype}"
    if key.shape != value.shape or query.shape[-1] != key.shape[-1] or key.shape[-1] > 256:
        return f"head of {query.shape[-1]} and {value.shape[-1]} dimensions"
    if query.shape[1] % key.shape[1]:
        return "query heads are no multiple of KV heads"
    if query.is_cuda and query.dtype is torch.float32:
        return "float32 on a GPU, where the library has no tensor cores for it"
    if query.device.type not in ("cpu", "cuda"):
        return f"device {query.device.type}"
    return ""


def prism_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs,
) -> tuple[torch.Tensor, None]:
    """query [B, n_head, n_q, d], key and value [B, n_kv_head, n_kv, d], after rotation and cache; returns
    ([B, n_q, n_head, d], None)."""
    layer = getattr(module, "layer_idx", None)
    layer = -1 if layer is None else layer
    why = _why_not(module, query, key, value, attention_mask, dropout, kwargs)
    sinks = kwargs.get("s_aux")
    config = ""
    if not why:
        if sinks is not None:  # exact, by the library's full plan: the sink's share is known from the denominator
            config = SINKS_CONFIG
        else:
            config, why = layer_config(module, key.shape[2])
    if why:
        count(layer, f"dense: {why}", query.shape[0] * query.shape[2])
        return dense_attention(module, query, key, value, attention_mask, scaling, dropout, **kwargs)
    lengths = attention_mask
    n_seq, n_head, n_q, d = query.shape
    make = torch.zeros if lengths is not None else torch.empty
    out = make((n_seq, n_q, n_head, d), dtype=query.dtype, device=query.device)
    # Rows of padding stay zero, not whatever memory held: dense layers may multiply them by a weight of 0.
    lse = make((n_seq, n_head, n_q), dtype=torch.float32, device=query.device) if sinks is not None else None
    where = (scaling or 0.0, -1, lengths, None, 0, 0, layer)
    try:
        _op(query, key, value, out.transpose(1, 2), lse, config, "bhnd", "bhnd", *where)
    except PrismError as refused:
        if refused.status != "PRISM_ERROR_UNSUPPORTED":
            raise
        count(layer, f"dense: {refused}", n_seq * n_q)
        return dense_attention(module, query, key, value, attention_mask, scaling, dropout, **kwargs)
    if sinks is not None:
        share = torch.sigmoid(lse.transpose(1, 2) - sinks.float())  # of the keys in the denominator with the sink
        out = (out * share[..., None]).to(out.dtype)
    return out, None


def count(layer: int, path: str, n_query: int) -> None:
    """A call that was not the library's, into stats()."""
    if torch.compiler.is_compiling():
        _count_traced(layer, path + " (compiled: counted once)")
    else:
        counting.record(layer, path, queries=n_query)


@torch.compiler.assume_constant_result
def _count_traced(layer: int, path: str) -> int:
    counting.record(layer, path)
    return 0


__all__ = ["Settings", "layer_config", "prism_attention", "set_default_settings"]
