#!/usr/bin/env python3
"""Records what transformers computes, for test_logits.c to compare with. Run again only when the fixtures change.

    python tests/lm/record_logits.py [--gguf models/prism-testbed-32m-q8_0.gguf --config DIR/config.json]

Needs torch, transformers, safetensors, gguf. Everything runs in float32 with eager attention, on exactly the weights
that the runner reads (the GGUF is dequantised, the tiny models are stored in bf16), so that what differs is the order
of float32 additions, and the float32 angles of transformers' RoPE.

Writes tests/lm/data/<name>/{config.json,model.safetensors,tokenizer.json,expected.safetensors} for the tiny models and
tests/lm/data/testbed.safetensors for the bundled one. expected: tokens i32 [n], positions i32 [p], logits f32 [p][v].
"""
import argparse, json, pathlib

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

DATA = pathlib.Path(__file__).parent / "data"

# d_head, RoPE, ties, biases: every branch of the configuration once. 300 tokens pass the original context lengths.
SHAPE = dict(vocab_size=260, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=512, rms_norm_eps=1e-5, bos_token_id=256, eos_token_id=257)
TINY = {
    "llama3": (LlamaConfig, LlamaForCausalLM, dict(
        tie_word_embeddings=False, head_dim=16, attention_bias=True,
        rope_parameters=dict(rope_type="llama3", rope_theta=5e5, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                             original_max_position_embeddings=64))),
    "qwen3-yarn": (Qwen3Config, Qwen3ForCausalLM, dict(
        tie_word_embeddings=True, head_dim=32,
        rope_parameters=dict(rope_type="yarn", rope_theta=1e6, factor=4.0, original_max_position_embeddings=128))),
    "qwen3-linear": (Qwen3Config, Qwen3ForCausalLM, dict(
        tie_word_embeddings=False, head_dim=32,
        rope_parameters=dict(rope_type="linear", rope_theta=1e4, factor=2.0))),
    "llama-plain": (LlamaConfig, LlamaForCausalLM, dict(
        tie_word_embeddings=True, num_attention_heads=2, rope_parameters=dict(rope_type="default", rope_theta=1e4))),
}


def byte_letters():
    """GPT-2's alphabet of bytes."""
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    extra = iter(range(256, 512))
    return [chr(b) if b in keep else chr(next(extra)) for b in range(256)]


def tokenizer_json():
    """Bytes and nothing else: enough for a file to be complete."""
    pattern = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
               r"|\s+(?!\S)|\s+")
    special = lambda i, s: dict(id=i, content=s, single_word=False, lstrip=False, rstrip=False, normalized=False,
                                special=True)
    return dict(
        version="1.0", truncation=None, padding=None, normalizer=None, post_processor=None,
        added_tokens=[special(256, "<|bos|>"), special(257, "<|eos|>")],
        pre_tokenizer=dict(type="Sequence", pretokenizers=[
            dict(type="Split", pattern=dict(Regex=pattern), behavior="Isolated", invert=False),
            dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=False)]),
        decoder=dict(type="ByteLevel", add_prefix_space=True, trim_offsets=True, use_regex=True),
        model=dict(type="BPE", dropout=None, unk_token=None, continuing_subword_prefix=None, end_of_word_suffix=None,
                   fuse_unk=False, byte_fallback=False, ignore_merges=False,
                   vocab={s: i for i, s in enumerate(byte_letters())}, merges=[]))


@torch.no_grad()
def record(model, tokens, positions, path):
    logits = model(torch.tensor([tokens])).logits[0].float()
    assert torch.isfinite(logits).all()
    save_file({"tokens": torch.tensor(tokens, dtype=torch.int32),
               "positions": torch.tensor(positions, dtype=torch.int32),
               "logits": logits[positions].contiguous()}, path)
    print(path, "largest logit", logits.abs().max().item(), "spread", logits.std().item())


def tiny(name):
    config_class, model_class, extra = TINY[name]
    torch.manual_seed(sum(map(ord, name)))
    config = config_class(**{**SHAPE, **extra}, attn_implementation="eager", dtype="float32")
    model = model_class(config).eval()
    for key, p in model.named_parameters():  # wide enough that logits spread and attention is not flat
        torch.nn.init.normal_(p, 1.0 if "norm" in key else 0.0, 0.2 if "norm" in key or "bias" in key else 0.15)
        p.data = p.data.bfloat16().float()
    out = DATA / name
    out.mkdir(parents=True, exist_ok=True)
    state = {k: v.bfloat16().contiguous() for k, v in model.state_dict().items()
             if not (config.tie_word_embeddings and k == "lm_head.weight")}
    save_file(state, out / "model.safetensors", metadata={"format": "pt"})
    written = {k: v for k, v in config.to_dict().items() if v is not None}
    written["architectures"] = [model_class.__name__]
    (out / "config.json").write_text(json.dumps(written, indent=1) + "\n")
    (out / "tokenizer.json").write_text(json.dumps(tokenizer_json(), ensure_ascii=False) + "\n")
    tokens = torch.randint(0, 256, (300,)).tolist()
    record(model, tokens, [0, 1, 63, 127, 128, 200, 298, 299], out / "expected.safetensors")


def testbed(gguf_path, config_path):
    import gguf
    config = Qwen3Config(**json.loads(pathlib.Path(config_path).read_text()), attn_implementation="eager")
    config.dtype = torch.float32
    model = Qwen3ForCausalLM(config).float().eval()
    reader = gguf.GGUFReader(gguf_path)
    names = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
    inner = dict(attn_norm="input_layernorm", ffn_norm="post_attention_layernorm", attn_q="self_attn.q_proj",
                 attn_k="self_attn.k_proj", attn_v="self_attn.v_proj", attn_output="self_attn.o_proj",
                 attn_q_norm="self_attn.q_norm", attn_k_norm="self_attn.k_norm", ffn_gate="mlp.gate_proj",
                 ffn_up="mlp.up_proj", ffn_down="mlp.down_proj")
    state = {}
    for t in reader.tensors:
        key = names.get(t.name)
        if key is None:
            _, layer, part, _ = t.name.split(".")
            key = f"model.layers.{layer}.{inner[part]}.weight"
        state[key] = torch.from_numpy(np.array(gguf.quants.dequantize(t.data, t.tensor_type), dtype=np.float32))
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state)
    field = lambda k: reader.fields[k]
    tokens_text = [bytes(field("tokenizer.ggml.tokens").parts[i]).decode() for i in field("tokenizer.ggml.tokens").data]
    ids = {s: i for i, s in enumerate(tokens_text)}
    # The recipe of a needle prompt, spelled out in whole tokens: any text would do.
    words = ["Ġthe", "Ġold", "Ġman", "Ġsaid", "Ġthat", "Ġhe", "Ġwas", "Ġnot", "Ġin", "Ġhouse", ",", "Ġand", "."]
    rng = np.random.default_rng(7)
    tokens = [0] + [ids[words[i]] for i in rng.integers(0, len(words), 639) if words[i] in ids]
    record(model, tokens, [0, 255, len(tokens) - 1], DATA / "testbed.safetensors")


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--gguf")
    p.add_argument("--config")
    a = p.parse_args()
    for name in TINY:
        tiny(name)
    if a.gguf:
        testbed(a.gguf, a.config)
