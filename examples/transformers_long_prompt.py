#!/usr/bin/env python3
"""A long prompt through transformers, with prism-attn and with PyTorch's attention.

    pip install ./integrations/python transformers gguf
    python examples/transformers_long_prompt.py

Reads the bundled model (GGUF) and a bundled needle prompt by default; any causal language model on transformers'
attention interface and any text will do: --model NAME_OR_DIRECTORY --prompt book.txt.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

import prism_attn
import prism_attn.transformers
from prism_attn.plot import parse_options, read_prompt
from prism_attn.transformers.loading import load

ROOT = Path(__file__).resolve().parent.parent


def answer(model, tokenizer, ids: torch.Tensor, n_token: int) -> tuple[str, float, float]:
    """Greedy continuation, seconds of prefill, seconds of decoding. ids: [1, n]."""
    with torch.no_grad():
        start = time.perf_counter()
        out = model(ids, logits_to_keep=1)
        if ids.is_cuda:
            torch.cuda.synchronize()
        prefill = time.perf_counter()
        tokens = [out.logits[:, -1:].argmax(-1)]
        for _ in range(n_token - 1):
            out = model(tokens[-1], past_key_values=out.past_key_values)
            tokens.append(out.logits[:, -1:].argmax(-1))
        text = tokenizer.decode(torch.cat(tokens, 1)[0])
    return text, prefill - start, time.perf_counter() - prefill


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(ROOT / "models/prism-testbed-32m-q8_0.gguf"))
    parser.add_argument("--prompt", default=str(ROOT / "examples/needle-16k.json"), help="text or RULER prompt file")
    parser.add_argument("--method", default="prism")
    parser.add_argument("-o", "--option", action="append", default=[], metavar="NAME=VALUE", help="e.g. top_p=0.9")
    parser.add_argument("-n", "--n-token", type=int, default=10)
    parser.add_argument("--max-prompt", type=int, default=1 << 30, help="tokens of the prompt, from its end")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()

    model, tokenizer = load(args.model, getattr(torch, args.dtype), args.device, attention="sdpa")
    ids = tokenizer(read_prompt(args.prompt), return_tensors="pt").input_ids[:, -args.max_prompt :].to(args.device)
    print(f"{ids.shape[1]} tokens, {args.dtype}, {args.device}")
    for name in ("PyTorch", args.method):
        if name == args.method:
            prism_attn.transformers.enable(model, method=name, **parse_options(args.option))
        text, prefill, decode = answer(model, tokenizer, ids, args.n_token)
        print(f"{name:>10}: {text!r}   prefill {prefill:.2f} s, decoding {decode:.2f} s")
    print(prism_attn.stats())


if __name__ == "__main__":
    main()
