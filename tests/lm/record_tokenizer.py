"""Records what Hugging Face `tokenizers` makes of awkward text: the fixtures of test_tokenizer.c.

    python3 tests/lm/record_tokenizer.py        (needs the package `tokenizers`; writes tests/lm/data/tokenizer-*.json)

Two small tokenizers are trained on the bundled book and a little code, one with the split of Qwen2 (merges as pairs),
one with that of Llama 3 (merges as strings, ignore_merges, BOS by template). Long texts are not stored: the test builds
them from the stored fragments with the same generator and compares a hash of the ids.
"""

import inspect
import json
import json.decoder
import os

from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, processors, trainers

HERE = os.path.dirname(os.path.abspath(__file__))
BOOK = os.path.join(HERE, "../../eval/data/nostromo.txt")
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
N_VOCAB = 1100
M64 = (1 << 64) - 1

WORDS = """the of and Captain Mitchell said "He she's I'll we'VE don'T it'S you'RE I'd they'D i'M O'Brien it'\u017f 'll
'tis naïve café Ångström straße ſharp ΑΒΓ αβγ Привет мир שלום عربي हिन्दी ไทย 日本語 漢字仮名 한국어 e\u0301 n\u0303o
A\u030a\u0323 \u0301 𝒳𝓎 🙂 👩‍👩‍👧‍👦 👍🏽 🇫🇷 ½ Ⅷ ² ٣٤ ৫ 1 12 123 1234 1234567 3.14 1,000,000 0x1F v2.0 a1b22c333
for(i=0;i<n;i++){ } return -1; #include <stdio.h> if(x==0&&y!=1) foo_bar->baz[3] /* */ // => :: ... !!! ?!
"quoted" (paren) [1] {k:v} $5 50% a@b.c http://x.y/z?q=1&r=2 __init__ xyzzy xyz zyx""".split()
SPACES = [" ", " ", " ", "  ", "   ", "       ", "\t", "\t\t", "\n", "\n\n", "\r\n", "\r", " \n", "\n ", " \t \n  ",
          "\v", "\f", "\x1c", "\x85", "\u00a0", "\u1680", "\u180e", "\u2003\u2003", "\u200b", "\u2028", "\u2029",
          "\u202f", "\u3000", "\ufeff", ""]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im_end|>>", "<tool_call>", "<|im", "<|im_end|", "<<|im_end|>"]
RAW = ["\0", "\x01", "\x7f", "\ufffd", "\uffff", "\U0010ffff", "\u0378"]
BROKEN = [b"\xff", b"\xfe\xfe", b"\x80", b"\xe2\x82", b"\xf0\x9f\x99", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80",
          b"\xe0\x9f\xbf", b"\xc3", b"\xe2\x80\xff\x99"]


def train(digits, ids_last):
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN.replace("DIGITS", digits)), "isolated", False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    special = SPECIAL[:4]
    trainer = trainers.BpeTrainer(vocab_size=N_VOCAB, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
                                  special_tokens=[] if ids_last else special, show_progress=False)
    text = open(BOOK, encoding="utf-8").read()[:400_000]
    extra = (" ".join(WORDS) + "\n") * 30
    tok.train_from_iterator([text, inspect.getsource(json.decoder), extra], trainer)
    if ids_last:
        tok.add_special_tokens(special)
    tok.add_tokens([AddedToken("<tool_call>", normalized=False, special=False)])
    return tok


def llama(tok):
    """Llama 3's options: a whole piece in the vocabulary needs no merges, and BOS comes first."""
    tok.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<|endoftext|> $A", special_tokens=[
            ("<|endoftext|>", tok.token_to_id("<|endoftext|>"))]),
    ])
    data = json.loads(tok.to_str())
    data["model"]["ignore_merges"] = True
    # No merges lead to these: only ignore_merges does. Added tokens follow the model's own, without a gap.
    n = len(data["model"]["vocab"])
    data["model"]["vocab"].update({"Ġxyzzy": n, "zyx": n + 1})
    for token in data["added_tokens"]:
        token["id"] += 2
    data["post_processor"]["processors"][1]["special_tokens"]["<|endoftext|>"]["ids"] = [n + 2]
    data["model"]["merges"] = [" ".join(m) if isinstance(m, list) else m for m in data["model"]["merges"]]
    return data


