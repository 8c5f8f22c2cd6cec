"""prism-attn in transformers: `attn_implementation="prism"`, or `enable(model)`.

Importing this module registers the attention and its mask; models on transformers' attention interface need nothing
else. Prefill goes through the library; what cannot be sparse (decoding, sliding windows, soft caps, ...) goes to
PyTorch, and prism_attn.stats() says which calls those were and why.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

from ..extras import missing

try:
    from torch import nn
    from transformers import AttentionInterface, AttentionMaskInterface
except ModuleNotFoundError as error:
    raise missing(error, "transformers") from error

from .. import torch_ops
from .interface import Settings, count, layer_config, prism_attention, set_default_settings
from .mask import prism_mask

AttentionInterface.register("prism", prism_attention)
AttentionMaskInterface.register("prism", prism_mask)


def enable(
    model: nn.Module | None = None, *, method: str | None = None, gpu_timing: bool = False, **options: Any
) -> None:
    """Makes a model prefill with `method`, or says what attn_implementation="prism" means from now on.

    model: a loaded transformers model, switched over at once; None: the settings of every model that is loaded with
    attn_implementation="prism" and was not enabled itself. options: the library's, by name (top_p=0.9, min_tokens=2048,
    ...), and n_high, n_low, the sizes of the bands. gpu_timing: stats() has times of GPU calls too.
    """
    settings = Settings.of(method, **options)
    torch_ops.set_gpu_timing(gpu_timing)
    if model is None:
        set_default_settings(settings)
        return
    if not any(_uses_interface(module) for module in model.modules()):
        _say_unused(model)
        return
    for module in model.modules():
        if _is_attention(module):
            module._prism_settings = settings
    _attach_rotary(model)
    _switch(model, "prism")


def disable(model: nn.Module) -> None:
    """Back to the attention that the model had; to PyTorch's where it was loaded with ours."""
    hook = model.__dict__.pop("_prism_unused", None)
    if hook is not None:
        hook.remove()
    else:
        _switch(model, model.__dict__.pop("_prism_before", "sdpa"))


def _switch(model: nn.Module, name: str) -> None:
    """Text towers only, where a model has others: those look both ways."""
    text = "text_config" if "text_config" in getattr(model.config, "sub_configs", {}) else ""
    before = (getattr(model.config, text) if text else model.config)._attn_implementation
    if name == "prism" != before:
        model.__dict__["_prism_before"] = before
    model.set_attn_implementation({text: name} if text else name)


def _is_attention(module: nn.Module) -> bool:
    return type(module).__name__.endswith("Attention") and hasattr(module, "layer_idx") and hasattr(module, "config")


def _uses_interface(module: nn.Module) -> bool:
    """Whether an attention layer's code asks transformers which attention to call."""
    if not type(module).__name__.endswith("Attention"):
        return False
    return any(hasattr(sys.modules[of.__module__], "ALL_ATTENTION_FUNCTIONS") for of in type(module).__mro__)


def _say_unused(model: nn.Module) -> None:
    """A warning now, and a row of stats() for every forward pass."""
    name = type(model).__name__
    warnings.warn(
        f"prism_attn.transformers.enable: {name} has no attention layer on transformers' AttentionInterface, so "
        "nothing in it becomes sparse",
        stacklevel=3,
    )
    if "_prism_unused" not in model.__dict__:
        path = f"dense: {name} does not use transformers' AttentionInterface"
        model.__dict__["_prism_unused"] = model.register_forward_pre_hook(lambda *_: count(-1, path, 0))


def _attach_rotary(model: nn.Module) -> None:
    """Every attention layer is given the model's own rotary module, the nearest above it."""
    for owner in model.modules():
        rotary = getattr(owner, "rotary_emb", None)
        if isinstance(rotary, nn.Module):
            for module in owner.modules():
                if _is_attention(module):
                    module.__dict__["_prism_rotary"] = rotary  # not a submodule: state dicts stay as they are


def apply_patch(model: nn.Module | None = None, model_id: str | None = None, **options: Any) -> nn.Module | None:
    """The authors' spelling. apply_patch(model) enables a loaded model; apply_patch(model_id=...) loads one.

    Returns the model. Options as in `enable`.
    """
    if model is None and model_id is not None:
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(model_id, dtype="auto")
    enable(model, **options)
    return model


__all__ = ["Settings", "apply_patch", "disable", "enable", "layer_config", "prism_attention", "prism_mask"]
