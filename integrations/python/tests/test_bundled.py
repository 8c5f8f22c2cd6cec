"""The bundled model: needles, the example, pictures, lm-eval."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from conftest import MODEL, ROOT

import prism_attn
import prism_attn.transformers as pt
from prism_attn import plot
from prism_attn.transformers.capture import capture_plans
from prism_attn.transformers.loading import load

TEXT = ROOT / "eval" / "data" / "nostromo.txt"
N_TOKEN = 1280


@pytest.fixture(scope="module")
def bundled():
    return load(str(MODEL), torch.float32)


def test_same_plans_as_the_command(bundled, command, tmp_path):
    """The runner in C and transformers read the same prompt: Q and K differ in rounding only, so may 1 % of blocks."""
    from safetensors.torch import load_file

    model, tokenizer = bundled
    prompt = tmp_path / "prompt.txt"
    prompt.write_text(TEXT.read_text(encoding="utf-8")[:8000], encoding="utf-8")
    files = ["-m", MODEL, "-f", prompt, "--plan", tmp_path / "plan.safetensors", "-n", "0"]
    subprocess.run([command, "run", *files, "--method", "prism", "-o", "min_tokens=0"], check=True)
    theirs = load_file(tmp_path / "plan.safetensors")
    pt.enable(model, min_tokens=0)
    ids = tokenizer(prompt.read_text(encoding="utf-8"), return_tensors="pt").input_ids
    ours = capture_plans(model, input_ids=ids)
    assert len(ours) == 8
    for layer, plan in ours.items():
        mine, other = torch.from_numpy(plan.mask()[0]), theirs[f"layer.{layer}"].bool()
        assert mine.shape == other.shape
        assert (mine != other).sum() <= 0.01 * other.sum()


def test_example():
    script = ROOT / "examples" / "transformers_long_prompt.py"
    arguments = ["--max-prompt", str(N_TOKEN), "-n", "3", "-o", "top_p=0.9"]
    done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{N_TOKEN} tokens") and lines[1].lstrip().startswith("PyTorch:")
    assert lines[2].lstrip().startswith("prism:") and "sparse" in done.stdout and "dense: one query" in done.stdout


def test_picture(tmp_path):
    out = tmp_path / "plan.png"
    prompt = str(ROOT / "examples" / "needle-16k.json")
    arguments = ["--layer", "2", "--head", "7", "0", "--max-tokens", "1280", "--out", str(out)]
    plot.main([str(MODEL), "--prompt", prompt, *arguments])
    assert out.read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(SystemExit, match="layer 9 made no plan"):
        plot.main([str(MODEL), "--prompt", prompt, "--layer", "9", "--max-tokens", "1100", "--out", str(out)])


@pytest.mark.parametrize("method", ["prism", "dense"])
def test_lm_eval(tmp_path, method):
    source = f"pretrained={MODEL.parent},gguf_file={MODEL.name},dtype=float32,max_length=131072,add_bos_token=True"
    arguments = ["--model", "hf", "--model_args", source, "--tasks", "prism_needle,prism_perplexity"]
    ours = ["--prism-text", str(TEXT), "--prism-tokens", str(N_TOKEN), "--prism-samples", "2"]
    ours += ["--prism-method", method]
    command = [sys.executable, "-m", "prism_attn.lm_eval", *arguments, *ours]
    done = subprocess.run([*command, "--device", "cpu", "--output_path", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    (file,) = tmp_path.rglob("results_*.json")
    results = json.loads(file.read_text())
    assert results["results"]["prism_needle"]["recall,none"] == 1.0
    assert 20 < results["results"]["prism_perplexity"]["token_perplexity,none"] < 100
    used = results["prism_attn"]
    assert used["method"] == method and used["calls"]["sparse" if method == "prism" else "dense"] >= 8 * 4
    assert used["density"] < 0.8 if method == "prism" else used["density"] == 1


def test_needles_are_the_same_every_time():
    from prism_attn.lm_eval.text_tasks import needle_prompt, pieces

    def tokenize(text):  # a word a token
        spans, at = [], 0
        for word in text.split(" "):
            spans.append((at, at + len(word)))
            at += len(word) + 1
        return {"input_ids": spans, "offset_mapping": spans}

    text = TEXT.read_text(encoding="utf-8")
    prompt = needle_prompt(text, tokenize, 500, 3)
    assert prompt == needle_prompt(text, tokenize, 500, 3) != needle_prompt(text, tokenize, 500, 4)
    assert prompt["input"].count(prompt["answer"]) == 1 and prompt["input"].count("One of the special") == 4
    assert len(tokenize(prompt["input"])["input_ids"]) <= 500
    cut = pieces(text, tokenize, 100, 3)
    assert (
        "".join(cut) == text[: len("".join(cut))] and [len(tokenize(x.strip())["input_ids"]) for x in cut] == [100] * 3
    )


def test_long_prompt_of_the_bundled_model(bundled):
    model, tokenizer = bundled
    pt.enable(model)
    prompt = plot.read_prompt(str(ROOT / "examples" / "needle-16k.json"))
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    assert ids.shape[1] == 16201
    with torch.no_grad():
        logits = model(ids[:, -4000:], logits_to_keep=1).logits
    assert logits.isfinite().all()
    assert prism_attn.stats().calls("sparse") == 8 and prism_attn.stats().density < 0.6
