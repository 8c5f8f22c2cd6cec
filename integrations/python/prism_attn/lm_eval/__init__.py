"""lm-evaluation-harness with prism-attn: `python -m prism_attn.lm_eval`."""
