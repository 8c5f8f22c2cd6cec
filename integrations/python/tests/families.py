"""Tiny random models of every family: class, configuration, what is expected of its layers."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import transformers as hf

VOCABULARY = 128
_BASE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 4096,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_MOE = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}


@dataclass(frozen=True)
class Family:
    """paths: what stats() must show for a prefill of 600 tokens with min_tokens=0, in any layer."""

    model: str
    config: str
    options: dict = field(default_factory=dict)
    paths: frozenset[str] = frozenset({"sparse"})

    @property
    def reference(self) -> str:
        """transformers' own attention for it: eager where sdpa lacks something the model needs."""
        return "eager" if getattr(hf, self.model)._supports_sdpa is False else "sdpa"


def _f(model: str, *paths: str, config: str | None = None, **options) -> Family:
    return Family(
        model,
        config or model.replace("ForCausalLM", "Config"),
        options,
        frozenset(paths or {"sparse"}),
    )


_WINDOW = "dense: sliding window"
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 1024,
}
_YARN = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 1024}
_DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
_QUARTER = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.25}
_LONG = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "partial_rotary_factor": 0.75,
    "short_factor": [1.0] * 12,
    "long_factor": [1.0 + j for j in range(12)],
    "original_max_position_embeddings": 512,
}

FAMILIES: dict[str, Family] = {
    "llama": _f("LlamaForCausalLM"),
    "llama3 scaling": _f("LlamaForCausalLM", rope_parameters=_LLAMA3),
    "llama, dynamic": _f("LlamaForCausalLM", rope_parameters=_DYNAMIC, max_position_embeddings=512),
    "gpt-neox (quarter)": _f(
        "GPTNeoXForCausalLM", rope_parameters=_QUARTER,
    ),
    "mistral": _f("MistralForCausalLM", sliding_window=None),
    "mistral, sliding": _f("MistralForCausalLM", _WINDOW, sliding_window=256),
    "mixtral": _f("MixtralForCausalLM", **_MOE),
    "qwen2": _f("Qwen2ForCausalLM"),
    "qwen2 moe": _f("Qwen2MoeForCausalLM", shared_expert_intermediate_size=64, **_MOE),
    "qwen3": _f("Qwen3ForCausalLM"),
    "qwen3, yarn": _f("Qwen3ForCausalLM", rope_parameters=_YARN),
    "qwen3 moe": _f("Qwen3MoeForCausalLM", **_MOE),
    "gemma": _f("GemmaForCausalLM"),
    "gemma2": _f("Gemma2ForCausalLM", _WINDOW, "dense: softcap", sliding_window=256, query_pre_attn_scalar=32),
    "gemma3": _f(
        "Gemma3ForCausalLM", _WINDOW, "sparse", config="Gemma3TextConfig", sliding_window=256,
        layer_types=["sliding_attention", "full_attention"], query_pre_attn_scalar=32,
    ),
    "glm": _f("GlmForCausalLM"),
    "glm4": _f("Glm4ForCausalLM"),
    "gpt-oss": _f(
        "GptOssForCausalLM", _WINDOW, "dense: sinks", sliding_window=128,
        layer_types=["sliding_attention", "full_attention"], **_MOE,
    ),
    "phi3, longrope": _f("Phi3ForCausalLM", rope_parameters=_LONG, original_max_position_embeddings=512),
    "smollm3": _f(
        "SmolLM3ForCausalLM", "sparse", "dense: this layer has no rotary positions", no_rope_layers=[1, 0],
    ),
    "cohere2": _f(
        "Cohere2ForCausalLM", _WINDOW, "dense: this layer has no rotary positions", sliding_window=256,
        layer_types=["sliding_attention", "full_attention"],
    ),
    "olmo2": _f("Olmo2ForCausalLM"),
    "granite": _f("GraniteForCausalLM"),
    "ernie 4.5": _f("Ernie4_5ForCausalLM"),
    "stablelm (partial)": _f("StableLmForCausalLM"),
    "deepseek v3 (MLA)": _f(
        "DeepseekV3ForCausalLM", "dense: head of 48 and 32 dimensions", q_lora_rank=32, kv_lora_rank=32,
        qk_nope_head_dim=32, qk_rope_head_dim=16, v_head_dim=32, n_routed_experts=4, n_group=1, topk_group=1,
        first_k_dense_replace=2, head_dim=16, num_key_value_heads=4,
    ),
}  # fmt: skip


def make(name: str, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    """The model, with the same weights every time."""
    family = FAMILIES[name]
    config = getattr(hf, family.config)(**{**_BASE, **family.options})
    torch.manual_seed(0)
    return getattr(hf, family.model)._from_config(config, attn_implementation=family.reference, dtype=dtype).eval()
