"""The runner's tokenizer against the packages that models are made with: `tokenizers` and `sentencepiece`.

Small vocabularies are trained with every published pre-tokenizer and written as tokenizer.json and as GGUF files. On a
megabyte of mixed text every id must be the same, and the ids must decode to the text.
"""

from __future__ import annotations

import io
import json
import os
import re
import struct
import subprocess
import unicodedata
from pathlib import Path

import gguf
import pytest
import sentencepiece
from mixed_text import mixed_text
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, trainers
from tokenizers import pre_tokenizers as pre

ROOT = Path(__file__).resolve().parents[2]
BOOK = (ROOT / "eval/data/nostromo.txt").read_text(encoding="utf-8")
SPECIAL = ["<|end|>", "<|im_start|>", "<|im_end|>"]
TEXT = mixed_text(1_000_000, seed=1, extra=SPECIAL, book=BOOK)
MARK = "\u2581"

WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*"
SPACES = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
CASES = rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+ENDING|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*ENDING"
TEKKEN = CASES.replace("ENDING", "") + r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*" + SPACES
GPT4O = CASES.replace("ENDING", "(?i:'s|'t|'re|'ve|'m|'ll|'d)?") + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*" + SPACES
DEEPSEEK_V3 = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
    + SPACES
)


def deepseek_letters():
    """The long class of letters, which stands in lm/tokenizer_pre.c."""
    source = (ROOT / "lm/tokenizer_pre.c").read_text(encoding="utf-8")
    macro = source[source.index("#define DEEPSEEK_LETTERS") :].split("\n\n")[0]
    return "".join(re.findall(r'"(.*)"', macro)).replace("\\\\", "\\")


def split(pattern, behavior="isolated", invert=False):
    return pre.Split(Regex(pattern), behavior, invert)


def byte_level(use_regex=False, prefix=False):
    return pre.ByteLevel(add_prefix_space=prefix, use_regex=use_regex)


