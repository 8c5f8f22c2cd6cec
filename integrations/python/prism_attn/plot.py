"""Draws the block plan of a layer's heads on a prompt.

    python -m prism_attn.plot MODEL --prompt book.txt --layer 2 --head 7 --out plan.png

MODEL: a GGUF file, a Hugging Face directory or name. Needs transformers and matplotlib.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from .config import default_method
from .extras import missing

INK, PAPER = "#1f4e79", "#eef2f6"


def draw(axes, mask: np.ndarray, title: str) -> None:
    """mask: bool [query block, key block] of one head; dark squares are computed, pale ones skipped."""
    from matplotlib.colors import ListedColormap

    n_q, n_k = mask.shape
    causal = np.tril(np.ones_like(mask, dtype=int), n_k - n_q)
    axes.imshow(causal + mask, cmap=ListedColormap(["white", PAPER, INK]), vmin=0, vmax=2, interpolation="nearest")
    axes.set_title(f"{title}: {mask.sum() / causal.sum():.0%}", fontsize=10)
    axes.set_xlabel("key block")
    axes.set_ylabel("query block")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def read_prompt(path: str) -> str:
    """Text, or the first prompt of a RULER file."""
    text = Path(path).read_text(encoding="utf-8")
    if path.endswith(".json"):
        import json

        return next(iter(json.loads(text).values()))["origin_prompt"][0]["prompt"]
    return text


def parse_options(pairs: list[str]) -> dict[str, float]:
    """["top_p=0.9"] -> {"top_p": 0.9}; words stay words."""

    def value(text: str):
        try:
            return int(text) if text.lstrip("+-").isdigit() else float(text)
        except ValueError:
            return text

    return {name: value(text) for name, text in (pair.split("=", 1) for pair in pairs)}


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser("python -m prism_attn.plot", description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--prompt", required=True, help="text, or a RULER prompt file (.json)")
    parser.add_argument("--layer", type=int, required=True)
    parser.add_argument("--head", type=int, nargs="+", default=[0])
    parser.add_argument("--method", default=default_method())
    parser.add_argument("-o", "--option", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--max-tokens", type=int, default=1 << 30)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", required=True, help="picture (.png, .svg, .pdf)")
    args = parser.parse_args(argv)

    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise missing(error, "plot") from error
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from .transformers import enable
    from .transformers.capture import capture_plans
    from .transformers.loading import load

    model, tokenizer = load(args.model, device=args.device)
    enable(model, method=args.method, **parse_options(args.option))
    ids = tokenizer(read_prompt(args.prompt), return_tensors="pt").input_ids[:, : args.max_tokens].to(args.device)
    plans = capture_plans(model, [args.layer], input_ids=ids)
    if args.layer not in plans:
        raise SystemExit(f"layer {args.layer} made no plan: it is not there, or its attention is dense")
    plan = plans[args.layer]
    masks = plan.mask()[0]
    figure, axes = plt.subplots(
        1, len(args.head), figsize=(4.5 * len(args.head), 4.6), layout="constrained", squeeze=False
    )
    for axis, head in zip(axes[0], args.head, strict=True):
        draw(axis, masks[head], f"{args.method}, layer {args.layer}, head {head}")
    figure.savefig(args.out, dpi=130)
    print(f"{args.out}: {ids.shape[1]} tokens, {plan}")


if __name__ == "__main__":
    main()
