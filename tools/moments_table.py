#!/usr/bin/env python3
"""Tables and plot of tools/moments_study.sh: moments_table.py DIRECTORY [FILE.svg|FILE.png]

Per context length and method: perplexity above full attention on the same windows with its standard error over windows,
needles answered with theirs over prompts (both paired with full attention), density, and work (operations of choosing,
correcting and attending, full attention being 1). FILE gets the frontiers: loss (up to 5 %) and needles against work.
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


def mean_and_error(values, weights):
    """Weighted mean and its standard error."""
    n, total = len(values), sum(weights)
    mean = sum(w * v for v, w in zip(values, weights)) / total
    spread = sum((w * (v - mean)) ** 2 for v, w in zip(values, weights))
    return mean, math.sqrt(spread * n / (n - 1)) / total if n > 1 else math.nan


def against(runs, dense, value, weight):
    """Mean of value(record, dense record) over what both have, its error; density; work; n."""
    both = [(runs[k], dense[k]) for k in runs if k in dense]
    if not both:
        return None
    mean, error = mean_and_error([value(r, d) for r, d in both], [weight(r) for r, _ in both])
    density = sum(r["density"] for r, _ in both) / len(both)
    work = sum(r["work_flop"] for r, _ in both) / sum(d["work_flop"] for _, d in both)
    return {"mean": mean, "error": error, "density": density, "work": work, "n": len(both)}


def ppl_row(ppl, ctx, method):
    return against(ppl.get((ctx, method), {}), ppl.get((ctx, "dense"), {}),
                   lambda r, d: (r["nll"] - d["nll"]) / r["tokens"], lambda r: r["tokens"])


def needle_row(needle, ctx, method):
    return against(needle.get((ctx, method), {}), needle.get((ctx, "dense"), {}),
                   lambda r, d: r["score"] - d["score"], lambda r: 1)


def table(ctx, ppl, needle):
    methods = dict.fromkeys(m for c, m in list(ppl) + list(needle) if c == ctx and m != "dense")
    rows = {m: (ppl_row(ppl, ctx, m), needle_row(needle, ctx, m)) for m in methods}
    print(f"\n{ctx} tokens\n\n| method | perplexity above dense, % | density | work | windows |"
          " needles against dense, points | density | work | prompts |")
    print("|---|---|---|---|---|---|---|---|---|")
    for m, (p, n) in rows.items():
        text = [m]
        text += [f"{100 * math.expm1(p['mean']):+.2f} ± {100 * p['error']:.2f}", f"{p['density']:.3f}",
                 f"{p['work']:.3f}", str(p["n"])] if p else [""] * 4
        text += [f"{100 * n['mean']:+.1f} ± {100 * n['error']:.1f}", f"{n['density']:.3f}",
                 f"{n['work']:.3f}", str(n["n"])] if n else [""] * 4
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
    names = list(dict.fromkeys(family(m) for rows in tables.values() for m in rows))
    figure, axes = plt.subplots(2, len(tables), figsize=(4.6 * len(tables), 7), squeeze=False, layout="constrained")
    for column, (ctx, rows) in enumerate(tables.items()):
        for which in (0, 1):
            axis, curves = axes[which][column], {}
            for method, row in rows.items():
                if row[which]:
                    curves.setdefault(family(method), []).append(row[which])
            for name, points in curves.items():
                points.sort(key=lambda p: p["work"])
                axis.errorbar([p["work"] for p in points], [100 * p["mean"] for p in points],
                              yerr=[100 * p["error"] for p in points], marker="o", markersize=4, capsize=2, label=name,
                              color=f"C{names.index(name)}")
            axis.set_xlabel("work, full attention = 1")
            axis.set_xlim(left=0)
            axis.axhline(0, color="gray", linewidth=0.6)
            axis.set_visible(bool(curves))
        axes[0][column].set_title(f"{ctx} tokens")
        axes[0][column].set_ylabel("perplexity above full attention, %")
        axes[0][column].set_ylim(-0.2, 5)
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
