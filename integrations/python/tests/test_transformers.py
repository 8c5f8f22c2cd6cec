"""transformers models through prism-attn: families, padding, caches, chunks, compile."""

from __future__ import annotations

import families
import pytest
import torch
from conftest import error
from transformers import DynamicCache

import prism_attn
import prism_attn.transformers as pt
from prism_attn.transformers import interface

# Two layers of attention and MLPs pass an error on; bfloat16 activations between them carry 8 bits.
MODEL_ERROR = {torch.float32: 5e-6, torch.bfloat16: 2e-2}


def _tokens(n: int, n_seq: int = 1) -> torch.Tensor:
    g = torch.Generator().manual_seed(1)
    return torch.randint(3, families.VOCABULARY, (n_seq, n), generator=g)


def _sparse(model) -> None:
    pt.enable(model, top_p=0.3, min_tokens=0)


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


@pytest.mark.parametrize("dtype", list(MODEL_ERROR), ids=str)
@pytest.mark.parametrize("name", families.FAMILIES)
def test_dense_through_us_is_the_models_own(name, dtype):
    model, ids = families.make(name, dtype), _tokens(600)
    expected = model(ids).logits
    pt.enable(model, method="dense")
    assert error(model(ids).logits, expected) < MODEL_ERROR[dtype]
    assert prism_attn.stats().calls() == 2  # both layers came by


@pytest.mark.parametrize("name", families.FAMILIES)
def test_what_goes_which_way(name):
    model = families.make(name)
    pt.enable(model, min_tokens=0, top_p=0.9)
    model(_tokens(600))
    assert set(prism_attn.stats().reasons()) == families.FAMILIES[name].paths


def test_a_layer_computes_attention_over_its_plan(monkeypatch):
    """What leaves the layer is attention(), whose sparse results test_command.py compares with the C command's."""
    model, seen = families.make("qwen3"), []
    own = interface.prism_attention

    def spy(module, q, k, v, mask, **kwargs):
        out = own(module, q, k, v, mask, **kwargs)
        config, _ = pt.layer_config(module, k.shape[2])
        seen.append(prism_attn.plan(q, k, config=config).density)
        again = prism_attn.attention(q, k, v, config=config, scale=kwargs["scaling"])
        assert torch.equal(out[0].transpose(1, 2), again)
        return out

    from transformers import AttentionInterface

    _sparse(model)
    AttentionInterface.register("prism", spy)
    try:
        model(_tokens(1500))
    finally:
        AttentionInterface.register("prism", own)
    assert len(seen) == 2 and max(seen) < 1


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ["qwen3", "gemma3", "gpt-oss", "glm4"])
def test_padding_changes_nothing(name, side):
    model, ids = families.make(name), _tokens(600, 3)
    pt.enable(model, top_p=0.3, min_tokens=0)
    lengths = [600, 430, 131]
    expected = [model(ids[s : s + 1, :n]).logits[0] for s, n in enumerate(lengths)]
    padded, mask = torch.zeros_like(ids), torch.zeros_like(ids)
    at = [slice(600 - n, 600) if side == "left" else slice(0, n) for n in lengths]
    for s, (n, where) in enumerate(zip(lengths, at, strict=True)):
        padded[s, where], mask[s, where] = ids[s, :n], 1
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    logits = model(padded, attention_mask=mask, position_ids=positions).logits
    for s, where in enumerate(at):
        # Rotations at other positions differ in the last bit (left padding), no plan does.
        assert error(logits[s, where], expected[s]) < MODEL_ERROR[torch.float32]


@pytest.mark.parametrize("name", ["qwen3", "gemma3", "gpt-oss"])
def test_padding_reads_no_uninitialised_memory(name):
    """torch fills what torch.empty returns with NaN here; a NaN in a row of padding would reach dense layers."""
    model, ids = families.make(name), _tokens(400, 2)
    pt.enable(model, top_p=0.3, min_tokens=0)
    mask = torch.ones_like(ids)
    mask[0, :150] = 0
    torch.use_deterministic_algorithms(True)
    try:
        assert model(ids, attention_mask=mask).logits.isfinite().all()
    finally:
        torch.use_deterministic_algorithms(False)


