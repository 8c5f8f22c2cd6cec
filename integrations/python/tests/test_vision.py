"""Vision models: the text tower is ours, the vision tower stays what it was. Random weights, synthetic frames."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import transformers as hf
from conftest import error

import prism_attn
import prism_attn.transformers as pt
from prism_attn import lmms_eval
from prism_attn.transformers.rotary import rotation_of

PATCH, MERGE, N_FRAME, SIDE = 8, 2, 8, 8  # 8 frames of 64 x 64: 4 pairs of frames, 8 x 8 patches each
START, END, IMAGE, VIDEO = 152, 153, 150, 151

_TEXT = {
    "vocab_size": 200, "hidden_size": 128, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 8192,
}  # fmt: skip
_IDS = {
    "image_token_id": IMAGE, "video_token_id": VIDEO, "vision_start_token_id": START, "vision_end_token_id": END,
}  # fmt: skip


def _qwen3_vl():
    rope = {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [6, 5, 5], "mrope_interleaved": True}
    vision = {
        "depth": 2, "hidden_size": 64, "intermediate_size": 64, "num_heads": 4, "patch_size": PATCH,
        "spatial_merge_size": MERGE, "temporal_patch_size": 2, "out_hidden_size": 128, "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0],
    }  # fmt: skip
    config = hf.Qwen3VLConfig(
        text_config={**_TEXT, "head_dim": 32, "rope_parameters": rope}, vision_config=vision, **_IDS
    )
    return _make(hf.Qwen3VLForConditionalGeneration, config)


def _qwen25_vl():
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 6, 6]}
    vision = {
        "depth": 2, "hidden_size": 64, "intermediate_size": 64, "num_heads": 4, "patch_size": PATCH,
        "spatial_merge_size": MERGE, "temporal_patch_size": 2, "out_hidden_size": 128, "window_size": 32,
        "fullatt_block_indexes": [1],
    }  # fmt: skip
    config = hf.Qwen2_5_VLConfig(text_config={**_TEXT, "rope_parameters": rope}, vision_config=vision, **_IDS)
    return _make(hf.Qwen2_5_VLForConditionalGeneration, config)


def _make(kind, config):
    torch.manual_seed(0)
    return kind._from_config(config, attn_implementation="sdpa").eval()


MODELS = {"qwen3-vl": _qwen3_vl, "qwen2.5-vl": _qwen25_vl}


def _video(model) -> dict:
    """A prompt of a synthetic video and 360 words."""
    torch.manual_seed(1)
    n_time, per_time = N_FRAME // 2, (SIDE // MERGE) ** 2
    frames = [[START] + [VIDEO] * per_time + [END] for _ in range(n_time)]
    if isinstance(model, hf.Qwen2_5_VLForConditionalGeneration):
        frames = [[START] + [VIDEO] * per_time * n_time + [END]]
    ids = torch.tensor([[1, *sum(frames, []), *list(range(10, 100)) * 4]])
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == VIDEO).int() * 2,
        "pixel_values_videos": torch.randn(n_time * SIDE * SIDE, 3 * 2 * PATCH * PATCH),
        "video_grid_thw": torch.tensor([[n_time, SIDE, SIDE]]),
    }


@pytest.mark.parametrize("name", MODELS)
def test_text_tower(name):
    model = MODELS[name]()
    video = _video(model)
    with torch.no_grad():
        expected = model(**video).logits
        pt.enable(model, method="dense")
        assert error(model(**video).logits, expected) < 5e-6
        assert prism_attn.stats().reasons() == {"dense": 2}  # two text layers; the vision tower is not touched
        prism_attn.reset_stats()
        pt.enable(model, min_tokens=0, top_p=0.3)
        model(**video)
        assert prism_attn.stats().reasons() == {"sparse": 2} and prism_attn.stats().density < 1


@pytest.mark.parametrize("name", MODELS)
def test_axes_of_the_rotation(name):
    model = MODELS[name]()
    layer = next(m for m in model.modules() if pt._is_attention(m))
    rope = rotation_of(layer, 600)
    base = 5e6 if name == "qwen3-vl" else 1e6
    # In text every axis advances by one a token: the ladder is that of one axis.
    assert rope.frequencies == pytest.approx([base ** (-2 * j / 32) for j in range(16)], rel=1e-5, abs=2e-7)
    assert rope.pairs == tuple((j, j + 16) for j in range(16))


def test_lmms_evals_door():
    """The class that lmms-eval gets creates models that are switched over; a model it cannot switch is refused."""

    class Model:
        @classmethod
        def create_from_arg_string(cls, text, extra=None):
            assert text == "pretrained=x"
            return SimpleNamespace(_model=_qwen3_vl())

    wrapped = lmms_eval.enabling(lambda name: Model, {"method": "prism", "options": {"min_tokens": 0, "top_p": 0.3}})
    created = wrapped("qwen3_vl").create_from_arg_string("pretrained=x", {})
    with torch.no_grad():
        created._model(**_video(created._model))
    assert prism_attn.stats().reasons() == {"sparse": 2}
    with pytest.raises(SystemExit, match="holds no transformers model"):
        lmms_eval.switch(SimpleNamespace(), {"method": "prism", "options": {}})
