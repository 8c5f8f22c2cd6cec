"""lm-eval loads functions from files beside its tasks; ours live in the package."""

from prism_attn.lm_eval.text_tasks import needle_dataset, needle_results, perplexity_dataset, perplexity_results

__all__ = ["needle_dataset", "needle_results", "perplexity_dataset", "perplexity_results"]
