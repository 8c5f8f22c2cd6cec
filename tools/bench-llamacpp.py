#!/usr/bin/env python3
"""Prompt speed of an unmodified llama.cpp, alone and with the plug-in, by the clock.

Prints a row for each length and method: seconds of the whole prompt, tokens a second, and, where the plug-in sees the
calls, seconds of attention, density and how many times faster than llama.cpp's own attention. `ggml` is the plug-in
handing every call back to ggml's kernel, which is how that one's attention is timed. Random keys have no structure to
find: on the random model, `--top-p` is what sets the density.
"""
import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
BYTES_A_TOKEN = 3.98  # of eval/data/nostromo.txt, in the bundled model's tokens
QWEN3_06B = dict(hidden=1024, heads=16, kv_heads=8, head_dim=128, feed_forward=3072, vocabulary=4096)


def write_random_model(path, layers, shape=QWEN3_06B):
    """A GGUF file of Qwen3-0.6B's shape with a small vocabulary, Q8_0 weights from a fixed seed."""
    import gguf
    import numpy as np

    rng = np.random.default_rng(1)
    out = gguf.GGUFWriter(path, "qwen3")
    hidden, d, wide, vocabulary = shape["hidden"], shape["head_dim"], shape["feed_forward"], shape["vocabulary"]
    q_dim, kv_dim = shape["heads"] * d, shape["kv_heads"] * d
    metadata = dict(tokenizer_model="no_vocab", vocab_size=vocabulary, context_length=40960, embedding_length=hidden,
                    block_count=layers, feed_forward_length=wide, head_count=shape["heads"],
                    head_count_kv=shape["kv_heads"], key_length=d, value_length=d, rope_freq_base=1e6,
                    layer_norm_rms_eps=1e-6)
    for name, value in metadata.items():
        getattr(out, f"add_{name}")(value)

    def add(name, *size):
        """A matrix of normal weights, or a norm of ones."""
        kind = gguf.GGMLQuantizationType.Q8_0 if len(size) == 2 else None
        weights = np.ones(size, np.float32)
        if kind:
            weights = rng.standard_normal(size, dtype=np.float32) / np.sqrt(size[1])
            weights = gguf.quants.quantize(weights, kind)
        out.add_tensor(f"{name}.weight", weights, raw_dtype=kind)

    add("token_embd", vocabulary, hidden)
    add("output_norm", hidden)
    block = {"attn_norm": [hidden], "ffn_norm": [hidden], "attn_q_norm": [d], "attn_k_norm": [d],
             "attn_q": [q_dim, hidden], "attn_k": [kv_dim, hidden], "attn_v": [kv_dim, hidden],
             "attn_output": [hidden, q_dim], "ffn_gate": [wide, hidden], "ffn_up": [wide, hidden],
             "ffn_down": [hidden, wide]}
    for layer in range(layers):
        for name, size in block.items():
            add(f"blk.{layer}.{name}", *size)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def environment(args, method, stats):
    env = dict(os.environ)
    for name in ("GGML_BACKEND_PATH", "PRISM_METHOD", "PRISM_TOP_P", "PRISM_STATS"):
        env.pop(name, None)
    if method != "llama.cpp":
        env.update(GGML_BACKEND_PATH=str(pathlib.Path(args.plugin).resolve()), PRISM_METHOD=method, PRISM_STATS=stats)
        if args.top_p and method == "prism":
            env["PRISM_TOP_P"] = args.top_p
    return env


def command(args, tokens, directory):
    common = ["-t", str(args.threads), "--no-warmup"]
    if args.random_layers:
        model = directory / "random.gguf"
        if not model.exists():
            write_random_model(model, args.random_layers)
        return [f"{args.programs}/llama-bench", "-m", model, "-p", str(tokens), "-n", "0", "-r", "1", "-fa", "1", "-o",
                "json", *common]
    text = directory / f"text-{tokens}"
    text.write_bytes((ROOT / "eval/data/nostromo.txt").read_bytes()[:int(tokens * BYTES_A_TOKEN)])
    return [f"{args.programs}/llama-completion", "-m", ROOT / "models/prism-testbed-32m-q8_0.gguf", "-f", text, "-c",
            str(tokens + 1024), "-n", "1", "--temp", "0", "-no-cnv", "-fa", "on", "--no-display-prompt", *common]


def prompt_speed(args, printed):
    """Tokens and seconds of the prompt, from what the program said of itself."""
    if args.random_layers:
        row = json.loads(printed[printed.index("["):printed.rindex("]") + 1])[0]
        return row["n_prompt"], row["avg_ns"] / 1e9
    found = re.search(r"prompt eval time =\s*([0-9.]+) ms /\s*([0-9]+) tokens", printed)
    return (int(found[2]), float(found[1]) / 1e3) if found else None


def run(args, tokens, method, directory, stats):
    """One prompt; its tokens and seconds. llama.cpp may exit before its log is written: then once more."""
    for _ in range(3):
        pathlib.Path(stats).unlink(missing_ok=True)
        done = subprocess.run(command(args, tokens, directory), env=environment(args, method, stats), text=True,
                              errors="replace", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
        if done.returncode:
            break
        speed = prompt_speed(args, done.stdout)
        if speed:
            return speed
    sys.exit(f"{method}: exit code {done.returncode}\n{done.stdout[-2000:]}")


def attention(stats):
    calls = [json.loads(line) for line in open(stats)] if os.path.exists(stats) else []
    cells = sum(call["n_kv"] for call in calls)
    listed = sum(call.get("density", 1) * call["n_kv"] for call in calls)
    return sum(call["seconds"] for call in calls), listed / max(cells, 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plugin", default=ROOT / "build/libggml-prism.so")
    parser.add_argument("--programs", required=True, help="folder with llama-completion and llama-bench")
    parser.add_argument("--random-layers", type=int, metavar="N",
                        help="Qwen3-0.6B's shape with N layers (28: whole) and random weights instead of the"
                        " bundled model; needs `pip install gguf`")
    parser.add_argument("--lengths", default="8192,16384,32768")
    parser.add_argument("--methods", default="llama.cpp,ggml,dense,prism")
    parser.add_argument("--top-p", help="PRISM_TOP_P of prism")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    print("| prompt | method | prompt, s | tokens/s | | attention, s | | density |\n|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        for tokens in map(int, args.lengths.split(",")):
            first = ggml = None
            for method in args.methods.split(","):
                stats = str(directory / f"stats-{tokens}-{method}")
                count, seconds = run(args, tokens, method, directory, stats)
                first = first or count / seconds
                row = f"| {count} | {method} | {seconds:.2f} | {count / seconds:.0f} | {count / seconds / first:.2f} × |"
                if method != "llama.cpp":
                    spent, density = attention(stats)
                    ggml = spent if method == "ggml" else ggml
                    row += f" {spent:.2f} | {ggml / spent:.1f} × |" if ggml else f" {spent:.2f} | |"
                    row += f" {density:.3f} |"
                else:
                    row += " | | |"
                print(row, flush=True)


if __name__ == "__main__":
    main()
