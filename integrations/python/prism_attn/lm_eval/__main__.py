"""lm-eval's own command line, with a method switched on and densities in the results file.

    python -m prism_attn.lm_eval --model hf --model_args pretrained=DIR --tasks prism_needle,prism_perplexity \\
        --prism-text book.txt --prism-tokens 8192 --output_path results

Everything but --prism-... goes to lm-eval as it is. The tasks prism_needle (RULER's needles in a text of your own) and
prism_perplexity need no network: --prism-text names the text, --prism-tokens the length, --prism-samples how many.
lm-eval's LongBench tasks (longbench, longbench_hotpotqa, ...) need none with --prism-longbench DIR, where DIR has
LongBench's own files, one TASK.jsonl each.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ..extras import missing
from ..harness import OPTIONS, add_model_args, enable_all, take_options, with_statistics
from . import longbench, text_tasks


def main(argv: list[str] | None = None) -> None:
    """argv: without the program's name."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(f"{__doc__}\n{OPTIONS}\n")
        return
    ours, theirs = take_options(argv)
    try:
        import lm_eval
        from lm_eval.__main__ import cli_evaluate
    except ModuleNotFoundError as error:
        raise missing(error, "lm-eval") from error

    lm_eval.simple_evaluate = with_statistics(lm_eval.simple_evaluate, enable_all(ours))
    if ours.prism_longbench:
        longbench.use_files(ours.prism_longbench)
    text_tasks.configure(ours.prism_text, ours.prism_tokens, ours.prism_samples)
    tasks = Path(__file__).with_name("tasks")
    sys.argv = ["lm-eval", *add_model_args(theirs, "attn_implementation=prism"), "--include_path", str(tasks)]
    cli_evaluate()


if __name__ == "__main__":
    main()
