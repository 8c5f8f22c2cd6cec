#!/usr/bin/env python3
"""Draws the block plan of one head, full attention beside it.

    prism run -m MODEL --ruler-json examples/needle-16k.json -n 0 --plan plan.safetensors
    tools/plot_plan.py plan.safetensors --layer 3 --head 1 -o plan.png
"""
import argparse
import json
import struct
import sys

try:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np
except ImportError:
    sys.exit("plot_plan.py: python3 lacks matplotlib: pip install matplotlib, or apt-get install python3-matplotlib")

INK, PAPER = "#1f4e79", "#eef2f6"


def read_masks(path):
    """The method, and every tensor, of a safetensors file of u8 masks [head][query block][key block]."""
    with open(path, "rb") as f:
        (n,) = struct.unpack("<Q", f.read(8))
        header = json.loads(f.read(n))
        data = f.read()
    masks = {
        name: np.frombuffer(data[t["data_offsets"][0] : t["data_offsets"][1]], np.uint8).reshape(t["shape"])
        for name, t in header.items()
        if name != "__metadata__" and t["dtype"] == "U8"
    }
    return header.get("__metadata__", {}).get("method", "this plan"), masks


def draw(axes, mask, title):
    colours = matplotlib.colors.ListedColormap(["white", PAPER, INK])
    causal = np.tril(np.ones_like(mask))
    axes.imshow(causal + mask, cmap=colours, vmin=0, vmax=2, interpolation="nearest")
    axes.set_title(f"{title}: {mask.sum() / causal.sum():.0%} of the blocks", fontsize=11)
    axes.set_xlabel("key block")
    axes.set_ylabel("query block")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", help="file written by prism run --plan, or by prism attend --out")
    parser.add_argument("--layer", type=int, default=0)
    parser.add_argument("--head", type=int, default=0)
    parser.add_argument("-o", "--out", required=True)
    args = parser.parse_args()

    method, masks = read_masks(args.plan)
    name = f"layer.{args.layer}" if f"layer.{args.layer}" in masks else "mask"
    mask = masks[name][args.head]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.6), layout="constrained")
    draw(left, np.tril(np.ones_like(mask)), "full attention")
    draw(right, mask, method)
    figure.savefig(args.out, dpi=130)


if __name__ == "__main__":
    main()
