#!/usr/bin/env python3
"""vLLM with and without prism-attn on a GPU: time to first token, attention's part of it, decode speed, equal answers.

    python -m prism_attn.transformers.loading models/prism-testbed-32m-q8_0.gguf /tmp/bundled
    python integrations/python/bench/vllm_prefill.py /tmp/bundled --text eval/data/nostromo.txt
    python integrations/python/bench/vllm_prefill.py qwen3-8b:8 --setting prism:top_p=0.1

MODEL: a Hugging Face directory, or qwen3-8b:N for N random layers of that shape on random tokens; random weights have
no structure to select by, so top_p only imposes a density. Settings: "vllm" is vLLM's own FlashAttention, "dense" the
library's full attention, anything else METHOD or METHOD:name=value,name=value. Every setting is a process of its own.
Columns: best time to first token of --passes, with attention alone (CUDA events around every layer's call) and the
host's time in one such call of one more pass; the batch that decodes; the first tokens. Prefix caching is off.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MARGIN = 64  # tokens of a prompt's length left for the answer
N_ANSWER = 8
QWEN3_8B = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "vocab_size": 8192, "hidden_size": 4096,
    "intermediate_size": 12288, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
    "hidden_act": "silu", "max_position_embeddings": 262144, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
    "rope_theta": 1e6, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}, "attention_bias": False,
    "bos_token_id": 0, "eos_token_id": 1, "dtype": "bfloat16",
}  # fmt: skip


def model_arguments(model: str) -> dict:
    """For LLM(): a directory, or a random stack written as one."""
    name, _, n_layer = model.partition(":")
    if name != "qwen3-8b":
        return {"model": model}
    folder = Path(tempfile.mkdtemp()) / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(QWEN3_8B | {"num_hidden_layers": int(n_layer or 8)}))
    return {"model": str(folder), "load_format": "dummy", "skip_tokenizer_init": True}


def prompt_of(args, llm, n_token: int) -> list[int]:
    """Token ids: the text, again and again, or random ones."""
    if args.model.startswith("qwen3-8b"):
        import random

        return [random.Random(n_token).randrange(2, 8192) for _ in range(n_token)]
    ids = llm.get_tokenizer().encode(Path(args.text).read_text(encoding="utf-8"))
    return (ids * (n_token // len(ids) + 1))[:n_token]


class Timer:
    """Around forward() of the attention implementation, in this process."""

    def __init__(self, cls: type) -> None:
        import torch

        self.on, self.events, self.host, forward = False, [], 0.0, cls.forward

        def timed(*args, **kwargs):
            if not self.on:
                return forward(*args, **kwargs)
            pair = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
            began = time.perf_counter()
            pair[0].record()
            out = forward(*args, **kwargs)
            pair[1].record()
            self.host += time.perf_counter() - began
            self.events.append(pair)
            return out

        cls.forward = timed

    def read(self) -> tuple[float, float]:
        """(milliseconds of the GPU, host microseconds a call), and starts anew."""
        import torch

        torch.cuda.synchronize()
        total, n = sum(a.elapsed_time(b) for a, b in self.events), max(1, len(self.events))
        host, self.events, self.host = self.host / n * 1e6, [], 0.0
        return total, host


def attention_class(setting: str) -> type:
    if setting == "vllm":
        from vllm.v1.attention.backends.flash_attn import FlashAttentionImpl

        return FlashAttentionImpl
    from prism_attn.vllm.cuda import PrismCUDAImpl

    return PrismCUDAImpl


def measure(args, setting: str) -> list[dict]:
    """One engine, all lengths."""
    from vllm import LLM, SamplingParams

    method, _, options = setting.partition(":")
    prism = {"method": method} | dict(pair.split("=", 1) for pair in options.split(",") if pair)
    longest = max(args.tokens)
    timer = Timer(attention_class(setting)) if args.tensor_parallel == 1 else None
    llm = LLM(
        **model_arguments(args.model),
        dtype="bfloat16",
        attention_backend="FLASH_ATTN" if setting == "vllm" else "CUSTOM",
        additional_config={} if setting == "vllm" else {"prism": prism},
        max_model_len=longest,
        max_num_batched_tokens=args.chunk or longest,
        max_num_seqs=args.batch,
        enforce_eager=args.eager,
        enable_prefix_caching=False,
        gpu_memory_utilization=args.memory,
        tensor_parallel_size=args.tensor_parallel,
        disable_log_stats=True,
        seed=0,
    )

    def generate(prompts: list[list[int]], n: int) -> tuple[float, list]:
        wanted = SamplingParams(max_tokens=n, temperature=0, ignore_eos=True, detokenize=False)
        began = time.perf_counter()
        done = llm.generate([{"prompt_token_ids": ids} for ids in prompts], wanted, use_tqdm=False)
        return time.perf_counter() - began, [list(x.outputs[0].token_ids) for x in done]

    rows = []
    for n_token in args.tokens:
        ids = prompt_of(args, llm, n_token - MARGIN)
        seconds = min(generate([ids], 1)[0] for _ in range(args.passes))
        _, (answer,) = generate([ids], N_ANSWER)
        row = {"tokens": n_token, "ttft_ms": seconds * 1e3, "answer": answer}
        if timer:
            timer.read()
            timer.on = True
            generate([ids], 1)
            timer.on = False
            row["attention_ms"], row["host_us"] = timer.read()
        rows.append(row)
    short = [prompt_of(args, llm, 512)] * args.batch
    few, many = (min(generate(short, n)[0] for _ in range(2)) for n in (1, 257))
    rows.append({"decode_tokens_per_s": 256 * args.batch / (many - few)})
    if setting != "vllm" and args.tensor_parallel == 1:
        import prism_attn

        rows.append({"calls": prism_attn.stats().reasons(), "density": prism_attn.stats().density})
    return rows


def line(setting: str, row: dict, base: dict) -> str:
    """One measurement as text, with the gain over the first setting's."""
    if "ttft_ms" not in row:
        return f"{setting:24} {json.dumps(row)}"
    text = f"{setting:24} {row['tokens']:>7} tokens  first token {row['ttft_ms']:8.1f} ms"
    text += f" ({base['ttft_ms'] / row['ttft_ms']:.2f} x)"
    if "attention_ms" in row:
        text += f"  attention {row['attention_ms']:8.1f} ms ({base['attention_ms'] / row['attention_ms']:.2f} x)"
        text += f"  host {row['host_us']:5.0f} us a call"
    return text + f"  answer {row['answer']}"


