"""The halves of a backend that are the same on every device, to stand before vLLM's own classes: a builder that says
once a step which requests are the library's, and an implementation that calls the library for them in every layer."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from vllm.config import get_current_vllm_config
from vllm.logger import init_logger

from .. import counting
from .._abi import PrismError
from ..serving import (
    Prefill,
    Report,
    Run,
    attend,
    count_layer,
    count_runs,
    joined,
    layer_config,
    min_tokens_of,
    read_settings,
    split,
)
from ..settings import Settings

log = init_logger("vllm.prism_attn")  # below vLLM's own logger, which has the handlers
_PER_REQUEST = ("seq_lens", "_seq_lens_cpu", "_num_computed_tokens_cpu", "seq_lens_cpu_upper_bound", "is_prefilling")
_NOT_SPLIT = ("mm_req_doc_ranges", "rswa_prefix_lens", "encoder_seq_lens", "dcp_local_seq_lens")
_report: list[Report] = []


def settings_of(vllm_config) -> Settings:
    """From additional_config={"prism": {...}}, else from the environment."""
    given = vllm_config.additional_config
    return read_settings(given.get("prism") if isinstance(given, dict) else None)


def _tick() -> None:
    if not _report:
        _report.append(Report(log))
    _report[0].tick()


# ------------------------------------------------------------------------------------------ once a step ----


@dataclass
class Batch:
    """What a step's metadata carries for the layers: the library's requests, and vLLM's with metadata of their own."""

    prefill: Prefill
    others: list[tuple[Run, object]]


def slice_of(common, run: Run, n_kv: list[int]):
    """The common metadata of a run's requests, as if they were the whole batch."""
    rows = {
        name: getattr(common, name)[run.requests] for name in _PER_REQUEST if getattr(common, name, None) is not None
    }
    starts, starts_cpu = (
        x[run.first : run.last + 1] - x[run.first] for x in (common.query_start_loc, common.query_start_loc_cpu)
    )
    return replace(
        common,
        query_start_loc=starts,
        query_start_loc_cpu=starts_cpu,
        num_reqs=run.last - run.first,
        num_actual_tokens=run.token_last - run.token_first,
        max_query_len=int((starts_cpu[1:] - starts_cpu[:-1]).max()),
        max_seq_len=max(n_kv[run.requests]),
        block_table_tensor=common.block_table_tensor[run.requests],
        slot_mapping=common.slot_mapping[run.tokens],
        positions=None if common.positions is None else common.positions[run.tokens],
        _num_computed_tokens_cache=None,
        _token_to_req_indices_cache=None,
        **rows,
    )


class PrismBuilder:
    """Before a subclass of AttentionMetadataBuilder."""

    reorder_batch_threshold = 1  # decodes first: one run of vLLM's own before the prefills
    supports_update_block_table = False  # a batch's page tables are in two places: built anew for each group

    def __init__(self, kv_cache_spec, layer_names, vllm_config, device) -> None:
        super().__init__(kv_cache_spec, layer_names, vllm_config, device)
        self._min_tokens = min_tokens_of(settings_of(vllm_config), device)

    def build(self, common_prefix_len, common_attn_metadata, fast_build=False):
        """vLLM's metadata of the whole batch; `.prism` is a Batch if any request is the library's."""
        metadata = super().build(common_prefix_len, common_attn_metadata, fast_build)
        metadata.prism = self._split(common_attn_metadata)
        _tick()
        return metadata

    def use_cascade_attention(self, *args, **kwargs) -> bool:
        """A batch is split by requests; vLLM 0.26 would split it by keys."""
        return False

    def _split(self, common) -> Batch | None:
        why = _why_not_split(common)
        if why:
            counting.record(-1, f"dense: {why}", queries=common.num_actual_tokens)
            return None
        if common.max_query_len == 1:
            counting.record(-1, "dense: one query", queries=common.num_actual_tokens)
            return None
        n = common.num_reqs
        starts, n_kv = common.query_start_loc_cpu[: n + 1].tolist(), common.seq_lens_cpu_upper_bound[:n].tolist()
        runs = split(starts, n_kv, self._min_tokens)
        count_runs(runs)
        device = (common.query_start_loc, common.seq_lens, common.block_table_tensor)
        prefill = Prefill.of(runs, starts, n_kv, *device)
        if prefill is None:
            return None
        # Built fast: vLLM keeps one schedule for its kernel, and that is the whole batch's.
        others = [(run, super(PrismBuilder, self).build(0, slice_of(common, run, n_kv), True)) for run in joined(runs)]
        return Batch(prefill, others)


