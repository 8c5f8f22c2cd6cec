#!/usr/bin/env python3
"""Draws what prism bench measured against the length of the prompt, one line a method.

    prism bench attention --lengths 4096,8192,16384 --methods dense,prism,minference --plot bench.png
    tools/plot_bench.py bench.json bench.png

attention: speed-up over full attention, time of selection, memory of selection.
prefill:   speed-up of the whole prefill, of its attention, and tokens per second.
The picture's type follows its name: png, svg, pdf.
"""
import argparse
import json
import sys

NO_MATPLOTLIB = 4  # the exit code that tells prism bench what is missing

try:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib import ticker
except ImportError:
    print("plot_bench.py: python3 has no matplotlib: 'pip install matplotlib', or 'apt-get install python3-matplotlib'",
          file=sys.stderr)
    sys.exit(NO_MATPLOTLIB)

GREY = "#8a8f98"
EMPHASIS = "#1f4e79"  # prism
# Distinguishable with the common colour deficiencies (Okabe and Ito, darkened for text on white).
OTHERS = ["#b8551b", "#1b7f5c", "#a03a78", "#8a6d00", "#3d85c6", "#5b5b5b", "#7a4fb5", "#c0392b"]

# key, title, unit of the axis, factor
PANELS = {
    "attention": [
        ("speedup", "Speed-up of the call over full attention", "×", 1),
        ("select_seconds", "Time of selection", "ms", 1e3),
        ("select_peak_bytes", "Memory of selection", "MiB", 1 / 2**20),
    ],
    "prefill": [
        ("speedup", "Speed-up of prefill over full attention", "×", 1),
        ("attention_speedup", "Speed-up of attention in it", "×", 1),
        ("tokens_per_second", "Prefill", "tokens/s", 1),
    ],
}


def series(results, key, factor):
    """{method: ([lengths], [values])}, in the order of the results; what was not measured or is 0 is left out."""
    lines = {}
    for r in results:
        value = r.get(key)
        if value and not (key.startswith("select_") and r["method"].split(":")[0] == "dense"):  # dense selects nothing
            x, y = lines.setdefault(r["method"], ([], []))
            x.append(r["tokens"])
            y.append(value * factor)
    return lines


def colours(results):
    names = list(dict.fromkeys(r["method"] for r in results))
    rest = iter(OTHERS * (len(names) // len(OTHERS) + 1))
    palette = {}
    for name in names:
        base = name.split(":")[0]
        taken = EMPHASIS in palette.values()
        palette[name] = GREY if base == "dense" else EMPHASIS if base == "prism" and not taken else next(rest)
    return palette


def length_name(x, _=None):
    return f"{x / 1024:g}K" if x >= 1024 else f"{x:g}"


def label_of(method):
    """The values of a method's options are enough beside a line: prism:top_p=0.9 is drawn as prism 0.9."""
    name, *options = method.split(":")
    return f"{name} {'/'.join(o.split('=')[-1] for o in options)}".strip()


def spread(positions, gap):
    """Moves sorted positions apart until neighbours are at least gap away, about where they were."""
    groups = []  # [sum of wanted starts, count]: a group stands at its mean, members gap apart
    for i, p in enumerate(positions):
        groups.append([p, 1])
        while len(groups) > 1:
            (s0, n0), (s1, n1) = groups[-2], groups[-1]
            if s0 / n0 + (n0 - 1) / 2 * gap + gap <= s1 / n1 - (n1 - 1) / 2 * gap:
                break
            groups[-2:] = [[s0 + s1, n0 + n1]]
    return [s / n + (i - (n - 1) / 2) * gap for s, n in groups for i in range(n)]


def label_lines(axes, lines, palette):
    """Names at the lines' right ends instead of a legend, pushed apart where they would overlap."""
    if not lines:
        return
    right = max(x[-1] for x, _ in lines.values())
    to_pixels, to_data = axes.transData.transform, axes.transData.inverted().transform
    ends = sorted((to_pixels((right, y[-1]))[1], name) for name, (_, y) in lines.items())
    gap = 9 * axes.figure.dpi / 72
    for (_, name), y in zip(ends, spread([p for p, _ in ends], gap)):
        axes.annotate(label_of(name), (right, to_data((0, y))[1]), xytext=(7, 0), textcoords="offset points", va="center",
                      fontsize=8.5, color=palette[name], annotation_clip=False,
                      fontweight="bold" if palette[name] == EMPHASIS else "normal")


def draw(axes, lines, palette, title, unit):
    for name, (x, y) in lines.items():
        stands_out = palette[name] == EMPHASIS
        axes.plot(x, y, color=palette[name], marker="o", markersize=4, linewidth=2.2 if stands_out else 1.4,
                  linestyle="--" if palette[name] == GREY else "-", zorder=3 if stands_out else 2)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_title(f"{title}, {unit}" if unit != "×" else title, fontsize=10.5, loc="left", pad=10)
    axes.set_xlabel("prompt, tokens", fontsize=9)
    lengths = sorted({v for x, _ in lines.values() for v in x})
    axes.set_xticks(lengths)
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(length_name))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.yaxis.set_major_locator(ticker.LogLocator(base=10, subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda v, _: f"{v:g}" + ("×" if unit == "×" else "")))
    axes.yaxis.set_minor_locator(ticker.NullLocator())
    values = [v for _, y in lines.values() for v in y]
    axes.set_ylim(min(values) / 1.5, max(values) * 1.5)
    if len(lengths) == 1:
        axes.set_xlim(lengths[0] / 2, lengths[0] * 2)
    axes.tick_params(labelsize=8.5, length=3, color=GREY)
    axes.grid(axis="y", color="#e4e7eb", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GREY)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="file written by prism bench --plot or --json")
    parser.add_argument("out", help="picture to write")
    args = parser.parse_args()

    with open(args.data, encoding="utf-8") as f:
        data = json.load(f)
    results = data.get("results", [])
    palette = colours(results)
    wanted = PANELS.get(data.get("bench"), [])
    panels = [(series(results, key, factor), title, unit) for key, title, unit, factor in wanted]
    panels = [p for p in panels if p[0]]
    if not panels:
        sys.exit(f"plot_bench.py: '{args.data}' has nothing to draw: it wants results of prism bench attention or prefill")

    figure, axes = plt.subplots(1, len(panels), figsize=(4.9 * len(panels), 3.9), squeeze=False)
    widest = max(len(name) for name in palette)
    figure.subplots_adjust(left=0.15 / len(panels), right=1 - (0.12 + 0.0135 * widest) / len(panels),
                           top=0.86, bottom=0.21, wspace=0.25 + 0.019 * widest)
    for a, (lines, title, unit) in zip(axes[0], panels):
        draw(a, lines, palette, title, unit)
    figure.canvas.draw()  # fixes the axes, which the labels are placed by
    for a, (lines, _, _) in zip(axes[0], panels):
        label_lines(a, lines, palette)
    figure.text(0.15 / len(panels), 0.02, data.get("subtitle", ""), fontsize=8, color=GREY)
    figure.savefig(args.out, dpi=150)


if __name__ == "__main__":
    main()
