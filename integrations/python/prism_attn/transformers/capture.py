"""The plans of a prefill, layer by layer."""

from __future__ import annotations

import torch
from torch import nn
from transformers import AttentionInterface

from ..api import plan as build_plan
from ..plans import Plan
from . import interface


def capture_plans(model: nn.Module, layers: list[int] | None = None, **inputs: torch.Tensor) -> dict[int, Plan]:
    """Runs one forward pass of an enabled model and returns the plan of each layer that was the library's.

    layers: which (None: all). inputs: the model's, one unpadded sequence. Not for use from several threads.
    """
    plans: dict[int, Plan] = {}

    def spy(module, query, key, value, attention_mask, **kwargs):
        config, _ = interface.layer_config(module, key.shape[2])
        wanted = layers is None or module.layer_idx in layers
        if config and wanted and attention_mask is None and query.shape[2] >= interface.FEW_QUERIES:
            plans[module.layer_idx] = build_plan(query, key, config=config, scale=kwargs.get("scaling"))
        return interface.prism_attention(module, query, key, value, attention_mask, **kwargs)

    AttentionInterface.register("prism", spy)
    try:
        with torch.no_grad():
            model(**inputs, use_cache=False, logits_to_keep=1)
    finally:
        AttentionInterface.register("prism", interface.prism_attention)
    return plans
