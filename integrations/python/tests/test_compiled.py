"""Compiled models: other lengths, other settings."""

from __future__ import annotations

import families
import pytest
import torch
from conftest import error

import prism_attn
import prism_attn.transformers as pt

ROUNDING = 5e-6  # two layers in float32


@pytest.fixture(autouse=True)
def _clean():
    torch._dynamo.reset()
    with torch.no_grad():
        yield
    pt.enable()


def _tokens(n: int) -> torch.Tensor:
    return torch.randint(3, families.VOCABULARY, (2, n), generator=torch.Generator().manual_seed(n))


def _compile(model):
    return torch.compile(model, fullgraph=True, backend="eager")  # tracing and guards are what is asked here


@pytest.mark.parametrize("name, padding", [("qwen3", 40), ("phi3, longrope", 0)])
def test_other_lengths(name, padding):
    model = families.make(name)
    pt.enable(model, top_p=0.3, min_tokens=0)
    compiled = _compile(model)  # longrope has other frequencies from 513 tokens on
    for n in (400, 600):
        mask = torch.ones(2, n, dtype=torch.long)
        mask[0, :padding] = 0
        prism_attn.reset_stats()
        logits = compiled(_tokens(n), attention_mask=mask).logits
        assert prism_attn.stats().calls("sparse") == 2
        assert error(logits, model(_tokens(n), attention_mask=mask).logits) < ROUNDING


@pytest.mark.parametrize("how", ["enabled", "default settings"])
def test_a_changed_method_takes_effect(how):
    model, ids = families.make("qwen3"), _tokens(600)
    mask = torch.ones_like(ids)
    if how == "enabled":
        change = lambda **options: pt.enable(model, **options)  # noqa: E731
    else:
        model.set_attn_implementation("prism")
        change = pt.enable
    compiled, seen = _compile(model), []
    for options in ({"top_p": 0.3, "min_tokens": 0}, {"method": "dense"}):
        change(**options)
        seen.append(compiled(ids, attention_mask=mask).logits)
        assert error(seen[-1], model(ids, attention_mask=mask).logits) < ROUNDING
    assert error(seen[0], seen[1]) > 0.01
    pt.disable(model)
    own = model(ids, attention_mask=mask).logits
    prism_attn.reset_stats()
    assert error(compiled(ids, attention_mask=mask).logits, own) < ROUNDING
    assert prism_attn.stats().calls() == 0
