"""vLLM's classes as far as prism_attn.vllm sees them, so that its logic is tested where vLLM is not installed.

The backends compute dense attention, request by request, from the pages of a cache. The engine itself is tested by
`make test-vllm`.
"""

from __future__ import annotations

import enum
import logging
import sys
from dataclasses import dataclass, field
from functools import lru_cache
from types import ModuleType, SimpleNamespace

import torch
from conftest import truth

PAGE = 128


@dataclass
class CommonAttentionMetadata:
    query_start_loc: torch.Tensor
    query_start_loc_cpu: torch.Tensor
    seq_lens: torch.Tensor
    num_reqs: int
    num_actual_tokens: int
    max_query_len: int
    max_seq_len: int
    block_table_tensor: torch.Tensor
    slot_mapping: torch.Tensor
    causal: bool = True
    positions: torch.Tensor | None = None
    is_prefilling: torch.Tensor | None = None
    seq_lens_cpu_upper_bound: torch.Tensor | None = None
    mm_req_doc_ranges: dict | None = None
    _num_computed_tokens_cache: torch.Tensor | None = None
    _token_to_req_indices_cache: torch.Tensor | None = None


class Backend:
    forward_includes_kv_cache_update = False


@dataclass
class Metadata:
    common: CommonAttentionMetadata
    fast: bool


class Builder:
    def __init__(self, kv_cache_spec, layer_names, vllm_config, device) -> None:
        self.vllm_config = vllm_config

    def build(self, common_prefix_len, common_attn_metadata, fast_build=False):
        return Metadata(common_attn_metadata, fast_build)


class Impl:
    """Reads K and V the way the cache's owner packs them; notes the requests of every call."""

    dcp_world_size = 1

    def __init__(self, num_heads, head_size, scale, num_kv_heads, sliding_window=None, soft_cap=0, sinks=None) -> None:
        self.num_heads, self.head_size, self.scale, self.num_kv_heads = num_heads, head_size, scale, num_kv_heads
        self.sliding_window = -1 if sliding_window is None else sliding_window
        self.logits_soft_cap, self.sinks, self.alibi_slopes = soft_cap, sinks, None
        self.attn_type, self.kv_cache_dtype = "decoder", "auto"
        self.calls: list[list[int]] = []

    def forward(self, layer, query, key, value, kv_cache, metadata, output, output_scale=None, output_block_scale=None):
        if metadata is None:
            return output
        c = metadata.common
        starts, n_kv = c.query_start_loc.tolist(), c.seq_lens.tolist()
        assert starts[0] == 0 and len(query) >= starts[-1] == c.num_actual_tokens == len(c.slot_mapping)
        assert c.max_seq_len >= max(n_kv) and len(n_kv) == c.num_reqs
        self.calls.append([b - a for a, b in zip(starts, starts[1:], strict=False)])
        for i, n in enumerate(n_kv):
            k, v = read_cache(kv_cache, layer.isa, c.block_table_tensor[i].tolist(), n)
            rows = slice(starts[i], starts[i + 1])
            q = query[rows].transpose(0, 1)[None]
            output[rows] = truth(q, k, v)[0].transpose(0, 1).to(output.dtype)
        return output


class CGSupport(enum.Enum):
    ALWAYS = 3
    UNIFORM_SINGLE_TOKEN_DECODE = 1


class Enum(enum.Enum):
    CPU_ATTN = 1
    CUSTOM = 2


# ------------------------------------------------------------------------------------------------- cache ----


