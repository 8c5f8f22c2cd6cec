"""The plug-in inside vLLM's engine on the CPU: `make test-vllm`. Each engine is a process of its own."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from conftest import MODEL, ROOT, ROUNDING
from serve import ask, server

HERE = Path(__file__).parent
TEXT = (ROOT / "eval" / "data" / "nostromo.txt").read_text(encoding="utf-8")
ENV = {
    "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_CPU_KVCACHE_SPACE": "1",
    "OMP_WAIT_POLICY": "passive",
}  # fmt: skip


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    """The bundled model as a Hugging Face directory."""
    folder = tmp_path_factory.mktemp("model")
    subprocess.run([sys.executable, "-m", "prism_attn.transformers.loading", MODEL, folder], check=True)
    return folder


@pytest.fixture(scope="session")
def needles(model):
    """needle(n_token, seed): a prompt, its tokens and its answer."""
    from transformers import AutoTokenizer

    from prism_attn.lm_eval.text_tasks import needle_prompt

    tokenizer = AutoTokenizer.from_pretrained(model)

    def tokenize(text):
        return tokenizer(text, return_offsets_mapping=True)

    def needle(n_token: int, seed: int) -> dict:
        prompt = needle_prompt(TEXT, tokenize, n_token, seed)
        # The directory's tokenizer leaves out the token that starts a text; sparse answers need it to find all.
        return prompt | {"ids": [tokenizer.bos_token_id or 0, *tokenizer(prompt["input"]).input_ids]}

    return needle


@pytest.fixture(scope="session")
def drive(model, tmp_path_factory):
    """drive(scenario, prompts, **environment): what drive.py prints."""

    def run(scenario: str, prompts: dict, **environment: str) -> dict:
        file = tmp_path_factory.mktemp("prompts") / "prompts.json"
        file.write_text(json.dumps(prompts))
        env = os.environ | ENV | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"} | environment
        command = [sys.executable, HERE / "drive.py", scenario, model, file]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=900)
        lines = [x for x in done.stdout.splitlines() if x.startswith("RESULT ")]
        assert lines, done.stdout[-3000:] + done.stderr[-3000:]
        if environment.get("PRISM_METHOD") != "off":
            assert "prism-attn: " in done.stdout + done.stderr  # the summary at the end
        return json.loads(lines[0].removeprefix("RESULT "))

    return run


BATCHES = {
    "mixed": [TEXT[4000:14000], "It was the best of times, it was", TEXT[20000:25000]],
    "again": [TEXT[4000:13000] + " And then"],
    "crowd": [TEXT[a : a + 4800] for a in (30000, 40000, 50000, 60000)],
}


@pytest.fixture(scope="session")
def theirs(drive):
    return drive("batches", BATCHES, PRISM_METHOD="off")


def test_without_the_plug_in(theirs):
    """That the scenario is what it is meant to be."""
    assert theirs["again"][0]["cached"] >= 1024 and theirs["preempted"] > 0
    assert all(len(x["ids"]) == 150 for x in theirs["crowd"])


def first_difference(ours: dict, theirs: dict) -> float:
    """How much less likely our token was to them where the answers part, in nats; 0 where they do not."""
    for a, b, likely in zip(ours["ids"], theirs["ids"], theirs["likely"], strict=True):
        if a != b:
            return likely[str(b)] - likely.get(str(a), -math.inf)
    return 0.0


def test_dense_method_is_vllms_attention(drive, theirs):
    """Chunks from any start, a prefix hit, preemption and what follows it: call by call, and in greedy tokens but where
    two tokens were as good as equal."""
    ours = drive("batches", BATCHES, PRISM_METHOD="dense")
    assert len(ours["differences"]) >= 8 * 8 and max(ours["differences"]) < ROUNDING[torch.bfloat16]
    assert ours["preempted"] == theirs["preempted"]
    for name in BATCHES:
        for a, b in zip(ours[name], theirs[name], strict=True):
            assert a["cached"] == b["cached"] and first_difference(a, b) < 0.1
    calls = ours["stats"]["calls"]
    assert calls["dense"] == len(ours["differences"]) and calls["dense: one query"] > 100


def test_sparse_batches(drive, theirs):
    ours = drive("batches", BATCHES)
    assert ours["stats"]["calls"]["sparse"] >= 8 * 8 and ours["stats"]["density"] < 0.8
    known = {"sparse", "dense: one query", "dense: fewer than 64 queries", "dense: short"}
    assert set(ours["stats"]["calls"]) <= known
    assert ours["again"][0]["cached"] == theirs["again"][0]["cached"]
    assert all(len(x["ids"]) == 150 for x in ours["crowd"])


LENGTHS = [
    16384,
    pytest.param(32768, marks=pytest.mark.skipif(not os.environ.get("PRISM_SLOW"), reason="PRISM_SLOW is not set")),
]


@pytest.mark.parametrize("n_token", LENGTHS)
def test_needle(drive, needles, n_token, record_property):
    prompt = needles(n_token, 1)
    prompts = {"mixed": BATCHES["mixed"], "needle": prompt["input"]}
    ours, theirs = drive("needle", prompts), drive("needle", prompts, PRISM_METHOD="off")
    print(f"{n_token} tokens: {theirs['seconds']:.1f} s without, {ours['seconds']:.1f} s with the plug-in")
    assert prompt["answer"] in ours["text"] and prompt["answer"] in theirs["text"]
    assert ours["stats"]["calls"]["sparse"] >= 8 * 4 and ours["stats"]["density"] < 0.4


def test_tensor_parallel(drive, needles, tmp_path):
    """Two ranks: half of the heads each, every rank chooses its own blocks."""
    prompt, log = needles(8192, 2), tmp_path / "stats"
    two = {"TENSOR_PARALLEL": "2", "VLLM_CPU_OMP_THREADS_BIND": "0|1", "VLLM_CPU_NUM_OF_RESERVED_CPU": "0"}
    environment = two | {"VLLM_ENABLE_V1_MULTIPROCESSING": "1", "PRISM_STATS": str(log)}
    ours = drive("needle", {"mixed": BATCHES["mixed"], "needle": prompt["input"]}, **environment)
    assert prompt["answer"] in ours["text"]
    last = {line["pid"]: line for line in map(json.loads, log.read_text().splitlines())}
    ranks = [line for line in last.values() if "sparse" in line["calls"]]
    assert len(ranks) == 2 and ranks[0]["calls"] == ranks[1]["calls"]
    causal = [sum(row["n_causal"] for row in rank["rows"]) for rank in ranks]
    assert causal[0] == causal[1] and ranks[0]["density"] != ranks[1]["density"]


REQUESTS = (600, 1000, 1500, 2000, 3000, 4000, 5000, 6000)  # tokens


def test_eight_requests_at_once(model, needles, tmp_path):
    """Through the OpenAI server, with and without the plug-in: none is lost, each finds its needle."""
    prompts = [needles(n, n) for n in REQUESTS]
    answers, seconds = {}, {}
    for name, environment in {
        "vllm": {"PRISM_METHOD": "off"},
        "prism": {"PRISM_STATS": str(tmp_path / "stats")},
    }.items():
        with server(model, tmp_path / f"{name}.log", ENV | environment) as port:
            ask(port, prompts[0]["ids"])
            with ThreadPoolExecutor(len(prompts)) as pool:
                got = list(pool.map(lambda x: ask(port, x["ids"]), prompts))
            time.sleep(11)  # the statistics are written with the first batch after ten seconds
            ask(port, prompts[0]["ids"])
        answers[name], seconds[name] = zip(*got, strict=True)
    for name, times in seconds.items():
        print(f"{name}: seconds to the first token", *(f"{x:.1f}" for x in sorted(times)))
    for i, prompt in enumerate(prompts):
        assert prompt["answer"] in answers["vllm"][i] and prompt["answer"] in answers["prism"][i]
    last = json.loads((tmp_path / "stats").read_text().splitlines()[-1])
    assert last["calls"]["sparse"] >= 8 * 5 and last["density"] < 0.8
