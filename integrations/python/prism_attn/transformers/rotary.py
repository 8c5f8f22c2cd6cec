"""Rotary frequencies of an attention layer, read from the model by asking its own code.

The model's rotary module says cosines and sines, its apply_rotary_pos_emb says which dimensions they turn: applied at
position 1 to every unit vector, they show each pair and its angle, whatever the layout (half-split, interleaved,
partial), scaling (linear, YaRN, Llama 3, LongRoPE) or axes (multi-axis rotation of vision models).
"""

from __future__ import annotations

import inspect
import math
import sys

import torch
from torch import nn

from ..rope import NoRotation, Rope

_APPLY = ("apply_rotary_pos_emb", "apply_multimodal_rotary_pos_emb")


def rotation_of(module: nn.Module, n_token: int) -> Rope:
    """The rotation of an attention layer's heads for prompts of n_token tokens (some scalings depend on it)."""
    if not _turns(module):
        raise NoRotation("this layer has no rotary positions")
    code = sys.modules[type(module).__module__]
    apply = next((getattr(code, name) for name in _APPLY if hasattr(code, name)), None)
    rotary = getattr(module, "_prism_rotary", None) or _make_rotary(module, code)
    name = type(module).__name__
    if apply is None or rotary is None:
        raise NoRotation(f"{name}: no rotary embedding found in {code.__name__}")
    try:
        with torch.no_grad():
            return _probe(rotary, apply, module, n_token)
    except NoRotation:
        raise
    except Exception as error:  # code of the model's, called with arguments that it may not take
        raise NoRotation(f"{name}: its rotary code could not be asked ({type(error).__name__}: {error})") from error


def regime_length(module: nn.Module, n_token: int) -> int:
    """A prompt length with the frequencies of n_token tokens; most scalings have the same for all lengths."""
    parameters = getattr(module.config, "rope_parameters", None) or {}
    parameters = parameters.get(getattr(module, "layer_type", None), parameters)
    kind = parameters.get("rope_type")
    if kind == "longrope":
        original = parameters.get("original_max_position_embeddings", 0)
        return original + 1 if n_token > original else original
    length = 2
    if kind == "dynamic":  # stretches with the length; the order of the frequencies, which bands need, stays
        while length < n_token:
            length *= 2
    return length


def _turns(module: nn.Module) -> bool:
    if getattr(module, "use_rope", True) in (False, 0):  # Llama 4, SmolLM3, EXAONE 4
        return False
    return not (type(module).__name__.startswith("Cohere2") and getattr(module, "sliding_window", None) is None)


def _make_rotary(module: nn.Module, code) -> nn.Module | None:
    """The rotary class that stands beside the attention class in the model's code, on the layer's configuration."""
    stem = type(module).__name__.removesuffix("Attention")
    while stem:
        found = getattr(code, f"{stem}RotaryEmbedding", None)
        if found is not None:
            return found(module.config)
        stem = stem[:-1]
    return None


def _head_width(module: nn.Module) -> int:
    config = module.config
    for holder in (module, config):
        if getattr(holder, "head_dim", None):
            return holder.head_dim
    return config.hidden_size // config.num_attention_heads


def _probe(rotary: nn.Module, apply, module: nn.Module, n_token: int) -> Rope:
    d = _head_width(module)
    positions = torch.tensor([[1, max(n_token - 1, 1)]])  # the second one tells scalings the length
    x = torch.zeros(1, 2, d)
    kwargs = {}
    if "layer_type" in inspect.signature(rotary.forward).parameters:
        kwargs["layer_type"] = module.layer_type
    device = next((b.device for b in rotary.buffers()), torch.device("cpu"))
    positions, x = positions.to(device), x.to(device)
    try:
        cos, sin = rotary(x, positions, **kwargs)
    except Exception:  # multi-axis modules may want their axes spelt out
        cos, sin = rotary(x, positions.expand(3, 1, 2), **kwargs)
    units = torch.eye(d, device=device)[None, :, None, :]  # [1, d "heads", 1 token, d]
    turned = _apply(apply, units, cos, sin, module)[0, :, 0].double().cpu()
    return _read_pairs(turned)


def _apply(apply, units: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, module: nn.Module) -> torch.Tensor:
    multi_axis = "mrope_section" in inspect.signature(apply).parameters
    args = [module.config.rope_parameters["mrope_section"]] if multi_axis else []
    cos, sin = cos[..., :1, :], sin[..., :1, :]
    try:
        return apply(units, units, cos, sin, *args)[0]
    except RuntimeError:  # the layer turns its first dimensions only, and cuts them out itself
        n = cos.shape[-1]
        head = apply(units[..., :n], units[..., :n], cos, sin, *args)[0]
        return torch.cat([head, units[..., n:]], dim=-1)


def _read_pairs(turned: torch.Tensor) -> Rope:
    """turned [d, d]: row j is unit vector j after the rotation, c * (cos at j, +-sin at its partner)."""
    d = turned.shape[0]
    pairs, frequencies = [], []
    for j in range(d):
        others = turned[j].abs().clone()
        others[j] = 0
        partner = int(others.argmax())
        if others[partner] == 0 or partner < j:
            continue
        if int((others > 0).sum()) > 1 or turned[partner, j] == 0:
            raise NoRotation(f"dimension {j} does not turn in one pair")
        pairs.append((j, partner))
        frequencies.append(math.atan2(float(others[partner]), float(turned[j, j])))
    if not pairs:
        raise NoRotation("no dimension turns")
    return Rope(d, tuple(pairs), tuple(frequencies))
