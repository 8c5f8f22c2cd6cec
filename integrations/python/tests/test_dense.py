"""What must not be sparse is dense, exact, and says why; what cannot be is refused in a sentence."""

from __future__ import annotations

import families
import pytest
import torch
import transformers as hf
from conftest import error
from test_transformers import MODEL_ERROR, _sparse, _tokens

import prism_attn
import prism_attn.transformers as pt


def _gradients(model, ids):
    model.zero_grad()
    loss = model(ids, labels=ids, use_cache=False).loss
    loss.backward()
    return loss.item(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointing_has_the_gradients_of_plain_training(use_reentrant):
    model, ids = families.make("qwen3"), _tokens(600)
    model.train()
    loss, gradients = _gradients(model, ids)
    _sparse(model)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": use_reentrant})
    model.enable_input_require_grads()
    again, checkpointed = _gradients(model, ids)
    assert again == pytest.approx(loss, rel=1e-5) and error(checkpointed, gradients) < 1e-4
    assert set(prism_attn.stats().reasons()) == {"dense: model in training mode"}


@torch.no_grad()
def test_a_few_queries_are_exact():
    model, ids = families.make("qwen3"), _tokens(700)
    expected = model(ids).logits
    _sparse(model)
    for n, reason in ((1, "one query"), (2, "few queries"), (31, "few queries"), (32, None)):
        cache = hf.DynamicCache()
        pt.enable(model, method="dense")
        model(ids[:, :-n], past_key_values=cache)
        _sparse(model)
        prism_attn.reset_stats()
        logits = model(ids[:, -n:], past_key_values=cache).logits
        assert set(prism_attn.stats().reasons()) == {f"dense: {reason}" if reason else "sparse"}
        assert (error(logits, expected[:, -n:]) < MODEL_ERROR[torch.float32]) == (reason is not None)


@torch.no_grad()
def test_guessed_tokens_change_no_answer():
    model, ids = families.make("qwen3"), _tokens(150).repeat(1, 5)  # repetitions: lookup finds guesses
    _sparse(model)
    options = {"max_new_tokens": 24, "do_sample": False, "attention_mask": torch.ones_like(ids)}
    plain = model.generate(ids, **options)
    prism_attn.reset_stats()
    assert torch.equal(model.generate(ids, prompt_lookup_num_tokens=8, **options), plain)
    assert prism_attn.stats().calls("dense: few queries") > 0


def test_rotary_code_of_another_form_is_a_reason(monkeypatch):
    layer = next(m for m in families.make("llama").modules() if pt._is_attention(m))

    def other(tensor, sin, cos):
        raise AssertionError("never reached")

    monkeypatch.setattr("transformers.models.llama.modeling_llama.apply_rotary_pos_emb", other)
    config, why = pt.layer_config(layer, 600)
    assert not config and why.startswith("LlamaAttention: its rotary code could not be asked (TypeError: ")


_SMALL = {"vocab_size": families.VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_OWN = {
    "Bloom": {"hidden_size": 64, "n_layer": 2, "n_head": 2},
    "Falcon": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
    "Mamba": {"hidden_size": 64, "num_hidden_layers": 2},
}


@torch.no_grad()
@pytest.mark.parametrize("name", _OWN)
def test_a_model_that_it_cannot_help_is_said(name):
    config = getattr(hf, f"{name}Config")(**_SMALL, **_OWN[name])
    model = getattr(hf, f"{name}ForCausalLM")._from_config(config).eval()
    expected = model(_tokens(100)).logits
    sentence = f"{name}ForCausalLM has no attention layer on transformers' AttentionInterface"
    for _ in range(2):
        with pytest.warns(UserWarning, match=sentence):
            pt.enable(model)
    prism_attn.reset_stats()
    assert torch.equal(model(_tokens(100)).logits, expected)
    path = f"dense: {name}ForCausalLM does not use transformers' AttentionInterface"
    assert prism_attn.stats().reasons() == {path: 1}
    pt.disable(model)
    model(_tokens(100))
    assert prism_attn.stats().calls() == 1


@torch.no_grad()
def test_gpt_j_computes(recwarn):
    """It turns its queries in code of another form; newer transformers call the interface from it, older do not."""
    config = hf.GPTJConfig(**_SMALL, n_embd=128, n_layer=2, n_head=4, rotary_dim=16, n_positions=1024)
    model = hf.GPTJForCausalLM._from_config(config).eval()
    expected = model(_tokens(600)).logits
    _sparse(model)
    assert error(model(_tokens(600)).logits, expected) < MODEL_ERROR[torch.float32]
    assert all(path.startswith("dense: GPTJ") for path in prism_attn.stats().reasons())
    assert prism_attn.stats().calls() > 0


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_integer_masks_of_four_axes_are_refused(dtype):
    model, ids = families.make("qwen3"), _tokens(100)
    _sparse(model)
    mask = torch.ones(1, 1, 100, 100, dtype=dtype).tril()
    with pytest.raises(TypeError, match=r"attention_mask of 4 axes is torch.int.*: pass bool"):
        model(ids, attention_mask=mask)
    assert model(ids, attention_mask=mask.bool()).logits.isfinite().all()
