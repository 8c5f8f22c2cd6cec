"""What the two evaluation harnesses share: our options on their command lines, densities in their results."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from .config import default_method, methods
from .counting import reset_stats, stats
from .plot import parse_options

OPTIONS = f"""options of ours, before or between the harness's own:
  --prism-method NAME        {", ".join(methods())} (default {default_method()})
  --prism-option NAME=VALUE  top_p=0.9, min_tokens=2048, ...; may be repeated"""


def take_options(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Ours, and the harness's arguments."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--prism-method", default=default_method())
    parser.add_argument("--prism-option", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--prism-text", help="text of the tasks prism_needle and prism_perplexity")
    parser.add_argument("--prism-tokens", type=int, default=8192, help="their length")
    parser.add_argument("--prism-samples", type=int, default=8)
    parser.add_argument("--prism-longbench", help="folder of LongBench's files, one TASK.jsonl each")
    return parser.parse_known_args(argv)


def add_model_args(argv: list[str], extra: str) -> list[str]:
    """Appends name=value pairs to --model_args, which holds one list with commas, or several words."""
    for i, word in enumerate(argv):
        if word == "--model_args":
            return [*argv[: i + 1], f"{argv[i + 1]},{extra}", *argv[i + 2 :]]
        if word.startswith("--model_args="):
            return [*argv[:i], f"{word},{extra}", *argv[i + 1 :]]
    raise SystemExit("--model_args pretrained=... is needed")


def enable_all(options: argparse.Namespace) -> dict[str, Any]:
    """Sets what attn_implementation="prism" means; returns it for the results file."""
    from .transformers import enable

    chosen = parse_options(options.prism_option)
    enable(method=options.prism_method, **chosen)
    return {"method": options.prism_method, "options": chosen}


def with_statistics(evaluate: Callable, settings: dict[str, Any]) -> Callable:
    """The harness's evaluate function; its results gain a "prism_attn" entry."""

    def wrapped(*args, **kwargs):
        reset_stats()
        results = evaluate(*args, **kwargs)
        if results is not None:
            results["prism_attn"] = settings | stats().to_dict()
            print(f"prism-attn: {settings}, density {stats().density:.3f} of calls {stats().reasons()}")
        return results

    return wrapped
