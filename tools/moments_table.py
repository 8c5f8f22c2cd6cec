#!/usr/bin/env python3
"""Tables and plot of tools/moments_study.sh: moments_table.py DIRECTORY [FILE.svg|FILE.png]

Per context length and method: perplexity above full attention on the same windows with its standard error over windows,
needles answered with theirs over prompts (paired with full attention), density, and work (operations of choosing,
correcting and attending, full attention being 1) of both. FILE gets the frontiers: loss and needles against work.
"""
import glob
import json
import math
import os
import sys


def records(pattern):
    """{(ctx, method): {(task, sample): record}}, the last of each"""
    found = {}
    for path in sorted(glob.glob(pattern)):
        with open(path, encoding="utf-8") as f:
            for line in f:
                r = json.loads(line)
                if "method" in r:
                    key = os.path.basename(path), r["task"], r["sample"]
                    found.setdefault((r["ctx"], r["method"]), {})[key] = r
    return found


def mean_and_error(values):
    n = len(values)
    mean = sum(values) / n
    spread = sum((v - mean) ** 2 for v in values) / (n - 1) if n > 1 else math.nan
    return mean, math.sqrt(spread / n)


def against(runs, dense, value):
    """Mean of value(record, dense record) over what both have, its error; mean density; work; n."""
    both = [(runs[k], dense[k]) for k in runs if k in dense]
    if not both:
        return None
    mean, error = mean_and_error([value(r, d) for r, d in both])
    density = sum(r["density"] for r, _ in both) / len(both)
    work = sum(r["work_flop"] for r, _ in both) / sum(d["work_flop"] for _, d in both)
    return {"mean": mean, "error": error, "density": density, "work": work, "n": len(both)}


def loss(r, d):
    return (r["nll"] - d["nll"]) / r["tokens"]


def table(ctx, ppl, needle):
    methods = [m for c, m in ppl if c == ctx] or [m for c, m in needle if c == ctx]
    rows = {}
    for m in methods:
        rows[m] = (against(ppl.get((ctx, m), {}), ppl.get((ctx, "dense"), {}), loss),
                   against(needle.get((ctx, m), {}), needle.get((ctx, "dense"), {}), lambda r, d: r["score"] - d["score"]))
    print(f"\n{ctx} tokens\n\n| method | perplexity above dense, % | density | work | needles against dense, points | density | work |")
    print("|---|---|---|---|---|---|---|")
    for m, (p, n) in rows.items():
        text = [m]
        text += [f"{100 * math.expm1(p['mean']):+.2f} ± {100 * p['error']:.2f}", f"{p['density']:.3f}",
                 f"{p['work']:.3f}"] if p else [""] * 3
        text += [f"{100 * n['mean']:+.1f} ± {100 * n['error']:.1f}", f"{n['density']:.3f}", f"{n['work']:.3f}"] if n else [""] * 3
        print("| " + " | ".join(text) + " |")
    return rows


def family(method):
    """What a curve joins: a method and its correction, whatever the threshold."""
    name, *options = method.split(":")
    return " ".join([name] + [o.replace("correct=", "+ ").replace("block_size=", "blocks of ") for o in options
                              if o.startswith(("correct=", "block_size="))])


def plot(tables, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    figure, axes = plt.subplots(2, len(tables), figsize=(5 * len(tables), 7), squeeze=False, layout="constrained")
    for column, (ctx, rows) in enumerate(tables.items()):
        for axis, which, scale in ((axes[0][column], 0, 100), (axes[1][column], 1, 100)):
            curves = {}
            for method, row in rows.items():
                if row[which] and method != "dense":
                    curves.setdefault(family(method), []).append(row[which])
            for name, points in curves.items():
                points.sort(key=lambda p: p["work"])
                axis.errorbar([p["work"] for p in points], [scale * p["mean"] for p in points],
                              yerr=[scale * p["error"] for p in points], marker="o", markersize=4, capsize=2, label=name)
            axis.set_xlabel("work, full attention = 1")
            axis.set_xlim(left=0)
            axis.axhline(0, color="gray", linewidth=0.6)
        axes[0][column].set_title(f"{ctx} tokens")
        axes[0][column].set_ylabel("perplexity above full attention, %")
        axes[0][column].set_yscale("symlog", linthresh=1)
        axes[1][column].set_ylabel("needles against full attention, points")
        axes[0][column].legend(fontsize=7)
    figure.savefig(path, dpi=150)


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    ppl = records(os.path.join(sys.argv[1], "ppl*.jsonl"))
    needle = records(os.path.join(sys.argv[1], "needle*.jsonl"))
    tables = {ctx: table(ctx, ppl, needle) for ctx in sorted({c for c, _ in list(ppl) + list(needle)})}
    if len(sys.argv) == 3:
        plot(tables, sys.argv[2])


if __name__ == "__main__":
    main()
