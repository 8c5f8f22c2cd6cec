#!/usr/bin/env python3
"""The perplexity that transformers computes in float32 for a GGUF file, to compare with the runner's.

    python tests/lm/reference_ppl.py MODEL.gguf [--text eval/data/nostromo.txt] [--ctx 4096] [--max-tokens 8192]
    PRISM_PRODUCTS=f32 prism eval ppl -m MODEL.gguf --methods dense --ctx 4096 --max-tokens 8192

Needs torch, transformers, gguf, accelerate (integrations/python/requirements-test.txt). transformers unpacks the
weights, and its tokenizer makes the tokens. Windows are those of eval/ppl.c: the first starts with BOS, each later one with the
last token of the one before.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


@torch.no_grad()
def window_nll(model, inputs: list[int], targets: list[int]) -> float:
    hidden = model.model(torch.tensor([inputs])).last_hidden_state[0]
    nll = 0.0
    for i in range(0, len(targets), 512):  # all logits at once would take gigabytes
        logits = model.lm_head(hidden[i : i + 512]).double()
        wanted = torch.tensor(targets[i : i + 512])
        nll += torch.nn.functional.cross_entropy(logits, wanted, reduction="sum").item()
    return nll


def main() -> None:
    p = argparse.ArgumentParser()
    p.add_argument("model", type=Path)
    p.add_argument("--text", type=Path, default=Path("eval/data/nostromo.txt"))
    p.add_argument("--ctx", type=int, default=4096)
    p.add_argument("--max-tokens", type=int, default=8192, help="a multiple of --ctx")
    a = p.parse_args()
    source = {"pretrained_model_name_or_path": str(a.model.parent), "gguf_file": a.model.name}
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(**source)
    ids = tokenizer(a.text.read_text(encoding="utf-8"), add_special_tokens=False).input_ids[: a.max_tokens]
    before = [tokenizer.bos_token_id, *ids[:-1]]
    nll = sum(window_nll(model, before[i : i + a.ctx], ids[i : i + a.ctx]) for i in range(0, len(ids), a.ctx))
    print(f"{len(ids)} tokens, nll {nll:.4f}, perplexity {math.exp(nll / len(ids)):.6f}")


if __name__ == "__main__":
    main()
