"""A text of every kind that tokenizers split differently, the same at every call."""

import random

WORDS = """the of and Captain Mitchell said "He she's I'll we'VE don'T it'S you'RE I'd they'D i'M O'Brien it'\u017f 'll
'tis naïve café Ångström straße ſharp HTTPServer camelCase SCREAMING ÀÉÎ ДОМ éÀ ǅungla
ΑΒΓ αβγ Привет мир Здравствуйте МоСкВа שלום عربي السلام हिन्दी नमस्ते ไทย สวัสดี 日本語 漢字仮名 カタカナ 한국어 안녕하세요
e\u0301 n\u0303o A\u030a\u0323 \u0301 \u1100\u1161 \u212b \u2126 \ufb01 \u0958 𝒳𝓎 🙂 👩\u200d👩\u200d👧\u200d👦
👍🏽 🇫🇷 ☃ ❤\ufe0f ½ Ⅷ ² ٣٤ ৫ 1 12 123 1234 1234567 3.14 1,000,000 0x1F v2.0 a1b22c333 2026-12-01 ①②③ 一二三
for(i=0;i<n;i++){ } return -1; #include <stdio.h> if(x==0&&y!=1) foo_bar->baz[3] /* */ // => :: ... !!! ?! ，。！ 「」
"quoted" (paren) [1] {k:v} $5 50% a@b.c http://x.y/z?q=1&r=2 __init__ \\n \\t \\\\ ^~` |x| <b> «» … – — • °""".split()
SPACES = [
    *[" "] * 5, "  ", "   ", "       ", "\t", "\t\t", "\n", "\n\n", "\r\n", "\r", " \n", "\n ", " \t \n  ", "\v", "\f",
    "\x1c", "\x85", "\u00a0", "\u1680", "\u180e", "\u2003\u2003", "\u200b", "\u2028", "\u2029", "\u202f", "\u3000",
    "\ufeff", "", "",
]  # fmt: skip
RAW = ["\0", "\x01", "\x04", "\x7f", "\ufffd", "\uffff", "\U0010ffff", "\u0378", "\u2581", "\u2581\u2581", "<0x0A>"]


def mixed_text(n_bytes, seed=1, extra=(), book=""):
    """n_bytes of UTF-8 at least: fragments with odd white space, each tenth a paragraph of the book."""
    rng = random.Random(seed)
    fragments = WORDS * 4 + RAW + list(extra)
    out, size = [], 0
    while size < n_bytes:
        if book and rng.random() < 0.004:
            at = rng.randrange(len(book))
            piece = book[at : at + rng.randrange(2000)]
        else:
            piece = rng.choice(fragments) + rng.choice(SPACES)
        out.append(piece)
        size += len(piece.encode())
    return "".join(out)
