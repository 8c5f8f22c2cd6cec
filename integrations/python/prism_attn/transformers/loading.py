"""Models from a Hugging Face directory or name, or from one GGUF file."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase


def source_of(model: str) -> dict[str, str]:
    """Arguments for from_pretrained: a path that ends in .gguf is a file of its directory."""
    path = Path(model)
    if path.suffix == ".gguf":
        return {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    return {"pretrained_model_name_or_path": model}


def load(
    model: str, dtype: torch.dtype | str = "auto", device: str = "cpu", attention: str = "prism"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal language model with its tokenizer, ready for inference. GGUF weights are widened to dtype (needs the
    gguf package)."""
    source = source_of(model)
    tokenizer = AutoTokenizer.from_pretrained(**source)
    loaded = AutoModelForCausalLM.from_pretrained(**source, dtype=dtype, attn_implementation=attention)
    return loaded.to(device).eval(), tokenizer
