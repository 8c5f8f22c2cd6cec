"""lmms-eval's own command line (images, video), with a method switched on in the text tower and densities in the
results.

    python -m prism_attn.lmms_eval --model qwen3_vl --model_args pretrained=DIR --tasks videomme

Everything but --prism-... goes to lmms-eval as it is. Its models are transformers' own, held as `_model` or `model`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from .extras import missing
from .harness import OPTIONS, enable_all, take_options, with_statistics


def enabling(get_model: Callable[..., type], settings: dict[str, Any]) -> Callable[..., type]:
    """lmms-eval's get_model(name) with every model that its class creates switched over."""

    def wrapped(*args, **kwargs) -> type:
        found = get_model(*args, **kwargs)

        class Enabled(found):
            @classmethod
            def create_from_arg_string(cls, *args, **kwargs):
                created = found.create_from_arg_string(*args, **kwargs)
                switch(created, settings)
                return created

        return Enabled

    return wrapped


def switch(lm: object, settings: dict[str, Any]) -> None:
    """Enables the transformers model inside an lmms-eval model."""
    from torch import nn

    from .transformers import enable

    model = getattr(lm, "_model", None) or getattr(lm, "model", None)
    if not isinstance(model, nn.Module):
        raise SystemExit(f"{type(lm).__name__} holds no transformers model that prism-attn could be switched on in")
    enable(model, method=settings["method"], **settings["options"])


def main(argv: list[str] | None = None) -> None:
    """argv: without the program's name."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(f"{__doc__}\n{OPTIONS}\n")
        return
    ours, theirs = take_options(argv)
    try:
        from lmms_eval import evaluator, models
        from lmms_eval.__main__ import cli_evaluate
    except ModuleNotFoundError as error:
        raise missing(error, "lmms-eval") from error

    settings = enable_all(ours)
    models.get_model = enabling(models.get_model, settings)
    evaluator.simple_evaluate = with_statistics(evaluator.simple_evaluate, settings)
    sys.argv = ["lmms-eval", *theirs]
    cli_evaluate()


if __name__ == "__main__":
    main()
