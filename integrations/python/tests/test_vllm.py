"""prism_attn.serving and prism_attn.vllm against fakes of vLLM's classes; `make test-vllm` has the engine itself."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import fake_vllm
import pytest
import torch
from conftest import ROUNDING, error
from fake_vllm import PAGE, CommonAttentionMetadata

import prism_attn
from prism_attn import serving
from prism_attn.rope import NoRotation, Rope

D, N_HEAD, N_KV_HEAD = 64, 4, 2
DEVICES = [("cpu", "vec"), ("cpu", "amx"), ("cuda", "cuda")]  # the module and how its cache is packed


class Rotary:
    """A rotary module of an engine: cosines and sines, scaled as YaRN scales them."""

    def __init__(self, rotary_dim=D, base=1e4, neox=True, factor=1.0, dtype=torch.float32) -> None:
        self.rotary_dim, self.is_neox_style = rotary_dim, neox
        angles = torch.arange(8)[:, None] * float(base) ** (-torch.arange(0, rotary_dim, 2) / rotary_dim)
        self.cos_sin_cache = (torch.cat([angles.cos(), angles.sin()], -1) * factor).to(dtype)


class Attention(torch.nn.Module):
    """As a model's attention makes vLLM's layer: the rotary module is set before or after."""

    def __init__(self, impl_class, rotary, **kwargs) -> None:
        super().__init__()
        self.impl = impl_class(N_HEAD, D, D**-0.5, N_KV_HEAD, **kwargs)
        self.rotary_emb = rotary


class Step:
    """One step of an engine: requests of (queries, keys), their cache, and what the model runner hands over."""

    def __init__(self, module, isa, requests, seed=0, dtype=torch.float32) -> None:
        g = torch.Generator().manual_seed(seed)
        n_q, n_kv = zip(*requests, strict=True)
        pages = [(n + PAGE - 1) // PAGE for n in n_kv]
        self.layer = SimpleNamespace(layer_name="model.layers.3.self_attn.attn", isa=isa)
        self.cache = fake_vllm.empty_cache(isa, sum(pages) + 2, N_KV_HEAD, D, dtype)
        free = (torch.randperm(sum(pages), generator=g) + 1).tolist()
        table = torch.full((len(requests), max(pages) + 1), sum(pages) + 1, dtype=torch.int32)  # stale at the ends
        for i, n in enumerate(n_kv):
            mine = [free.pop() for _ in range(pages[i])]
            table[i, : pages[i]] = torch.tensor(mine)
            k, v = torch.randn(2, N_KV_HEAD, n, D, generator=g).to(dtype)
            fake_vllm.write_cache(self.cache, isa, mine, k, v)
        starts = torch.tensor([0, *n_q]).cumsum(0).to(torch.int32)
        lengths = torch.tensor(n_kv, dtype=torch.int32)
        total = int(starts[-1])
        self.query = torch.randn(total + 3, N_HEAD, D, generator=g).to(dtype)  # padded, as graphs want it
        self.common = CommonAttentionMetadata(
            starts, starts.clone(), lengths, len(n_q), total, max(n_q), max(n_kv), table, torch.arange(total),
            seq_lens_cpu_upper_bound=lengths.clone(),
        )  # fmt: skip
        self.builder = module.PrismBackend.get_builder_cls()(None, [], SimpleNamespace(additional_config={}), CPU)

    def run(self, impl, common=None):
        out = torch.zeros_like(self.query)
        metadata = self.builder.build(0, common or self.common)
        impl.forward(
            self.layer, self.query, None if impl is None else self.query, self.query, self.cache, metadata, out
        )
        return out[: self.common.num_actual_tokens]

    def dense(self):
        """What vLLM's own attention says of the whole batch."""
        out = torch.zeros_like(self.query)
        plain = fake_vllm.Impl(N_HEAD, D, D**-0.5, N_KV_HEAD)
        plain.forward(self.layer, self.query, None, None, self.cache, fake_vllm.Metadata(self.common, False), out)
        return out[: self.common.num_actual_tokens]