def place(isa: str, t: int, j: int, d: int) -> tuple[int, int]:
    """Where dimension j of token t of a page stands: in K's half and in V's half of a head's page."""
    if isa == "vec":
        return j * PAGE + t, t * d + j
    if isa == "amx":
        k = ((t // 16) * (d // 2) + j // 2) * 32 + (t % 16) * 2 + j % 2
        return k, ((j // 16) * (PAGE // 2) + t // 2) * 32 + (j % 16) * 2 + t % 2
    return t * 2 * d + j, t * 2 * d + d + j  # "cuda": a token's K, then its V


@lru_cache
def _index(isa: str, d: int) -> tuple[torch.Tensor, torch.Tensor]:
    """[token, d] indices of K and V in a head's page of 2 * PAGE * d elements."""
    at = torch.tensor([[place(isa, t, j, d) for j in range(d)] for t in range(PAGE)])
    k, v = at[..., 0], at[..., 1]
    return (k, v) if isa == "cuda" else (k, v + PAGE * d)


def empty_cache(isa: str, n_page: int, n_head: int, d: int, dtype: torch.dtype) -> torch.Tensor:
    """[page, head, token, 2 d], not a number everywhere; on a "GPU" tokens lie outside heads."""
    shape = (n_page, PAGE, n_head, 2 * d) if isa == "cuda" else (n_page, n_head, PAGE, 2 * d)
    cache = torch.full(shape, torch.nan, dtype=dtype)
    return cache.transpose(1, 2) if isa == "cuda" else cache


def write_cache(cache: torch.Tensor, isa: str, pages: list[int], k: torch.Tensor, v: torch.Tensor) -> None:
    """k, v [head, token, d] of one request."""
    d = k.shape[-1]
    at = _index(isa, d)
    for p, page in enumerate(pages):
        for x, index in zip((k, v), at, strict=True):
            part = x[:, p * PAGE : (p + 1) * PAGE]
            for h in range(len(k)):
                flat = cache[page, h].clone().reshape(-1)
                flat[index[: part.shape[1]]] = part[h]
                cache[page, h] = flat.view(PAGE, 2 * d)


def read_cache(cache: torch.Tensor, isa: str, pages: list[int], n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """k, v [1, head, n, d] of one request."""
    n_head, d = cache.shape[1], cache.shape[3] // 2
    used = cache[pages[: (n + PAGE - 1) // PAGE]].reshape(-1, n_head, 2 * PAGE * d)
    return tuple(used[..., index].transpose(0, 1).reshape(1, n_head, -1, d)[:, :, :n] for index in _index(isa, d))


# ---------------------------------------------------------------------------------------------- modules ----


@dataclass
class Fake:
    """What the modules were told."""

    config: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(additional_config={}))
    registered: dict = field(default_factory=dict)
    on_cpu: bool = True
    version: str = "0.32.0"


def install(monkeypatch) -> Fake:
    """Puts the modules where `import vllm...` finds them, for the length of a test."""
    fake = Fake()
    platform = SimpleNamespace(is_cpu=lambda: fake.on_cpu, is_cuda=lambda: not fake.on_cpu)

    def names(kind: str) -> dict:
        return {f"{kind}Backend": Backend, f"{kind}BackendImpl": Impl, f"{kind}Impl": Impl} | {
            f"{kind}MetadataBuilder": Builder
        }

    attention = "v1.attention"
    content = {
        "": {"__version__": fake.version},
        "config": {"get_current_vllm_config": lambda: fake.config},
        "logger": {"init_logger": logging.getLogger},
        "platforms": {"current_platform": platform},
        "v1": {},
        attention: {},
        f"{attention}.backend": {"AttentionCGSupport": CGSupport},
        f"{attention}.backends": {},
        f"{attention}.backends.cpu_attn": names("CPUAttention"),
        f"{attention}.backends.flash_attn": names("FlashAttention"),
        f"{attention}.backends.registry": {
            "AttentionBackendEnum": Enum,
            "register_backend": lambda name, path: fake.registered.update({name: path}),
        },
    }
    for name, attributes in content.items():
        module = ModuleType(f"vllm.{name}".rstrip("."))
        module.__dict__.update(attributes)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    for name in [x for x in sys.modules if x.startswith("prism_attn.vllm")]:
        monkeypatch.delitem(sys.modules, name)
    return fake
