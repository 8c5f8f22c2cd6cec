#!/usr/bin/env python3
"""Draws the JSON of `prism eval`: plot_eval.py RESULTS.json FILE.svg|FILE.png

needle: a heat map for each method and haystack, context length by depth.
ppl:    token perplexity by position in the window, a curve for each method, a panel for each window length.
recall: attention mass kept, layer by head, a panel for each method.
"""
import json
import sys

try:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
except ImportError:
    sys.exit(4)  # prism eval knows what it means


def label_of(method):
    """The values of a method's options are enough: prism:top_p=0.9 is prism 0.9."""
    name, *options = method.split(":")
    return f"{name} {'/'.join(o.split('=')[-1] for o in options)}".strip()


def panels(n, width, height):
    columns = min(n, 4)
    rows = -(-n // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(width * columns, height * rows), squeeze=False,
                                layout="constrained")
    axes = [a for row in axes for a in row]
    for a in axes[n:]:
        a.axis("off")
    return figure, axes[:n]


def grid_of(data):
    """{(method, haystack): {(ctx, depth): score}} from names like needle/book/word-number/k4/d0.50."""
    grids = {}
    for run in data["runs"]:
        for task, score in run["tasks"].items():
            _, haystack, _, _, depth = task.split("/")
            grids.setdefault((run["method"], haystack), {})[run["ctx"], float(depth[1:])] = score
    return grids


def plot_needle(data):
    grids = grid_of(data)
    figure, axes = panels(len(grids), 3.6, 3.2)
    for axis, ((method, haystack), grid) in zip(axes, grids.items()):
        lengths = sorted({ctx for ctx, _ in grid})
        depths = sorted({depth for _, depth in grid})
        cells = [[grid.get((ctx, depth), float("nan")) for ctx in lengths] for depth in depths]
        image = axis.imshow(cells, vmin=0, vmax=1, cmap="Blues", aspect="auto")
        axis.set_xticks(range(len(lengths)), [f"{n // 1024}K" if n % 1024 == 0 else str(n) for n in lengths])
        axis.set_yticks(range(len(depths)), [f"{d:.0%}" for d in depths])
        for y, row in enumerate(cells):
            for x, score in enumerate(row):
                axis.text(x, y, f"{score:.0%}", ha="center", va="center", fontsize=8,
                          color="white" if score > 0.6 else "black")
        axis.set_title(f"{label_of(method)}, {haystack}\nmean {sum(grid.values()) / len(grid):.1%}", fontsize=9)
        axis.set_xlabel("context, tokens")
        axis.set_ylabel("depth of the needle")
    figure.colorbar(image, ax=axes, label="answered")
    return figure


def plot_ppl(data):
    lengths = sorted({run["ctx"] for run in data["runs"]})
    figure, axes = panels(len(lengths), 5, 3.6)
    for axis, ctx in zip(axes, lengths):
        for run in data["runs"]:
            if run["ctx"] != ctx or "by_position" not in run:
                continue
            ends = [max(128, 2 * b["first"]) for b in run["by_position"]]
            axis.plot(ends, [b["token_perplexity"] for b in run["by_position"]], marker="o",
                      label=f"{label_of(run['method'])} ({run['token_perplexity']:.2f})")
        axis.set_xscale("log", base=2)
        axis.set_xlabel("position in the window, below")
        axis.set_ylabel("token perplexity")
        axis.set_title(f"windows of {ctx}", fontsize=9)
        axis.legend(fontsize=8)
    return figure


def plot_recall(data):
    figure, axes = panels(len(data["runs"]), 3.6, 3.2)
    for axis, run in zip(axes, data["runs"]):
        image = axis.imshow([layer["mass"] for layer in run["layers"]], vmin=0, vmax=1, aspect="auto")
        axis.set_title(label_of(run["method"]), fontsize=9)
        axis.set_xlabel("head")
        axis.set_ylabel("layer")
    figure.colorbar(image, ax=axes, label="attention mass kept")
    return figure


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    with open(sys.argv[1], encoding="utf-8") as f:
        data = json.load(f)
    draw = {"needle": plot_needle, "ppl": plot_ppl, "recall": plot_recall}.get(data["family"])
    if not draw:
        sys.exit(f"plot_eval.py: there is no plot for {data['family']}")
    draw(data).savefig(sys.argv[2], dpi=150)


if __name__ == "__main__":
    main()
