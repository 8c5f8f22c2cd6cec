#!/usr/bin/env python3
"""Packs the recorded tensors of the authors' code into the small files that test_golden reads.

    pack.py SOURCE_DIR [OUT_DIR]

SOURCE_DIR holds golden_book_layer2.safetensors and golden_needle_layer5.safetensors: q [4][4096][128] and k, v
[2][4096][128] in bf16 of two layers, the authors' output at p = 0.95, and block masks at p = 0.90 and 0.95, the authors'
own (bf16 arithmetic) and recomputed in float64.

Written: one head in full (q, its k and, for the book, its v and every 8th row of the output), the block means of all
heads in f32, and all masks, one bit a block.
"""
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

BLOCK = 128
JOBS = {"golden_book_layer2": ("book.safetensors", 1, True), "golden_needle_layer5": ("needle.safetensors", 3, False)}


def block_means(x):
    heads, tokens, dims = x.shape
    return x.double().view(heads, tokens // BLOCK, BLOCK, dims).mean(2).float().contiguous()


def pack(source, head, with_output):
    kv_head = head * source["k"].shape[0] // source["q"].shape[0]
    out = {
        "head": torch.tensor([head], dtype=torch.int32),
        "q": source["q"][head : head + 1].contiguous(),
        "k": source["k"][kv_head : kv_head + 1].contiguous(),
        "q_mean": block_means(source["q"]),
        "k_mean": block_means(source["k"]),
    }
    if with_output:
        out["v"] = source["v"][kv_head : kv_head + 1].contiguous()
        out["out_p95"] = source["out_p95"][head : head + 1, ::8].contiguous()
    for name, mask in source.items():
        if name.startswith("mask_"):
            bits = np.packbits(mask.numpy().astype(bool), axis=None, bitorder="little")
            out[name] = torch.from_numpy(bits)
    return out


def main():
    source_dir = Path(sys.argv[1])
    out_dir = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).parent
    for stem, (name, head, with_output) in JOBS.items():
        source = load_file(source_dir / f"{stem}.safetensors")
        save_file(pack(source, head, with_output), out_dir / name)
        print(out_dir / name, (out_dir / name).stat().st_size, "bytes")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main()