def test_holes_in_the_mask_are_dense():
    model, ids = families.make("qwen3"), _tokens(600)
    mask = torch.ones_like(ids)
    mask[0, 100:200] = 0
    expected = model(ids, attention_mask=mask).logits
    _sparse(model)
    assert error(model(ids, attention_mask=mask).logits, expected) < 1e-6
    assert set(prism_attn.stats().reasons()) == {"dense: mask is not causal with padding"}


def test_packed_sequences_do_not_see_each_other():
    model, ids = families.make("qwen3"), _tokens(600)
    positions = torch.cat([torch.arange(250), torch.arange(350)])[None]
    expected = model(ids, position_ids=positions, use_cache=False).logits
    _sparse(model)
    assert error(model(ids, position_ids=positions, use_cache=False).logits, expected) < 1e-6
    assert set(prism_attn.stats().reasons()) == {"dense: mask is not causal with padding"}


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("chunk", [None, 256])
@pytest.mark.parametrize("padding", [0, 100])
@pytest.mark.parametrize("name", ["qwen3", "gemma3"])
def test_generate(name, cache, chunk, padding):
    model, ids = families.make(name), _tokens(600, 2)
    mask = torch.ones_like(ids)
    mask[0, :padding] = 0
    options = {"attention_mask": mask, "max_new_tokens": 6, "do_sample": False, "min_new_tokens": 6}
    expected = model.generate(ids, **options)
    pt.enable(model, method="dense")
    assert torch.equal(model.generate(ids, cache_implementation=cache, prefill_chunk_size=chunk, **options), expected)
    paths = prism_attn.stats().reasons()
    assert paths["dense: one query"] == 2 * 5 and paths["dense"] >= 1


def test_chunked_prefill_is_the_whole_prefill():
    model, ids = families.make("qwen3"), _tokens(1024)
    _sparse(model)
    whole, cache = model(ids).logits, DynamicCache()
    parts = [model(ids[:, a : a + 256], past_key_values=cache).logits for a in range(0, 1024, 256)]
    # Equal plans; linear layers of other row counts differ in the last bits.
    assert error(torch.cat(parts, 1), whole) < MODEL_ERROR[torch.float32]
    assert set(prism_attn.stats().reasons()) == {"sparse"} and prism_attn.stats().density < 1


@pytest.mark.parametrize("how", ["enabled", "loaded"])
def test_compiled_model(how):
    model, ids = families.make("qwen3"), _tokens(600, 2)
    mask = torch.ones_like(ids)
    mask[0, :100] = 0
    torch._dynamo.reset()
    if how == "enabled":
        _sparse(model)
    else:
        pt.enable(top_p=0.3, min_tokens=0)
        model.set_attn_implementation("prism")
    try:
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        logits = compiled(ids, attention_mask=mask).logits
        assert prism_attn.stats().calls("sparse") == 2
        assert error(logits, model(ids, attention_mask=mask).logits) < MODEL_ERROR[torch.float32]
        mask[1, 300:310] = 0
        with pytest.raises(RuntimeError, match="padding inside a sequence"):
            compiled(ids, attention_mask=mask)
    finally:
        pt.enable()


def test_training_goes_to_pytorch():
    model = families.make("qwen3")
    _sparse(model)
    with torch.enable_grad():
        model(_tokens(600)).logits.sum().backward()
    assert set(prism_attn.stats().reasons()) == {"dense: gradients wanted"}


@pytest.mark.parametrize("name", ["llama", "gpt-oss"])
def test_disable_and_apply_patch(name):
    model, ids = families.make(name), _tokens(600)
    before, expected = model.config._attn_implementation, model(ids).logits
    assert pt.apply_patch(model, top_p=0.3, min_tokens=0) is model
    model(ids)
    assert prism_attn.stats().calls() == 2
    pt.disable(model)
    assert torch.equal(model(ids).logits, expected) and model.config._attn_implementation == before
    assert prism_attn.stats().calls() == 2


def test_enabling_leaves_the_state_dict_alone():
    model = families.make("qwen3")
    before = list(model.state_dict())
    _sparse(model)
    model(_tokens(600))
    assert list(model.state_dict()) == before
