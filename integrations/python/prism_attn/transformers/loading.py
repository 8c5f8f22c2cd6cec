"""Models from a Hugging Face directory or name, or from one GGUF file.

`python -m prism_attn.transformers.loading FILE.gguf FOLDER` writes the directory that serving engines want.
"""

from __future__ import annotations

import json
import sys
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


def write_directory(file: str, folder: str | Path, dtype: torch.dtype = torch.bfloat16) -> None:
    """A GGUF file as a Hugging Face directory of plain weights: config.json, model.safetensors, the tokenizer."""
    from safetensors.torch import save_file

    model, tokenizer = load(file, dtype, attention="sdpa")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    config = model.config.to_dict() | {"architectures": [type(model).__name__], "dtype": str(dtype).partition(".")[2]}
    config.pop("quantization_config", None)  # says GGUF; the weights were widened
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    tied = {"lm_head.weight"} if config.get("tie_word_embeddings") else set()
    weights = {name: x.to(dtype).contiguous() for name, x in model.state_dict().items() if name not in tied}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    write_directory(*sys.argv[1:])
