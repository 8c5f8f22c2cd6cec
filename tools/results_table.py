#!/usr/bin/env python3
"""Writes docs/results.md from what tools/results.sh measured. Standard library only."""
import json
import pathlib
import sys

HEAD = """# Results on the bundled model

`tools/results.sh` measures all of this again and writes this page. Everything ran on the CPU, with the bundled 32M-parameter
model (a small model is a stricter judge of sparse attention than a large one). Text and haystacks are from *Nostromo*,
which the model has not seen. Density is listed blocks over causal blocks. Work is the operations of attention, selection
included, over those of full attention: compare methods of different grain by work. Seconds are of this run's machine;
compare them within a column only.
"""


def load(folder, name):
    path = folder / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def short(method):
    name, _, options = method.partition(":")
    values = [o.split("=")[1] for o in options.split(":") if o]
    return f"{name} ({'/'.join(values)})" if values else name


def table(title, header, rows, command):
    print(f"\n## {title}\n")
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print(f"\n```\n{command.strip()}\n```")


def work_of(runs):
    dense = next((r["work_flop"] for r in runs if r["method"] == "dense"), None)
    return {r["method"]: f"{r['work_flop'] / dense:.3f}" if dense else "" for r in runs}


def perplexity(folder, name, title):
    data = load(folder, name)
    if not data:
        return
    runs, work = data["runs"], work_of(data["runs"])
    base = next(r["token_perplexity"] for r in runs if r["method"] == "dense")
    rows = [
        [short(r["method"]), f"{r['token_perplexity']:.3f}", f"{r['word_perplexity']:.1f}",
         f"{100 * (r['token_perplexity'] / base - 1):+.2f} %" if r["method"] != "dense" else "",
         f"{r['density']:.3f}", work[r["method"]], f"{r['seconds']:.0f}"]
        for r in runs
    ]
    tokens = runs[0]["tokens"]
    table(f"{title} ({tokens:,} tokens)", ["method", "token", "word", "change", "density", "work", "seconds"], rows,
          (folder / f"{name}.cmd").read_text())


def tasks(folder, name, title):
    data = load(folder, name)
    if not data:
        return
    runs, work = data["runs"], work_of(data["runs"])
    names = list(runs[0]["tasks"])
    labels = [n.split("/")[-1].replace("d", "depth ") if n.startswith("needle/") else n for n in names]
    rows = [
        [short(r["method"])] + [f"{r['tasks'][n]:.2f}" for n in names]
        + [f"{r['average']:.3f}", f"{r['density']:.3f}", work[r["method"]]]
        for r in runs
    ]
    count = runs[0]["samples"]
    table(f"{title} ({count} questions a method)", ["method"] + labels + ["average", "density", "work"], rows,
          (folder / f"{name}.cmd").read_text())


def main():
    folder = pathlib.Path(sys.argv[1])
    print(HEAD.strip())
    perplexity(folder, "ppl-8k", "Perplexity, windows of 8K")
    perplexity(folder, "ppl-32k", "Perplexity, windows of 32K")
    tasks(folder, "needle-8k", "Needles in a book, 8K")
    tasks(folder, "needle-16k", "Needles in a book, 16K")
    tasks(folder, "ruler-8k", "RULER, 8K")
    bench(folder)


def bench(folder):
    data = load(folder, "bench")
    if not data:
        return
    print("\n## One attention layer\n")
    print("![Speed-up over full attention, selection time and memory against length](images/bench.png)\n")
    rows = {}
    for r in data["results"]:
        rows.setdefault(short(r["method"]), {})[r["tokens"]] = r
    lengths = sorted({r["tokens"] for r in data["results"]})
    last = lengths[-1]
    header = ["method"] + [f"{n // 1024}K" for n in lengths] + [f"selection at {last // 1024}K, ms", "density there"]
    print(f"Speed-up of the whole call over full attention; {data['subtitle']}:\n")
    print("| " + " | ".join(header) + " |\n|" + "---|" * len(header))
    for name, by_length in rows.items():
        r = by_length[last]
        print("| " + " | ".join([name] + [f"{by_length[n]['speedup']:.2f}×" for n in lengths]
                                + [f"{1e3 * r['select_seconds']:.1f}", f"{r['density']:.3f}"]) + " |")
    print(f"\n```\n{(folder / 'bench.cmd').read_text().strip()}\n```")


if __name__ == "__main__":
    main()
