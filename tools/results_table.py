#!/usr/bin/env python3
"""Writes docs/results.md from what tools/results.sh measured. Standard library only."""
import json
import pathlib
import sys
from functools import partial

HEAD = """# Results on the bundled model

`tools/results.sh` measures all of this again and writes this page. Everything ran on the CPU, with the bundled 32M-parameter
model (a small model is a stricter judge of sparse attention than a large one). Text and haystacks are from *Nostromo*,
which the model has not seen. Density is listed blocks over causal blocks. Work is the operations of attention, selection
included, over those of full attention: compare methods of different grain by work. Seconds are of this run's machine;
compare them within a column only.
"""


def section(folder, name, write):
    """Prints what `write` makes of a measurement, and the command behind it; nothing if that was not run."""
    path = folder / f"{name}.json"
    if path.exists():
        title, text = write(json.loads(path.read_text()))
        print(f"\n## {title}\n\n{text}\n\n```\n{(folder / f'{name}.cmd').read_text().strip()}\n```")


def short(method):
    name, *options = method.split(":")
    return f"{name} ({'/'.join(o.split('=')[1] for o in options)})" if options else name


def markdown(header, rows):
    lines = ["| " + " | ".join(cells) + " |" for cells in (header, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(header), *lines[1:]])


def evaluation(runs, header, cells):
    """A row for each run: its method, what `cells` puts before density and work, and what it puts after."""
    dense = next((r["work_flop"] for r in runs if r["method"] == "dense"), None)
    rows = []
    for r in runs:
        before, after = cells(r)
        work = f"{r['work_flop'] / dense:.3f}" if dense else ""
        rows.append([short(r["method"]), *before, f"{r['density']:.3f}", work, *after])
    return markdown(header, rows)


def perplexity(title, data):
    runs = data["runs"]
    base = next(r["token_perplexity"] for r in runs if r["method"] == "dense")

    def cells(r):
        change = f"{100 * (r['token_perplexity'] / base - 1):+.2f} %" if r["method"] != "dense" else ""
        return [f"{r['token_perplexity']:.3f}", f"{r['word_perplexity']:.1f}", change], [f"{r['seconds']:.0f}"]

    header = ["method", "token", "word", "change", "density", "work", "seconds"]
    return f"{title} ({runs[0]['tokens']:,} tokens)", evaluation(runs, header, cells)


def tasks(title, data):
    runs = data["runs"]
    names = list(runs[0]["tasks"])
    labels = [n.split("/")[-1].replace("d", "depth ") if n.startswith("needle/") else n for n in names]
    text = evaluation(runs, ["method", *labels, "average", "density", "work"],
                      lambda r: ([f"{r['tasks'][n]:.2f}" for n in names] + [f"{r['average']:.3f}"], []))
    return f"{title} ({runs[0]['samples']} questions a method)", text


def bench(data):
    rows = {}
    for r in data["results"]:
        rows.setdefault(short(r["method"]), {})[r["tokens"]] = r
    lengths = sorted({r["tokens"] for r in data["results"]})
    last = lengths[-1]
    header = ["method"] + [f"{n // 1024}K" for n in lengths] + [f"selection at {last // 1024}K, ms", "density there"]
    cells = [[name] + [f"{by_length[n]['speedup']:.2f}×" for n in lengths]
             + [f"{1e3 * by_length[last]['select_seconds']:.1f}", f"{by_length[last]['density']:.3f}"]
             for name, by_length in rows.items()]
    picture = "![Speed-up over full attention, selection time and memory against length](images/bench.png)"
    return "One attention layer", (f"{picture}\n\nSpeed-up of the whole call over full attention; {data['subtitle']}:"
                                   f"\n\n{markdown(header, cells)}")


def main():
    folder = pathlib.Path(sys.argv[1])
    print(HEAD.strip())
    for name, write, title in (("ppl-8k", perplexity, "Perplexity, windows of 8K"),
                               ("ppl-32k", perplexity, "Perplexity, windows of 32K"),
                               ("needle-8k", tasks, "Needles in a book, 8K"),
                               ("needle-16k", tasks, "Needles in a book, 16K"), ("ruler-8k", tasks, "RULER, 8K")):
        section(folder, name, partial(write, title))
    section(folder, "bench", bench)


if __name__ == "__main__":
    main()
