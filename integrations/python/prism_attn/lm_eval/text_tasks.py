"""Data of the offline tasks: needles woven into a text, and pieces of a text.

Prompts have RULER's form for single needles with words as keys and numbers as values; the generator is seeded, so two
runs and two methods see the same prompts.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

WORDS = (
    "amber brook cedar delta ember fjord grove haven inlet jasper kettle lantern meadow nettle orchard pebble quarry "
    "river saddle timber upland valley willow yarrow"
).split()
NEEDLE = " One of the special magic numbers for {key} is: {value}."
QUESTION = (
    "\nWhat is the special magic number for {key} mentioned in the provided text? The special magic number for {key} "
    "mentioned in the provided text is"
)
N_NEEDLE = 4


@dataclass
class _Settings:
    text: str | None = None
    n_token: int = 8192
    n_sample: int = 8


_settings = _Settings()


def configure(text: str | None, n_token: int, n_sample: int) -> None:
    """text: path of a file. n_token: length of prompts and pieces. n_sample: how many of each."""
    _settings.text, _settings.n_token, _settings.n_sample = text, n_token, n_sample


def _read() -> str:
    if _settings.text is None:
        raise ValueError("prism_needle and prism_perplexity need --prism-text FILE")
    return Path(_settings.text).read_text(encoding="utf-8")


def _counter(model_args: dict) -> Callable[[str], list[int]]:
    from transformers import AutoTokenizer

    name = model_args.get("tokenizer") or model_args["pretrained"]
    tokenizer = AutoTokenizer.from_pretrained(name, gguf_file=model_args.get("gguf_file"))
    return lambda text: tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)


def pieces(text: str, tokenize: Callable, n_token: int, n_piece: int) -> list[str]:
    """Consecutive pieces of n_token tokens each; as many as there are, at most n_piece."""
    ends = [end for _, end in tokenize(text)["offset_mapping"]]
    cuts = [0, *(ends[i - 1] for i in range(n_token, len(ends) + 1, n_token))]
    return [text[a:b] for a, b in zip(cuts[:-1], cuts[1:], strict=True)][:n_piece]


def needle_prompt(text: str, tokenize: Callable, n_token: int, seed: int) -> dict[str, str]:
    """One prompt of at most n_token tokens: {"input": ..., "answer": ...}."""
    rng = random.Random(seed)
    keys = [f"{a}-{b}" for a, b in zip(rng.sample(WORDS, N_NEEDLE), rng.sample(WORDS, N_NEEDLE), strict=True)]
    values = [str(rng.randrange(1_000_000, 10_000_000)) for _ in keys]
    needles = [NEEDLE.format(key=k, value=v) for k, v in zip(keys, values, strict=True)]
    question = QUESTION.format(key=keys[0])
    start = rng.randrange(max(1, len(text) // 2))
    n_free = n_token - len(tokenize("".join([*needles, question]))["input_ids"]) - 8  # seams may cost a token each
    window = text[start : start + 12 * n_token]
    ends = [end for _, end in tokenize(window)["offset_mapping"]][: max(n_free, 1)]
    hay = window[: ends[-1]]
    stops = [i + 1 for i, c in enumerate(hay) if c == "." and i + 1 < len(hay)] or [len(hay)]
    at = sorted(rng.sample(stops, min(N_NEEDLE, len(stops))), reverse=True)
    order = rng.sample(needles[: len(at)], len(at))
    for position, needle in zip(at, order, strict=True):
        hay = hay[:position] + needle + hay[position:]
    return {"input": hay + question, "answer": values[0]}


def needle_dataset(**model_args):
    """For lm-eval: a test split of needle prompts."""
    from datasets import Dataset

    text, tokenize = _read(), _counter(model_args)
    rows = [needle_prompt(text, tokenize, _settings.n_token, seed) for seed in range(_settings.n_sample)]
    return {"test": Dataset.from_list(rows)}


def needle_results(doc: dict, results: list[str]) -> dict[str, float]:
    """1 if the answer stands in the continuation."""
    return {"recall": float(doc["answer"] in results[0])}


def perplexity_dataset(**model_args):
    """For lm-eval: a test split of pieces."""
    from datasets import Dataset

    rows = pieces(_read(), _counter(model_args), _settings.n_token, _settings.n_sample)
    return {"test": Dataset.from_list([{"text": text, "n_token": _settings.n_token} for text in rows])}


def perplexity_results(doc: dict, results: list[float]) -> dict[str, tuple[float, int]]:
    """(log-likelihood, count) pairs, which lm-eval's weighted_perplexity sums."""
    (log_likelihood,) = results
    return {
        "token_perplexity": (log_likelihood, doc["n_token"]),
        "byte_perplexity": (log_likelihood, len(doc["text"].encode())),
    }
