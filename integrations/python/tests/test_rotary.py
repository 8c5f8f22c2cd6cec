"""Frequencies and bands: read from models, and equal to what the formulas say."""

from __future__ import annotations

import families
import pytest
import torch
import transformers as hf

import prism_attn
import prism_attn.transformers as pt
from prism_attn.rope import Bands, Rope
from prism_attn.transformers.rotary import rotation_of

# Families whose layers all turn; DeepSeek's attention is not ours, the others have layers without positions.
TURNING = [name for name in families.FAMILIES if not name.startswith(("smollm3", "cohere2", "deepseek"))]


def _attention_layers(model):
    return [m for m in model.modules() if pt._is_attention(m)]


def test_the_papers_bands():
    bands = Rope.half_split(128, 1e6).bands(128)
    assert bands == Rope.half_split(128, 1e6).bands(128, 64, 96)
    assert bands.high == (*range(32), *range(64, 96)) and bands.low == (*range(16, 64), *range(80, 128))
    assert Bands.parse(bands.text) == bands and bands.text == "128/0-31,64-95/16-63,80-127"


@pytest.mark.parametrize("name", TURNING)
def test_frequencies_are_the_models(name):
    model = families.make(name)
    for layer in _attention_layers(model):
        rope = rotation_of(layer, 100)
        rotary = model.get_decoder().rotary_emb
        own = getattr(rotary, "inv_freq", None)
        if own is None:
            own = getattr(rotary, f"{layer.layer_type}_inv_freq")
        # float32 cosines at position 1 hold an angle to 1e-7 of a radian: enough for order, and for slow pairs.
        assert torch.allclose(torch.tensor(rope.frequencies), own.float().cpu(), rtol=1e-5, atol=2e-7)
        n = len(rope.pairs)
        interleaved = name in ("glm", "glm4", "ernie 4.5")
        assert rope.pairs == tuple((2 * j, 2 * j + 1) if interleaved else (j, j + n) for j in range(n))


def test_partial_rotation_leaves_the_rest():
    assert len(rotation_of(_attention_layers(families.make("glm4"))[0], 600).pairs) == 8  # half of 32 dimensions
    assert len(rotation_of(_attention_layers(families.make("phi3, longrope"))[0], 600).pairs) == 12  # three quarters


def test_longrope_knows_the_prompts_length():
    layer = _attention_layers(families.make("phi3, longrope"))[0]
    short, long = rotation_of(layer, 500), rotation_of(layer, 600)
    assert all(a == pytest.approx(b * (1 + j), rel=1e-4)
               for j, (a, b) in enumerate(zip(short.frequencies, long.frequencies, strict=True)))  # fmt: skip


def test_gemma3_has_a_base_for_each_kind_of_layer():
    local, full = _attention_layers(families.make("gemma3"))
    slowest = [rotation_of(layer, 600).frequencies[-1] for layer in (local, full)]
    assert slowest[0] == pytest.approx(1e4 ** (-30 / 32), rel=1e-3) and slowest[1] < slowest[0] / 10


def test_layers_without_positions_say_so():
    assert pt.layer_config(_attention_layers(families.make("smollm3"))[1], 600) == (
        "", "this layer has no rotary positions",
    )  # fmt: skip


def test_settings_reach_the_bands():
    model = families.make("qwen3")
    pt.enable(model, top_p=0.9, n_high=8, n_low=24)
    config, why = pt.layer_config(_attention_layers(model)[0], 600)
    assert not why and config.startswith("method=prism;top_p=0.9;bands=32/0-3,16-19/4-15,20-31")


def test_bundled_models_bands_are_the_commands():
    config = hf.Qwen3Config(head_dim=128, hidden_size=512, num_attention_heads=8, num_key_value_heads=2,
                            rope_parameters={"rope_type": "default", "rope_theta": 1e6}, num_hidden_layers=1,
                            vocab_size=8)  # fmt: skip
    layer = _attention_layers(hf.Qwen3ForCausalLM(config))[0]
    assert pt.layer_config(layer, 600)[0].endswith("bands=128/0-31,64-95/16-63,80-127")


def test_a_rope_that_does_not_fit_is_refused():
    with pytest.raises(ValueError):
        Rope(4, ((0, 1), (2, 3), (0, 3)), (1.0, 1.0, 1.0)).bands()
    with pytest.raises(prism_attn.PrismError):
        Rope(4, ((0, 7),), (1.0,)).bands()