def main() -> None:
    """Runs every setting and prints a line for each length."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--text", default="eval/data/nostromo.txt")
    parser.add_argument("--tokens", type=int, nargs="+", default=[32768, 131072])
    parser.add_argument("--chunk", type=int, default=0, help="max_num_batched_tokens; 0: the whole prompt")
    parser.add_argument("--setting", nargs="+", default=["vllm", "dense", "prism"])
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8, help="requests that decode together")
    parser.add_argument("--eager", action="store_true", help="no torch.compile, no CUDA graphs")
    parser.add_argument("--memory", type=float, default=0.6, help="part of the GPU's memory")
    parser.add_argument("--tensor-parallel", type=int, default=1)
    parser.add_argument("--json", help="file to which a line of JSON is added for each setting")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print("RESULT " + json.dumps(measure(args, args.one)))
        return
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    base: list[dict] | None = None
    for setting in args.setting:
        done = subprocess.run([sys.executable, *sys.argv, "--one", setting], stdout=subprocess.PIPE, text=True)
        found = [x for x in done.stdout.splitlines() if x.startswith("RESULT ")]
        if not found:
            print(f"{setting}: no result (exit status {done.returncode})\n{done.stdout[-3000:]}")
            continue
        rows = json.loads(found[0].removeprefix("RESULT "))
        base = base or rows
        for i, row in enumerate(rows):
            print(line(setting, row, base[min(i, len(base) - 1)]), flush=True)
        if args.json:
            with open(args.json, "a", encoding="utf-8") as file:
                file.write(json.dumps({"setting": setting, **vars(args), "rows": rows}) + "\n")


if __name__ == "__main__":
    main()