def _why_not_split(common) -> str:
    if common.causal is not True:
        return "not causal"
    if common.seq_lens_cpu_upper_bound is None:
        return "lengths unknown on the host"
    for name in _NOT_SPLIT:
        if getattr(common, name, None) is not None:
            return name
    return ""


# ----------------------------------------------------------------------------------------- in every layer ----


def _modules_being_made() -> Iterator[weakref.ref]:
    """The modules whose __init__ is running, innermost first: an attention layer does not know whose it is."""
    frame = sys._getframe(1)
    while frame is not None:
        module = frame.f_locals.get("self")
        if frame.f_code.co_name == "__init__" and isinstance(module, torch.nn.Module):
            yield weakref.ref(module)
        frame = frame.f_back


class PrismImpl:
    """Before a subclass of AttentionImpl. views() is the device's."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._settings = settings_of(get_current_vllm_config())
        self._owners = list(_modules_being_made())
        self._choice: tuple[str, str] | None = None

    def views(self, layer, kv_cache: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, str, Prefill]:
        """K and V as pages, their layout, and the prefill with a page table into them."""
        raise NotImplementedError

    def why_dense(self, layer) -> str:
        """Why this layer's prefills are vLLM's; "" if they need not be."""
        reasons = {
            "encoder or cross attention": self.attn_type != "decoder",
            "sliding window": self.sliding_window not in (None, -1, (-1, -1)),
            "soft cap": self.logits_soft_cap,
            "sinks": self.sinks is not None,
            "alibi": self.alibi_slopes is not None,
            f"cache of {self.kv_cache_dtype}": self.kv_cache_dtype not in ("auto", "float16", "bfloat16"),
            "decode context parallelism": self.dcp_world_size > 1,
        }
        return next((reason for reason, holds in reasons.items() if holds), "")

    def _rotary(self):
        owners = (ref() for ref in self._owners)
        return next((owner.rotary_emb for owner in owners if hasattr(owner, "rotary_emb")), None)

    def choose(self, layer) -> tuple[str, str]:
        """(configuration, ""), or ("", why this layer's prefills are vLLM's)."""
        if self._choice is None:
            why = self.why_dense(layer)
            self._choice = ("", why) if why else layer_config(self._settings, self._rotary, self.head_size)
        return self._choice

    def forward(
        self,
        layer,
        query,
        key,
        value,
        kv_cache,
        attn_metadata,
        output,
        output_scale=None,
        output_block_scale=None,
    ):
        """query, output [token, head, d]. Nothing here waits for the device once the first (profiling) call is over."""
        parent = super().forward
        whole = (layer, query, key, value, kv_cache, attn_metadata, output, output_scale, output_block_scale)
        if attn_metadata is None:
            self.choose(layer)  # reads the rotary module's table
            return parent(*whole)
        batch: Batch | None = getattr(attn_metadata, "prism", None)
        if batch is None:
            if not hasattr(attn_metadata, "prism"):
                count_layer(layer_number(layer), "metadata of another builder", query.shape[0])
            return parent(*whole)
        config, why = self.choose(layer)
        if not why:
            why = self._prefill(layer, query, kv_cache, batch, config, output)
        if why:
            count_layer(layer_number(layer), why, query[batch.prefill.tokens].shape[0])
            return parent(*whole)
        for run, metadata in batch.others:
            q, k, v, out = (x[run.tokens] for x in (query, key, value, output))
            parent(layer, q, k, v, kv_cache, metadata, out)
        return output

    def _prefill(self, layer, query, kv_cache, batch: Batch, config: str, output) -> str:
        """Why the library refused; "" if it did not."""
        k, v, layout, prefill = self.views(layer, kv_cache, batch)
        try:
            attend(query, k, v, output, prefill, config, layout, self.scale, layer_number(layer))
        except PrismError as refused:
            if refused.status != "PRISM_ERROR_UNSUPPORTED":
                raise
            self._choice = "", str(refused)
        return self._choice[1]


def layer_number(layer) -> int:
    """3 of "model.layers.3.self_attn.attn"."""
    return next((int(word) for word in layer.layer_name.split(".") if word.isdigit()), -1)
