#!/usr/bin/env python3
"""Writes seed corpora for the fuzzers: python3 make_seeds.py DIR makes DIR/fuzz_gguf and so on.

Small valid files that reach past the first checks; the fuzzers take it from there. Standard library only.
"""
import json, pathlib, struct, sys


def text(s):
    b = s.encode()
    return struct.pack("<Q", len(b)) + b


def value(kind, v):
    if kind == 8:
        return text(v)
    if kind == 9:
        inner, items = v
        return struct.pack("<IQ", inner, len(items)) + b"".join(value(inner, i) for i in items)
    return struct.pack("<" + "BbHhIif?  Qqd"[kind], v)


def gguf(version, values, tensors, alignment=32):
    """tensors: name, dims (fastest first), ggml type, data"""
    out = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(values))
    for key, kind, v in values:
        out += text(key) + struct.pack("<I", kind) + value(kind, v)
    data = b""
    for name, dims, kind, raw in tensors:
        out += text(name) + struct.pack("<I", len(dims)) + b"".join(struct.pack("<Q", d) for d in dims)
        out += struct.pack("<IQ", kind, len(data))
        data += raw + bytes(-len(raw) % alignment)
    return out + bytes(-len(out) % alignment) + data


def gguf_seeds():
    arch = [("general.architecture", 8, "llama"), ("llama.block_count", 4, 1), ("llama.embedding_length", 4, 32),
            ("llama.feed_forward_length", 4, 32), ("llama.attention.head_count", 4, 2),
            ("llama.attention.head_count_kv", 10, 1), ("llama.attention.layer_norm_rms_epsilon", 6, 1e-5),
            ("llama.rope.scaling.type", 8, "yarn"), ("llama.rope.scaling.factor", 12, 4.0),
            ("llama.context_length", 2, 128), ("tokenizer.ggml.tokens", 9, (8, ["a", "b"])),
            ("tokenizer.ggml.token_type", 9, (5, [1, 3])), ("tokenizer.ggml.bos_token_id", 4, 1),
            ("tokenizer.ggml.add_bos_token", 7, True)]
    words = ["<unk>", "<s>", "<0x41>", "\u2581", "a", "b", "ab", "\u2581a"]
    spm = [("tokenizer.ggml.model", 8, "llama"), ("tokenizer.ggml.tokens", 9, (8, words)),
           ("tokenizer.ggml.scores", 9, (6, [0, 0, 0, -5, -4, -3, -2, -1])),
           ("tokenizer.ggml.token_type", 9, (5, [2, 3, 6, 1, 1, 1, 1, 1])), ("tokenizer.ggml.add_space_prefix", 7, False)]
    bpe = [("tokenizer.ggml.model", 8, "gpt2"), ("tokenizer.ggml.pre", 8, "smollm"),
           ("tokenizer.ggml.tokens", 9, (8, ["a", "b", "ab"])), ("tokenizer.ggml.merges", 9, (8, ["a b"]))]
    tensors = [("token_embd.weight", (32, 2), 0, bytes(256)), ("output.weight", (32, 2), 8, bytes(68)),
               ("blk.0.attn_q.weight", (32, 2), 1, bytes(128)), ("rope_freqs.weight", (8,), 30, bytes(16))]
    yield gguf(3, [], [])
    yield gguf(2, arch, tensors[:1])
    yield gguf(3, arch, tensors)
    yield gguf(3, spm, [])
    yield gguf(3, bpe, [])
    # Every type of weights: number, elements and bytes of a block.
    blocks = [(2, 32, 18), (3, 32, 20), (6, 32, 22), (7, 32, 24), (10, 256, 84), (11, 256, 110), (12, 256, 144),
              (13, 256, 176), (14, 256, 210), (20, 32, 18), (23, 256, 136), (39, 32, 17)]
    for number, elements, size in blocks:
        yield gguf(3, [], [("t", (elements, 2), number, bytes(range(size)) * 2)])
    yield gguf(3, [], [(f"t{b[0]}", (b[1],), b[0], bytes(b[2])) for b in blocks])
    # A model in two files, and in three that do not agree.
    part = lambda i, count, name: gguf(3, [("split.no", 2, i), ("split.count", 2, count),
                                           ("split.tensors.count", 5, 2)], [(name, (8,), 0, bytes(32))])
    yield part(0, 2, "a") + part(1, 2, "b")
    yield part(0, 3, "a") + part(1, 3, "a") + part(2, 3, "b")
    yield gguf(3, [("general.alignment", 4, 64), ("x", 9, (0, [1, 2, 3])), ("y", 11, -1)], tensors[:1], 64)


