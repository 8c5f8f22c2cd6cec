#!/usr/bin/env python3
"""Records what the metrics must give: data/metrics.json.

Edit similarity comes from Python's difflib; ROUGE-L and F1 from the plain implementations below, written from their
definitions. Where the package `rouge` 1.0.1 is installed, ROUGE-L is held against it too.

    python3 record_metrics.py
"""
import collections
import difflib
import json
import os
import random
import re
import string

CJK_MARKS = "、。〃》「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿！？＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､–—‘’‛“”„‟…‧﹏"


def tokens_zh(text):
    return re.findall(r"[0-9A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u167f]+|[^\s]", text)


def normal(text, zh):
    text = "".join(c for c in text.lower() if c not in string.punctuation and not (zh and c in CJK_MARKS))
    if zh:
        return tokens_zh(text)
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def f1(answer, gold, zh):
    a, g = collections.Counter(normal(answer, zh)), collections.Counter(normal(gold, zh))
    common = sum((a & g).values())
    if common == 0:
        return 0.0
    precision, recall = common / sum(a.values()), common / sum(g.values())
    return 2 * precision * recall / (precision + recall)


def subsequence(x, y):
    """The words of one longest common subsequence."""
    table = [[0] * (len(y) + 1) for _ in range(len(x) + 1)]
    for i, a in enumerate(x, 1):
        for j, b in enumerate(y, 1):
            table[i][j] = table[i - 1][j - 1] + 1 if a == b else max(table[i - 1][j], table[i][j - 1])
    words, i, j = set(), len(x), len(y)
    while i and j:
        if x[i - 1] == y[j - 1]:
            words.add(x[i - 1])
            i, j = i - 1, j - 1
        elif table[i - 1][j] > table[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return words


def rouge_l(answer, gold, zh):
    def sentences(text):
        parts = [p for p in text.split(".") if p]
        return [(tokens_zh(p) if zh else p.split()) or [""] for p in parts]

    a, g = sentences(answer), sentences(gold)
    if not a or not g:
        return 0.0
    found = set()
    for reference in g:
        for sentence in a:
            found |= subsequence(reference, sentence)
    precision = len(found) / len({w for s in a for w in s})
    recall = len(found) / len({w for s in g for w in s})
    return 2 * precision * recall / (precision + recall + 1e-8)


def package_rouge_l(answer, gold, zh):
    from rouge import Rouge

    if zh:
        answer, gold = " ".join(tokens_zh(answer)), " ".join(tokens_zh(gold))
    try:
        return Rouge().get_scores([answer], [gold], avg=True)["rouge-l"]["f"]
    except ValueError:
        return 0.0


WORDS = "the a an cat dog sat on mat ran to river red Big ship's captain's captain said: gold, silver don't 1904 e.g. naïve Œuvre".split()
HAN = "中华人民共和国会议讨论了预算和计划问题，代表们同意。2021年GDP增长5.3%！"


def english(rng, n):
    text = ""
    for _ in range(n):
        text += rng.choice(WORDS) + rng.choice([" ", " ", " ", " ", ". ", "\n", "  ", "."])
    return text


def chinese(rng, n):
    return "".join(rng.choice(HAN) for _ in range(n))


def code(rng, n):
    return "".join(rng.choice(["self.", "value", " = ", "int ", "(", ")", "x", "y", "for i in range", "0", "[i]", ";", "é"])
                   for _ in range(n))


def main():
    rng = random.Random(1)
    pairs = [("", ""), ("", "a"), ("a", ""), ("the", "the"), (".", "."), (". ", "x"), ("Hello. ", "Hello."),
             ("The cat", "cat"), ("théa the an", "théa"), ("a b c", "c b a"), ("naïve ÉCOLE", "école")]
    texts = [(a, g, False) for a, g in pairs]
    texts += [(english(rng, rng.randrange(1, 60)), english(rng, rng.randrange(1, 60)), False) for _ in range(60)]
    texts += [("答案是：北京。", "北京", True), ("", "北京", True), ("GDP 增长5.3%", "增长 5.3%", True)]
    texts += [(chinese(rng, rng.randrange(1, 80)), chinese(rng, rng.randrange(1, 80)), True) for _ in range(40)]
    lines = [("", ""), ("a", ""), ("abcd", "bcde"), ("private Thread currentThread;", "private volatile Thread currentThread;")]
    lines += [(code(rng, rng.randrange(1, 25)), code(rng, rng.randrange(1, 25))) for _ in range(60)]
    # 200 characters and more: characters that are popular start no block
    lines += [(code(rng, rng.randrange(40, 90)), code(rng, rng.randrange(60, 120))) for _ in range(20)]
    record = {"texts": [], "lines": []}
    try:
        import rouge  # noqa: F401
        held = True
    except ImportError:
        held = False
    for a, g, zh in texts:
        value = rouge_l(a, g, zh)
        if held and not (zh and ".." in a + " " + g):  # joined by spaces, ".." would have a sentence in it
            assert abs(value - package_rouge_l(a, g, zh)) < 1e-12, (a, g, value, package_rouge_l(a, g, zh))
        record["texts"].append({"answer": a, "gold": g, "zh": zh, "f1": f1(a, g, zh), "rouge_l": value})
    for a, b in lines:
        record["lines"].append({"a": a, "b": b, "ratio": difflib.SequenceMatcher(None, a, b).ratio()})
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data", "metrics.json")
    with open(path, "w", encoding="utf-8") as out:
        json.dump(record, out, ensure_ascii=False, indent=1)
        out.write("\n")
    print(f"{path}: {len(record['texts'])} texts, {len(record['lines'])} lines; package rouge {'agrees' if held else 'absent'}")


if __name__ == "__main__":
    main()
