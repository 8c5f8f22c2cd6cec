#!/usr/bin/env python3
"""Prefill through transformers on a GPU: PyTorch's SDPA with cuDNN against the library's methods, in one run.

    python integrations/python/bench/prefill.py bundled --text eval/data/nostromo.txt
    python integrations/python/bench/prefill.py qwen3-8b --layers 4 --setting prism:top_p=0.1 --setting dense

bundled: the model in the tree on a book. qwen3-8b: as many random layers of that shape on random tokens; random weights
have no structure to select by, so top_p only imposes a density. Best of 3 passes (2 from 100K tokens on), bf16, no
cache. KL is of the last token's distribution, from cuDNN's to ours, in nats.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers as hf
from torch.nn.attention import SDPBackend, sdpa_kernel

import prism_attn
import prism_attn.transformers as pt
from prism_attn.plot import parse_options
from prism_attn.transformers.loading import load

ROOT = Path(__file__).resolve().parents[3]


def qwen3_8b(n_layer: int) -> torch.nn.Module:
    """32 query heads, 8 KV heads of 128, hidden size 4096, MLP 12288."""
    config = hf.Qwen3Config(
        vocab_size=1000, hidden_size=4096, intermediate_size=12288, num_hidden_layers=n_layer, num_attention_heads=32,
        num_key_value_heads=8, head_dim=128, max_position_embeddings=262144,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device("cuda"):
        return hf.Qwen3ForCausalLM._from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa").eval()


def prefill(model: torch.nn.Module, ids: torch.Tensor, n_pass: int) -> tuple[float, torch.Tensor]:
    """Best seconds, and the last token's log-probabilities."""
    best = float("inf")
    with torch.no_grad(), sdpa_kernel([SDPBackend.CUDNN_ATTENTION]):
        for _ in range(n_pass):
            torch.cuda.synchronize()
            start = time.perf_counter()
            logits = model(ids, use_cache=False, logits_to_keep=1).logits
            torch.cuda.synchronize()
            best = min(best, time.perf_counter() - start)
    return best, logits.float().log_softmax(-1)


def cudnn_ms(n_head: int, n_kv_head: int, n_token: int) -> float:
    """Milliseconds of cuDNN's causal attention on one layer's shapes, heads of 128."""
    q, k = (torch.randn(1, h, n_token, 128, device="cuda", dtype=torch.bfloat16) for h in (n_head, n_kv_head))
    best = float("inf")
    with sdpa_kernel([SDPBackend.CUDNN_ATTENTION]):
        for _ in range(4):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            torch.nn.functional.scaled_dot_product_attention(q, k, k, is_causal=True, enable_gqa=True)
            end.record()
            end.synchronize()
            best = min(best, start.elapsed_time(end))
    return best


def compare(model: torch.nn.Module, ids: torch.Tensor, settings: list[tuple[str, dict]]) -> None:
    """One length: a line for cuDNN, a line for each setting."""
    n_token, n_pass, config = ids.shape[1], 3 if ids.shape[1] < 100_000 else 2, model.config
    model.set_attn_implementation("sdpa")
    dense, expected = prefill(model, ids, n_pass)
    layer = cudnn_ms(config.num_attention_heads, config.num_key_value_heads, n_token)
    print(f"{n_token:>7} cuDNN: prefill {dense * 1e3:.1f} ms, attention {layer:.2f} ms a layer", flush=True)
    for method, options in settings:
        pt.enable(model, method=method, gpu_timing=True, **options)
        prefill(model, ids, 1)
        prism_attn.reset_stats()
        seconds, got = prefill(model, ids, n_pass)
        stats = prism_attn.stats()
        ms = [row.attend_seconds / row.calls * 1e3 for row in stats.rows]
        kl = torch.nn.functional.kl_div(got, expected, log_target=True, reduction="sum")
        print(
            f"{n_token:>7} {method} {options}: prefill {seconds * 1e3:.1f} ms ({dense / seconds:.2f}x), attention "
            f"with selection {sum(ms) / len(ms):.2f} ms a layer ({min(ms):.2f} to {max(ms):.2f}; "
            f"{layer * len(ms) / sum(ms):.1f}x), density {stats.density:.3f}, KL {float(kl):.1e}, {stats.reasons()}",
            flush=True,
        )


def token_source(args: argparse.Namespace) -> tuple[torch.nn.Module, Callable[[int], torch.Tensor]]:
    """The model, and what gives n tokens, [1, n]."""
    if args.model == "qwen3-8b":
        generator = torch.Generator().manual_seed(0)
        return qwen3_8b(args.layers), lambda n: torch.randint(0, 1000, (1, n), generator=generator).cuda()
    model, tokenizer = load(args.gguf, torch.bfloat16, "cuda", attention="sdpa")
    ids = tokenizer(Path(args.text).read_text(encoding="utf-8"), return_tensors="pt").input_ids.cuda()
    return model, lambda n: ids[:, :n].contiguous()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=["bundled", "qwen3-8b"])
    parser.add_argument("--gguf", default=str(ROOT / "models/prism-testbed-32m-q8_0.gguf"))
    parser.add_argument("--text", default=str(ROOT / "eval/data/nostromo.txt"))
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--lengths", type=int, nargs="+", default=[32768, 65536, 131008])
    parser.add_argument("--setting", action="append", metavar="METHOD[:NAME=VALUE,...]")
    args = parser.parse_args()

    settings = []
    for setting in args.setting or ["prism", "moments", "dense"]:
        method, _, options = setting.partition(":")
        settings.append((method, parse_options(options.split(",") if options else [])))
    model, tokens = token_source(args)
    for n in args.lengths:
        compare(model, tokens(n), settings)
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