def safetensors(header, data, pad=b""):
    h = json.dumps(header).encode() + pad
    return struct.pack("<Q", len(h)) + h + data


def safetensors_seeds():
    entry = lambda dtype, shape, a, b: dict(dtype=dtype, shape=shape, data_offsets=[a, b])
    yield safetensors({}, b"")
    yield safetensors({"__metadata__": {"format": "pt"}, "q": entry("F32", [2, 2], 0, 16)}, bytes(16), b"   ")
    yield safetensors({"a": entry("U8", [3], 0, 3), "b": entry("BF16", [1, 2], 3, 7), "c": entry("F16", [0], 7, 7)},
                      bytes(7))


def json_seeds():
    base = dict(model_type="qwen3", vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
                num_attention_heads=2, num_key_value_heads=1, head_dim=4, max_position_embeddings=64,
                rms_norm_eps=1e-6, hidden_act="silu", tie_word_embeddings=True, bos_token_id=0, eos_token_id=[1, 2])
    yield base
    yield {**base, "model_type": "llama", "rope_theta": 1e4, "rope_scaling": dict(
        type="linear", factor=2.0), "attention_bias": True, "add_bos_token": True}
    yield {**base, "rope_parameters": dict(rope_type="yarn", rope_theta=1e6, factor=4.0, beta_fast=32, beta_slow=1,
                                           original_max_position_embeddings=32, truncate=False, mscale=1.0,
                                           mscale_all_dim=1.0, attention_factor=1.1)}
    yield {**base, "rope_scaling": dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                        original_max_position_embeddings=8192)}
    yield {"metadata": {"total_size": 4}, "weight_map": {"a": "x-1.safetensors", "b": "x-2.safetensors"}}


def tokenizer_seeds():
    """An even byte, a tokenizer.json, NUL, a text."""
    split = lambda regex, behavior="Isolated", **more: dict(
        type="Split", pattern=dict(Regex=regex), behavior=behavior, **more)
    bytes_ = dict(type="ByteLevel", add_prefix_space=False, use_regex=False)
    mark, spaces = "\u2581", dict(type="Replace", pattern=dict(String=" "), content="\u2581")
    vocab = {t: i for i, t in enumerate(["a", "b", "ab", mark, mark + "a", "<0x0A>", "\u0120", "\u0120a"])}
    model = dict(type="BPE", vocab=vocab, merges=[["a", "b"]], unk_token="a", byte_fallback=True)
    sequence = lambda *steps: dict(type="Sequence", pretokenizers=list(steps))
    pres = [sequence(split(r"\p{N}{1,3}|[^\s\S]|\b(?i:a)$"), split("[\r\n]", "Removed", invert=True), bytes_),
            sequence(split(r"\p{Han}+|[a[bc]]", "MergedWithPrevious"), split(r"(?=a)", "MergedWithNext"), bytes_),
            sequence(dict(type="Digits", individual_digits=False), dict(type="Punctuation", behavior="Contiguous"),
                     bytes_),
            dict(type="ByteLevel", add_prefix_space=True, use_regex=True)]
    marked = [dict(type="Metaspace", replacement=mark, prepend_scheme="first", split=True), None]
    for pre in pres:
        yield dict(model=model, pre_tokenizer=pre, normalizer=dict(type="NFC"))
    for pre in marked:
        yield dict(model={**model, "merges": [[mark, "a"]]}, pre_tokenizer=pre, normalizer=dict(
            type="Sequence", normalizers=[dict(type="Prepend", prepend=mark), spaces]))


def main():
    root = pathlib.Path(sys.argv[1])
    kinds = {"fuzz_gguf": gguf_seeds, "fuzz_safetensors": safetensors_seeds,
             "fuzz_json": lambda: (json.dumps(j).encode() for j in json_seeds()),
             "fuzz_tokenizer": lambda: (b"\x02" + json.dumps(j).encode() + b"\0a b 12ab\n e\xcc\x81\xff"
                                        for j in tokenizer_seeds())}
    for kind, seeds in kinds.items():
        (root / kind).mkdir(parents=True, exist_ok=True)
        for i, seed in enumerate(seeds()):
            (root / kind / f"seed{i}").write_bytes(seed)


if __name__ == "__main__":
    main()