def alphabet():
    printable = [b for b in range(256) if 0x21 <= b <= 0x7E or (b >= 0xA1 and b != 0xAD)]
    rest = [b for b in range(256) if b not in printable]
    return {**{b: chr(b) for b in printable}, **{b: chr(0x100 + i) for i, b in enumerate(rest)}}


ALPHABET = alphabet()


def runs(data):
    """Stretches of valid UTF-8 and of bytes that belong to no character, in turn."""
    out, i = [], 0
    while i < len(data):
        char = 1
        for k in (1, 2, 3, 4):
            try:
                data[i:i + k].decode("utf-8")
                char, valid = k, True
                break
            except UnicodeDecodeError:
                valid = False
        if out and out[-1][0] == valid:
            out[-1][1] += data[i:i + char]
        else:
            out.append([valid, bytearray(data[i:i + char])])
        i += char
    return out


def encode(tok, data, special, bos):
    tok.encode_special_tokens = not special
    ids = [tok.token_to_id("<|endoftext|>")] if bos and tok.post_processor is not None else []
    for valid, run in runs(data):
        if valid:
            ids += tok.encode(run.decode("utf-8"), add_special_tokens=False).ids
        else:
            ids += [t.id for t in tok.model.tokenize("".join(ALPHABET[b] for b in run))]
    if bos and all(v for v, _ in runs(data)):
        assert ids == tok.encode(data.decode("utf-8")).ids
    return ids


def splitmix(state):
    while True:
        state = (state + 0x9E3779B97F4A7C15) & M64
        z = state
        z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & M64
        z = ((z ^ z >> 27) * 0x94D049BB133111EB) & M64
        yield z ^ z >> 31


def fnv(ids):
    h = 0xCBF29CE484222325
    for i in ids:
        h = ((h ^ i) * 0x100000001B3) & M64
    return h


def long_case(tok, name, pool, seed, count, special):
    """A text of `count` fragments, drawn from the first `pool`."""
    rng = splitmix(seed)
    data = b"".join(FRAGMENTS[next(rng) % pool] for _ in range(count))
    ids = encode(tok, data, special, True)
    return {"tokenizer": name, "seed": seed, "pool": pool, "count": count, "special": special, "n_bytes": len(data),
            "n": len(ids), "fnv": f"{fnv(ids):016x}"}


VALID = [s.encode() for s in WORDS * 2 + SPACES * 4 + [" " + w for w in WORDS] + SPECIAL + RAW]
FRAGMENTS = VALID + BROKEN


def main():
    toks, cases = {}, {"fragments": [f.hex() for f in FRAGMENTS], "long": [], "short": [], "book": []}
    os.makedirs(os.path.join(HERE, "data"), exist_ok=True)
    for name, digits in (("qwen2", r"\p{N}"), ("llama-bpe", r"\p{N}{1,3}")):
        tok = train(digits, name == "llama-bpe")
        data = llama(tok) if name == "llama-bpe" else json.loads(tok.to_str())
        path = os.path.join(HERE, f"data/tokenizer-{name}.json")
        with open(path, "w", encoding="utf-8") as f:
            json.dump(data, f, ensure_ascii=False, separators=(",", ":"))
        toks[name] = tok = Tokenizer.from_file(path)
        for special in (False, True):
            for seed in (1, 2):
                cases["long"].append(long_case(tok, name, len(VALID), seed, 40000, special))
                cases["long"].append(long_case(tok, name, len(FRAGMENTS), seed + 2, 20000, special))
        book = open(BOOK, "rb").read()
        ids = encode(tok, book, False, False)
        cases["book"].append({"tokenizer": name, "n": len(ids), "fnv": f"{fnv(ids):016x}"})
        texts = sorted(set(FRAGMENTS + [b"", b" xyzzy", b"a  b", b"a \n\n b  ", b"x" * 100, b" " * 70 + b"x"]))
        for text in texts:
            cases["short"].append({"tokenizer": name, "text": text.hex(), "ids": encode(tok, text, True, False)})
    with open(os.path.join(HERE, "data/tokenizer-cases.json"), "w") as f:
        json.dump(cases, f, separators=(",", ":"))


main()
