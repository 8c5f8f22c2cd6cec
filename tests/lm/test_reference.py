"""The runner against transformers: a random model of every family, in every type of weights and both formats.

The reference computes in double precision from the weights as gguf unpacks them, so that what differs is the runner's
float32, and the float32 angles of transformers' rotary embedding. A mistake of any kind (a permutation, a bias, a
block's scale, an epsilon) costs more than 1e-3 of the largest logit.

Run by make test-python. PRISM_COMMAND names the command of a build; the program lm_logits stands beside it.
"""

from __future__ import annotations

import functools
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.numpy import load_file, save_file

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(os.environ.get("PRISM_COMMAND", ROOT / "build" / "prism")).with_name("lm_logits")
LISTED = subprocess.run([PROGRAM], capture_output=True, text=True, check=True).stdout.split()
TYPES = {name: gguf.GGMLQuantizationType(int(number)) for name, number in zip(LISTED[::2], LISTED[1::2], strict=True)}

N_TOKEN = 150  # more than a block of attention, and than LLAMA3's original context
TOLERANCE = 2e-5  # of the largest logit; measured: up to 1.1e-5


@dataclass(frozen=True)
class Family:
    model: str
    architecture: str  # in GGUF
    options: dict = field(default_factory=dict)


LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
FAMILIES = {
    "llama": Family("Llama", "llama"),
    "llama, tied, scaled": Family("Llama", "llama", {"rope_parameters": LLAMA3, "tie_word_embeddings": True}),
    "llama, biases": Family("Llama", "llama", {"attention_bias": True}),
    "mistral": Family("Mistral", "llama", {"sliding_window": None, "num_key_value_heads": 1}),
    "qwen2": Family("Qwen2", "qwen2", {"tie_word_embeddings": True}),
    "qwen3": Family("Qwen3", "qwen3"),
}
SHAPE = {
    "vocab_size": 96,
    "hidden_size": 256,  # blocks of 256 weights
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def random_model(name: str) -> torch.nn.Module:
    """Weights wide enough that logits spread and attention is not flat."""
    family = FAMILIES[name]
    config = getattr(hf, family.model + "Config")(**{**SHAPE, **family.options})
    torch.manual_seed(sum(map(ord, name)))
    model = getattr(hf, family.model + "ForCausalLM")._from_config(config, attn_implementation="eager").eval()
    for key, p in model.named_parameters():
        torch.nn.init.normal_(p, 1.0 if "norm" in key else 0.0, 0.2 if p.ndim == 1 else 0.06)
    return model


@torch.no_grad()
def reference(model: torch.nn.Module, tokens: np.ndarray) -> np.ndarray:
    return model.double()(torch.from_numpy(tokens).long()[None]).logits[0].numpy()


def judge(path: Path, model: torch.nn.Module, folder: Path) -> None:
    tokens = np.random.default_rng(1).integers(0, SHAPE["vocab_size"], N_TOKEN).astype(np.int32)
    save_file({"tokens": tokens}, folder / "in.safetensors")
    command = [PROGRAM, path, folder / "in.safetensors", folder / "out.safetensors"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ours, theirs = load_file(folder / "out.safetensors")["logits"], reference(model, tokens)
    error = np.abs(ours - theirs).max() / np.abs(theirs).max()
    print(f"{error:.1e} of the largest logit")
    assert error <= TOLERANCE


# ------------------------------------------------------------------------------------------------------- GGUF ----


@functools.cache
def random_blocks(kind: gguf.GGMLQuantizationType) -> np.ndarray:
    """Blocks of random bytes whose values look like weights: for types that gguf unpacks and does not make."""
    rng, found = np.random.default_rng(2), []
    while len(found) < 300:
        bytes_ = rng.integers(0, 256, (8192, gguf.GGML_QUANT_SIZES[kind][1]), dtype=np.uint8)
        with np.errstate(all="ignore"):
            values = gguf.quants.dequantize(bytes_, kind)
            deviation, mean = values.std(axis=1), values.mean(axis=1)
            found += list(bytes_[(deviation > 0.04) & (deviation < 0.08) & (abs(mean) < 0.03)])
    return np.array(found)


def quantise(values: np.ndarray, kind: gguf.GGMLQuantizationType, rng: np.random.Generator) -> np.ndarray:
    try:
        return gguf.quants.quantize(values, kind)
    except NotImplementedError:
        blocks = random_blocks(kind)
        chosen = rng.integers(0, len(blocks), (values.shape[0], values.shape[1] // gguf.GGML_QUANT_SIZES[kind][0]))
        return blocks[chosen].reshape(values.shape[0], -1)


def interleaved(n_head: int, n_row: int) -> np.ndarray:
    """The rows of q and k in a llama GGUF file: pairs (j, j + d / 2) of a head become neighbours."""
    return np.arange(n_row).reshape(n_head, 2, -1).swapaxes(1, 2).reshape(-1)


def write_gguf(path: Path, model: torch.nn.Module, architecture: str, kind: gguf.GGMLQuantizationType) -> None:
    """Writes the model, and sets its weights to what the file holds."""
    c = model.config
    w = gguf.GGUFWriter(path, architecture)
    w.add_block_count(c.num_hidden_layers)
    w.add_context_length(c.max_position_embeddings)
    w.add_embedding_length(c.hidden_size)
    w.add_feed_forward_length(c.intermediate_size)
    w.add_head_count(c.num_attention_heads)
    w.add_head_count_kv(c.num_key_value_heads)
    w.add_key_length(SHAPE["head_dim"])
    w.add_value_length(SHAPE["head_dim"])
    w.add_layer_norm_rms_eps(c.rms_norm_eps)
    w.add_rope_dimension_count(SHAPE["head_dim"])
    w.add_rope_freq_base(c.rope_parameters["rope_theta"])
    w.add_vocab_size(c.vocab_size)
    if c.rope_parameters["rope_type"] == "llama3":
        d = SHAPE["head_dim"]
        plain = c.rope_parameters["rope_theta"] ** -(np.arange(0, d, 2) / d)
        w.add_tensor("rope_freqs.weight", (plain / model.model.rotary_emb.inv_freq.numpy()).astype(np.float32))
    names = gguf.get_tensor_name_map(next(a for a, n in gguf.MODEL_ARCH_NAMES.items() if n == architecture), 2)
    rng = np.random.default_rng(3)
    for key, p in model.named_parameters():  # tied weights once
        values, order = p.detach().numpy(), np.arange(p.shape[0])
        if architecture == "llama" and (".q_proj." in key or ".k_proj." in key):
            heads = c.num_attention_heads if ".q_proj." in key else c.num_key_value_heads
            order = interleaved(heads, p.shape[0])
        name = names.get_name(key, try_suffixes=(".weight", ".bias"))
        if values.ndim == 1:
            w.add_tensor(name, values[order])
            continue
        stored = quantise(values[order], kind, rng)
        w.add_tensor(name, stored, raw_dtype=kind)
        back = np.empty_like(values)
        back[order] = gguf.quants.dequantize(stored, kind)
        p.data = torch.from_numpy(back)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_gguf(tmp_path, family, kind):
    model = random_model(family)
    write_gguf(tmp_path / "model.gguf", model, FAMILIES[family].architecture, TYPES[kind])
    judge(tmp_path / "model.gguf", model, tmp_path)


# ----------------------------------------------------------------------------------------------- directories ----


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_directory(tmp_path, family, dtype):
    model = random_model(family)
    for p in model.parameters():  # and not the buffers, which hold rotary frequencies
        p.data = p.data.to(dtype)
    model.save_pretrained(tmp_path)
    judge(tmp_path, model, tmp_path)