QWEN2, LLAMA3 = WORDS.replace("DIGITS", r"\p{N}") + SPACES, WORDS.replace("DIGITS", r"\p{N}{1,3}") + SPACES
# Steps by name; a name that GGUF files use is tried in one, too.
STEPS = {
    "qwen2": [split(QWEN2), byte_level()],
    "llama-bpe": [split(LLAMA3), byte_level()],
    "smollm": [pre.Digits(individual_digits=True), byte_level(True)],
    "gpt-2": [byte_level(True)],
    "tekken": [split(TEKKEN), byte_level()],
    "deepseek-llm": [
        split("[\r\n]"),
        split(deepseek_letters()),
        split(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"),
        split(r"\s+$"),
        split("[一-龥ࠀ-一가-퟿]+"),
        pre.Digits(individual_digits=True),
        byte_level(),
    ],
    "default": [  # llama.cpp's, for files that name no pre-tokenizer
        split(r"[\p{P}\$\+<=>\^~\|]+"),
        split(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"),
        split(r"\p{N}+"),
        split("[0-9][0-9][0-9]"),
        byte_level(),
    ],
    "DeepSeek V3": [split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"), split(DEEPSEEK_V3), byte_level()],
    "GPT-4o": [split(GPT4O), byte_level()],
    "GPT-4o, as tiktoken's converter writes it": [split(GPT4O, "removed", True), byte_level()],
    "Qwen3.5": [split(QWEN2.replace(r"\p{L}+|", r"[\p{L}\p{M}]+|").replace(r"\s\p{L}", r"\s\p{L}\p{M}")), byte_level()],
    "BLOOM": [split(r" ?[^(\s|[.,!?…。，、।۔،])]+"), byte_level()],
    "SuperBPE": [split(r"\p{N}+"), split(r"(?=(\d{3})+(?!\d))"), byte_level()],
    "Tiny Aya": [split(r"\d{1,3}(?=(?:\d{3})*\b)"), split(GPT4O), byte_level()],
    "words": [split(r"\b\w+\b|\W|\D{,2}\S\B", "contiguous"), byte_level()],
    "scripts": [split(r"\p{Han}+|\p{^L}\P{Nd}|\x41\u0042|[\S\d]\v?.$"), byte_level()],
    "runs of digits": [pre.Digits(individual_digits=False), pre.Punctuation("contiguous"), byte_level(True)],
    "with the part before": [split(r"\s", "merged_with_previous"), pre.Punctuation(), byte_level()],
    "with the part after": [split(r"[\s\p{P}]", "merged_with_next"), byte_level(prefix=False)],
    "a literal": [pre.Split("th", "merged_with_next"), byte_level(True)],
    "space in front": [byte_level(True, prefix=True)],
}
GGUF_NAMES = ["qwen2", "llama-bpe", "smollm", "gpt-2", "tekken", "deepseek-llm", "default"]


def ids_of(path, texts):
    """What the runner makes of texts, and what the ids decode to."""
    program = Path(os.environ["PRISM_COMMAND"]).parent / "token_ids"
    blob = b"".join(struct.pack("<I", len(t)) + t for t in texts)
    done = subprocess.run([program, path], input=blob, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    out, at = [], 0

    def take(size):
        nonlocal at
        (n,) = struct.unpack_from("<I", done.stdout, at)
        at += 4 + size * n
        return done.stdout[at - size * n : at]

    for _ in texts:
        ids = take(4)
        out.append((list(struct.unpack(f"<{len(ids) // 4}i", ids)), take(1)))
    assert at == len(done.stdout)
    return out


def assert_same(path, wanted, text=TEXT, back=True):
    ((ids, decoded),) = ids_of(path, [text.encode()])
    differ = next((i for i, (a, b) in enumerate(zip(ids, wanted, strict=False)) if a != b), min(len(ids), len(wanted)))
    assert ids == wanted, f"{differ}: {ids[differ - 3 : differ + 4]} is not {wanted[differ - 3 : differ + 4]}"
    assert not back or decoded == text.encode()


@pytest.fixture(scope="module")
def trained():
    """Trained without any split: tokens reach across words, so that every split of a text shows in its ids."""
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = byte_level()
    alphabet = sorted(pre.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=1200, initial_alphabet=alphabet, show_progress=False)
    lines = (BOOK[:60_000] + TEXT[:200_000]).splitlines(keepends=True)
    tok.train_from_iterator([line[i : i + 60] for line in lines for i in range(0, len(line), 60)], trainer)
    tok.add_special_tokens([AddedToken(s, normalized=False, special=True) for s in SPECIAL[:2]])
    tok.add_tokens([AddedToken(SPECIAL[2], normalized=False, special=False)])
    return tok.to_str()


def with_steps(trained, name):
    tok = Tokenizer.from_str(trained)
    steps = STEPS[name]
    tok.pre_tokenizer = pre.Sequence(steps) if len(steps) > 1 else steps[0]
    return tok


def write_gguf(path, model, tokens, types, **keys):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model(model)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    for key, value in keys.items():
        getattr(writer, f"add_{key}")(value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


@pytest.mark.parametrize("name", STEPS)
def test_tokenizer_json(tmp_path, trained, name):
    tok = with_steps(trained, name)
    tok.save(str(tmp_path / "tokenizer.json"))
    text = TEXT if name in GGUF_NAMES else TEXT[:200_000]
    wanted = tok.encode(text, add_special_tokens=False).ids
    assert_same(tmp_path / "tokenizer.json", wanted, text, back=name != "space in front")


@pytest.mark.parametrize("name", GGUF_NAMES)
def test_gguf(tmp_path, trained, name):
    tok = with_steps(trained, name)
    tok.model.ignore_merges = name in ("llama-bpe", "tekken")
    data = json.loads(tok.to_str())
    tokens = {i: t for t, i in tok.get_vocab(with_added_tokens=True).items()}
    added = {t["id"]: 3 if t["special"] else 4 for t in data["added_tokens"]}
    ids = range(len(tokens))
    write_gguf(tmp_path / "vocab.gguf", "gpt2", [tokens[i] for i in ids], [added.get(i, 1) for i in ids],
               tokenizer_pre=name, token_merges=[" ".join(m) for m in data["model"]["merges"]])  # fmt: skip
    text = TEXT[:200_000]
    assert_same(tmp_path / "vocab.gguf", tok.encode(text, add_special_tokens=False).ids, text)


def test_nfc(tmp_path, trained):
    tok = with_steps(trained, "qwen2")
    tok.normalizer = normalizers.NFC()
    tok.save(str(tmp_path / "tokenizer.json"))
    old = unicodedata.ucd_3_2_0  # characters that every version of the tables knows
    every = "".join(chr(c) for c in range(0x110000) if old.category(chr(c)) not in ("Cn", "Cs", "Co"))
    for text in (TEXT, every + "".join(c + "\u0323\u0301" for c in every[:20000])):
        assert_same(tmp_path / "tokenizer.json", tok.encode(text, add_special_tokens=False).ids, text, back=False)


@pytest.mark.parametrize("unknown", [None, False, True])
def test_missing_bytes(tmp_path, trained, unknown):
    """A character whose byte has no token is left out, or is the unknown token, or one for a run of them."""
    data = json.loads(with_steps(trained, "smollm").to_str())
    model = data["model"]
    model["vocab"] = {f"[gone {i}]" if set("éĞĉÃ") & set(t) else t: i for t, i in model["vocab"].items()}
    model["merges"] = [m for m in model["merges"] if not set("éĞĉÃ") & set("".join(m))]
    model["unk_token"] = None if unknown is None else "!"
    model["fuse_unk"] = bool(unknown)
    (tmp_path / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    tok = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert_same(tmp_path / "tokenizer.json", tok.encode(TEXT, add_special_tokens=False).ids, back=False)


class Piece:
    def __init__(self, processor, i):
        self.piece, self.score = processor.id_to_piece(i), processor.get_score(i)
        kinds = (processor.is_unknown(i), processor.is_control(i), processor.is_byte(i))
        self.type = [2, 3, 6, 1][(*kinds, True).index(True)]


@pytest.fixture(scope="module")
def pieces():
    """A SentencePiece model as Llama 2 has it: BPE, bytes, no normalization."""
    model = io.BytesIO()
    lines = [line for line in (BOOK[:400_000] + TEXT[:100_000].replace("\0", "")).splitlines() if line.strip()]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, model_type="bpe", vocab_size=1500, byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, character_coverage=0.999,
        split_digits=True, allow_whitespace_only_pieces=True, minloglevel=2,
    )  # fmt: skip
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    return processor, [Piece(processor, i) for i in range(len(processor))]


# SentencePiece ends a text at NUL, and llama.cpp's rule takes a control token in the text.
PLAIN = "".join(mixed_text(1_000_000, seed=2, book=BOOK).split("\0"))


@pytest.mark.parametrize("space", [True, False])
def test_sentencepiece_gguf(tmp_path, pieces, space):
    processor, rows = pieces
    write_gguf(tmp_path / "vocab.gguf", "llama", [p.piece for p in rows], [p.type for p in rows],
               token_scores=[p.score for p in rows], add_space_prefix=space)  # fmt: skip
    text = PLAIN.replace(MARK, " ")
    wanted = processor.encode(text)
    if not space:  # SentencePiece has no such option at run time: a line feed parts the two
        wanted = processor.encode("\n" + text)[2:]
    assert_same(tmp_path / "vocab.gguf", wanted, text)
    ((ids, decoded),) = ids_of(tmp_path / "vocab.gguf", [b"a</s> b</s>\xff"])
    end = next(i for i, p in enumerate(rows) if p.piece == "</s>")
    parts = [processor.encode(part)[0 if space else 1 :] for part in (("a", " b") if space else ("\na", "\n b"))]
    parts = parts if space else [part[1:] for part in parts]  # the prefix and the line feed
    assert ids[: len(parts[0]) + 1] == [*parts[0], end] and ids[len(parts[0]) + 1 :][: len(parts[1])] == parts[1]
    assert decoded == b"a</s> b</s>\xff"


def merges_of(rows):
    """Every way to part a piece into two, best piece first: what converters write into tokenizer.json."""
    score = {p.piece: p.score for p in rows}
    found = [(-score[t], t[:i], t[i:]) for t in score for i in range(1, len(t)) if t[:i] in score and t[i:] in score]
    return [(left, right) for _, left, right in sorted(found, key=lambda m: m[0])]


LEGACY = normalizers.Sequence([normalizers.Prepend(MARK), normalizers.Replace(" ", MARK)])
FORMS = {
    "Llama 2": (LEGACY, None),
    "Llama 2, Metaspace": (None, pre.Metaspace(MARK, "first", split=False)),
    "always": (None, pre.Metaspace(MARK, "always", split=True)),
    "never": (None, pre.Metaspace(MARK, "never", split=True)),
    "Gemma": (normalizers.Replace(" ", MARK), pre.Split(" ", "merged_with_previous")),
    "NFC": (normalizers.Sequence([normalizers.NFC(), normalizers.Replace(" ", MARK)]), None),
}


@pytest.mark.parametrize("fallback", [True, False], ids=["bytes", "unknown"])
@pytest.mark.parametrize("form", FORMS)
def test_sentencepiece_json(tmp_path, pieces, form, fallback):
    rows = [p for p in pieces[1] if fallback or p.type != 6]
    vocab = {p.piece: i for i, p in enumerate(rows)}
    model = models.BPE(vocab, merges_of(rows), unk_token="<unk>", fuse_unk=True, byte_fallback=fallback)
    tok = Tokenizer(model)
    tok.normalizer, tok.pre_tokenizer = FORMS[form]
    tok.add_special_tokens([AddedToken(s, normalized=False, special=True) for s in ("<unk>", "<s>", "</s>")])
    tok.save(str(tmp_path / "tokenizer.json"))
    for text in (mixed_text(300_000, seed=3, extra=["<s>", "</s>"], book=BOOK), "  two", " one", "none", "<s>a</s> b"):
        assert_same(tmp_path / "tokenizer.json", tok.encode(text, add_special_tokens=False).ids, text, back=False)
