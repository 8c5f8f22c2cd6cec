"""prism-attn: block-sparse attention for the prefill of long prompts.

attention(), plan()          on torch tensors or anything with DLPack (NumPy, CuPy, ...)
prism_attn.transformers      one line makes a transformers model prefill with it
stats(), reset_stats()       what every call was: sparse or dense, why, density, time

Threads: every function may be called from several threads at once. A call uses as many CPU threads as
torch.get_num_threads() says, or all processors without torch.
"""

from ._abi import PrismError
from .api import attention, plan, plan_from_mask
from .config import make_config, methods, options
from .counting import Stats, reset_stats, stats
from .engine import clear
from .plans import Plan
from .rope import Bands, Rope

__version__ = "0.1.0"
__all__ = [
    "Bands",
    "Plan",
    "PrismError",
    "Rope",
    "Stats",
    "attention",
    "clear",
    "make_config",
    "methods",
    "options",
    "plan",
    "plan_from_mask",
    "reset_stats",
    "stats",
]