CPU = torch.device("cpu")
SMALL = [(1, 70), (64, 1024)]
MIXED = [(1, 700), (1, 1), (10, 1500), (200, 1400), (90, 300), (333, 1333), (64, 1024)]


@pytest.fixture
def fake(monkeypatch):
    for name in ("PRISM_METHOD", "PRISM_OPTIONS", "PRISM_STATS"):
        monkeypatch.delenv(name, raising=False)
    return fake_vllm.install(monkeypatch)


def backend(device):
    return importlib.import_module(f"prism_attn.vllm.{device}")


def make_impl(module, rotary=None, **kwargs):
    owner = Attention(module.PrismBackend.get_impl_cls(), rotary or Rotary(), **kwargs)
    owner.impl.kept = owner  # as a model keeps its layers
    return owner.impl


@pytest.mark.parametrize("device, isa", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dense_method_is_the_engines_attention(fake, monkeypatch, device, isa, dtype):
    """Decodes, extends, prefills from any start, short prompts between long ones: every row as vLLM has it."""
    monkeypatch.setenv("PRISM_METHOD", "dense")
    module = backend(device)
    step, impl = Step(module, isa, MIXED, dtype=dtype), make_impl(module)
    assert error(step.run(impl), step.dense()) < 2 * ROUNDING[dtype]
    assert impl.calls == [[1, 1, 10], [90]]  # vLLM's: runs of neighbours
    assert prism_attn.stats().reasons() == {
        "dense: one query": 1, "dense: fewer than 64 queries": 1, "dense: short": 1, "dense": 1
    }  # fmt: skip
    (row,) = [row for row in prism_attn.stats().rows if row.layer == 3]
    assert row.queries == sum(n for n, _ in MIXED[3:])


@pytest.mark.parametrize("device, isa", DEVICES)
def test_sparse_prefill_chooses_as_a_call_of_its_own(fake, monkeypatch, device, isa):
    monkeypatch.setenv("PRISM_OPTIONS", "top_p=0.6")
    module = backend(device)
    step, impl = Step(module, isa, [(1, 90), (300, 1500)]), make_impl(module)
    out = step.run(impl)
    assert prism_attn.stats().calls("sparse") == 1 and prism_attn.stats().density < 1
    k, v = fake_vllm.read_cache(step.cache, isa, step.common.block_table_tensor[1].tolist(), 1500)
    q = step.query[1:301].transpose(0, 1)[None]
    want = prism_attn.attention(q, k, v, method="prism", rope=1e4, top_p=0.6)[0].transpose(0, 1)
    assert error(out[1:], want) < ROUNDING[torch.float32]


def test_decodes_alone_are_the_engines(fake):
    module = backend("cuda")
    step, impl = Step(module, "cuda", [(1, 300), (1, 5000)]), make_impl(module)
    assert torch.equal(step.run(impl), step.dense()) and impl.calls == [[1, 1]]
    assert prism_attn.stats().reasons() == {"dense: one query": 1}
    assert module.PrismCUDABuilder._cudagraph_support is fake_vllm.CGSupport.UNIFORM_SINGLE_TOKEN_DECODE
    assert module.PrismCUDABuilder.reorder_batch_threshold == 1


@pytest.mark.parametrize(
    "kwargs, change, why",
    [
        ({"sliding_window": 512}, {}, "sliding window"),
        ({"sliding_window": (511, 0)}, {}, "sliding window"),
        ({"soft_cap": 30.0}, {}, "soft cap"),
        ({"sinks": torch.zeros(N_HEAD)}, {}, "sinks"),
        ({}, {"kv_cache_dtype": "fp8"}, "cache of fp8"),
        ({}, {"attn_type": "encoder_only"}, "encoder or cross attention"),
        ({}, {"alibi_slopes": torch.ones(N_HEAD)}, "alibi"),
        ({}, {"dcp_world_size": 2}, "decode context parallelism"),
        ({}, {"head_size": 512}, "head of 512 dimensions"),
        ({}, {"_owners": []}, "no rotary positions"),
    ],
)
def test_layers_that_stay_the_engines(fake, kwargs, change, why):
    module = backend("cpu")
    step, impl = Step(module, "vec", SMALL), make_impl(module, **kwargs)
    for name, value in change.items():
        setattr(impl, name, value)
    assert torch.equal(step.run(impl), step.dense()) and len(impl.calls) == 1
    assert prism_attn.stats().reasons()[f"dense: {why}"] == 1


@pytest.mark.parametrize(
    "change, why",
    [
        ({"causal": False}, "not causal"),
        ({"mm_req_doc_ranges": {0: [(1, 2)]}}, "mm_req_doc_ranges"),
        ({"seq_lens_cpu_upper_bound": None}, "lengths unknown on the host"),
    ],
)
def test_batches_that_stay_the_engines(fake, change, why):
    module = backend("cpu")
    step, impl = Step(module, "vec", SMALL), make_impl(module)
    for name, value in change.items():
        setattr(step.common, name, value)
    assert torch.equal(step.run(impl), step.dense()) and len(impl.calls) == 1
    assert prism_attn.stats().reasons() == {f"dense: {why}": 1}


def test_unknown_packing_of_the_cache(fake):
    module = backend("cpu")
    step, impl = Step(module, "vec", SMALL), make_impl(module)
    step.layer.isa = "neon"
    assert impl.choose(step.layer) == ("", "cache packed for neon")


def test_metadata_of_another_builder_is_said(fake):
    module = backend("cpu")
    step, impl = Step(module, "vec", SMALL), make_impl(module)
    out, metadata = torch.zeros_like(step.query), fake_vllm.Metadata(step.common, False)
    impl.forward(step.layer, step.query, step.query, step.query, step.cache, metadata, out)
    assert prism_attn.stats().reasons() == {"dense: metadata of another builder": 1}


def test_what_the_library_refuses_is_the_engines(fake, monkeypatch):
    """From then on, with the library's sentence as the reason."""
    module = backend("cpu")
    step, impl = Step(module, "vec", SMALL), make_impl(module)
    refused = prism_attn.PrismError("PRISM_ERROR_UNSUPPORTED", "no such kernel")
    monkeypatch.setattr(sys.modules["prism_attn.vllm.common"], "attend", lambda *_: (_ for _ in ()).throw(refused))
    for _ in range(2):
        assert torch.equal(step.run(impl), step.dense())
    assert prism_attn.stats().reasons()[f"dense: {refused}"] == 2


def test_profiling_reads_the_rotation(fake):
    impl = make_impl(backend("cpu"))
    layer = SimpleNamespace(layer_name="model.layers.0.attn", isa="vec")
    impl.forward(layer, *[torch.zeros(3, N_HEAD, D)] * 3, None, None, torch.zeros(3, N_HEAD, D))
    assert "bands" in impl._choice[0] and not prism_attn.stats().rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("factor", [1.0, 1.37])
def test_bands_from_the_table(dtype, factor):
    whole = serving.rope_of(Rotary(base=5e5, factor=factor, dtype=dtype), D)
    assert whole.bands() == Rope.half_split(D, 5e5).bands()
    part = serving.rope_of(Rotary(rotary_dim=32, neox=False, factor=factor, dtype=dtype), D)
    assert part.pairs == Rope.interleaved(D, 1e4, 32).pairs
    assert part.frequencies == pytest.approx(Rope.interleaved(D, 1e4, 32).frequencies, rel=1e-2)


@pytest.mark.parametrize("rotary", [None, SimpleNamespace(rotary_dim=64), SimpleNamespace()])
def test_no_table(rotary):
    with pytest.raises(NoRotation):
        serving.rope_of(rotary, D)


def test_runs():
    runs = serving.split([0, 1, 2, 66, 130, 230, 231], [9, 9, 2000, 900, 1024, 5], 1024)
    assert [(r.first, r.last, r.token_first, r.token_last, r.why) for r in runs] == [
        (0, 2, 0, 2, "one query"), (2, 3, 2, 66, ""), (3, 4, 66, 130, "short"), (4, 5, 130, 230, ""),
        (5, 6, 230, 231, "one query"),
    ]  # fmt: skip
    assert [(r.first, r.last) for r in serving.joined(runs)] == [(0, 2), (3, 4), (5, 6)]
    empty = serving.split([0, 5, 5, 5], [5, 0, 0], 1024)  # padded, as graphs want it
    assert [(r.first, r.last, r.token_last) for r in empty] == [(0, 3, 5)]


def test_settings(monkeypatch):
    monkeypatch.setenv("PRISM_METHOD", "moments")
    monkeypatch.setenv("PRISM_OPTIONS", "top_p=0.8,min_tokens=77")
    settings = serving.read_settings()
    assert settings.method == "moments" and serving.min_tokens_of(settings, CPU) == 77
    assert serving.read_settings({"method": "dense"}).options == ()  # the engine's arguments replace both
    assert serving.min_tokens_of(serving.read_settings({}), CPU) == 1024  # the library's on the CPU
    for wrong in ("top_p", "top_q=1", "top_p=7"):
        monkeypatch.setenv("PRISM_OPTIONS", wrong)
        with pytest.raises(ValueError, match=wrong.partition("=")[0]):
            serving.read_settings()


def test_registration(fake, monkeypatch, caplog):
    vllm = importlib.import_module("prism_attn.vllm")
    vllm.register()
    vllm.register()
    assert fake.registered == {fake_vllm.Enum.CPU_ATTN: "prism_attn.vllm.cpu.PrismBackend"} and not caplog.records
    fake.on_cpu = False
    monkeypatch.setattr(sys.modules["vllm"], "__version__", "0.40.1")
    vllm.register()
    assert fake.registered[fake_vllm.Enum.CUSTOM] == "prism_attn.vllm.cuda.PrismBackend"
    assert caplog.messages == ["prism-attn is tested with vLLM 0.26 and 0.32; this is 0.40.1"]
    fake.registered.clear()
    monkeypatch.setenv("PRISM_METHOD", "off")
    vllm.register()
    assert not fake.registered
    monkeypatch.setenv("PRISM_METHOD", "prim")
    with pytest.raises(ValueError, match="unknown method 'prim'"):
        vllm.register()


def test_entry_point():
    from importlib.metadata import entry_points

    (point,) = [x for x in entry_points(group="vllm.general_plugins") if x.name == "prism_attn"]
    assert point.value == "prism_attn.vllm:register"


def test_report(tmp_path):
    """A line at the end of the process and one of every child; lines of JSON while there is work."""
    script = """
import logging, multiprocessing, sys
from prism_attn import counting, serving
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
def work(n):
    report = serving.Report(logging.getLogger("x"))
    counting.record(3, "sparse", queries=n, n_selected=1, n_causal=4)
    report.tick()
    counting.record(-1, "dense: one query", queries=1)
if __name__ == "__main__":
    for method in ("fork", "spawn"):
        child = multiprocessing.get_context(method).Process(target=work, args=(5,))
        child.start(); child.join()
    work(7)
"""
    file, log = tmp_path / "script.py", tmp_path / "stats.jsonl"
    file.write_text(script)
    env = os.environ | {"PRISM_STATS": str(log)}
    done = subprocess.run([sys.executable, file], env=env, capture_output=True, text=True, check=True)
    line = "prism-attn: 1 sparse calls, density 0.250; dense: 1 one query"
    assert done.stdout.splitlines() == [line] * 3, done.stderr
    lines = [json.loads(x) for x in log.read_text().splitlines()]
    assert [x["calls"] for x in lines] == [{"sparse": 1}, {"dense: one query": 1, "sparse": 1}] * 3
