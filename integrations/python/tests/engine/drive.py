"""One vLLM engine in this process, driven through one scenario; prints what came out as a line of JSON.

python drive.py SCENARIO MODEL PROMPTS.json
"""

from __future__ import annotations

import json
import os
import sys
import time

N_PAGE = 43  # a cache of 5376 tokens and an empty page: the four prompts fit, with their answers they do not
CHUNK = 1100  # no multiple of a page


def engine(model: str, **arguments):
    from vllm import LLM

    fixed = {"dtype": "bfloat16", "enforce_eager": True, "max_num_seqs": 8, "seed": 0, "disable_log_stats": True}
    return LLM(model=model, **fixed | arguments)


def answer(llm, prompts: list[str], n: int) -> list[dict]:
    """n greedy tokens of each prompt, with the likeliest tokens' log-probabilities at each of them."""
    from vllm import SamplingParams

    wanted = SamplingParams(max_tokens=n, temperature=0, ignore_eos=True, logprobs=5)
    done = llm.generate(prompts, wanted, use_tqdm=False)
    return [
        {
            "ids": list(x.outputs[0].token_ids),
            "likely": [{token: y.logprob for token, y in step.items()} for step in x.outputs[0].logprobs],
            "cached": x.num_cached_tokens,
        }
        for x in done
    ]


def watch_calls() -> list[float]:
    """Relative difference between every call of the plug-in and vLLM's own attention on the same metadata."""
    import torch
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackendImpl

    from prism_attn.vllm.cpu import PrismCPUImpl

    differences, forward = [], PrismCPUImpl.forward

    def watched(self, layer, query, key, value, kv_cache, metadata, output, **rest):
        out = forward(self, layer, query, key, value, kv_cache, metadata, output, **rest)
        if metadata is not None and metadata.prism is not None:
            want = torch.empty_like(output)
            CPUAttentionBackendImpl.forward(self, layer, query, key, value, kv_cache, metadata, want)
            n = metadata.num_actual_tokens
            a, b = output[:n].double(), want[:n].double()
            differences.append(float((a - b).norm() / b.norm()))
        return out

    PrismCPUImpl.forward = watched
    return differences


def batches(model: str, prompts: dict) -> dict:
    """Long and short prompts together, a prefix hit, then more than the cache holds."""
    from vllm.v1.core.sched.scheduler import Scheduler

    preempted, preempt = [], Scheduler._preempt_request
    Scheduler._preempt_request = lambda *args, **kwargs: (preempted.append(1), preempt(*args, **kwargs))[1]
    differences = [] if os.environ.get("PRISM_METHOD") == "off" else watch_calls()
    llm = engine(
        model, max_model_len=5120, max_num_batched_tokens=CHUNK, num_gpu_blocks_override=N_PAGE,
        enable_prefix_caching=True,
    )  # fmt: skip
    return {
        "mixed": answer(llm, prompts["mixed"], 8),
        "again": answer(llm, prompts["again"], 8),
        "crowd": answer(llm, prompts["crowd"], 150),
        "preempted": len(preempted),
        "differences": differences,
    }


def needle(model: str, prompts: dict) -> dict:
    """One prompt from a whole to the words of its answer."""
    n_rank = int(os.environ.get("TENSOR_PARALLEL", "1"))
    llm = engine(model, max_model_len=36000, max_num_batched_tokens=4096, tensor_parallel_size=n_rank)
    answer(llm, prompts["mixed"], 1)
    began = time.monotonic()
    answer(llm, [prompts["needle"]], 1)
    seconds = time.monotonic() - began
    (found,) = answer(llm, [prompts["needle"]], 12)
    return {"text": llm.get_tokenizer().decode(found["ids"]), "seconds": seconds}


def main() -> None:
    with open(sys.argv[3], encoding="utf-8") as file:
        prompts = json.load(file)
    result = {"batches": batches, "needle": needle}[sys.argv[1]](sys.argv[2], prompts)
    if "vllm" in sys.modules and "prism_attn" in sys.modules:
        import prism_attn

        result["stats"] = prism_attn.stats().to_dict()
    print("RESULT " + json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
