"""Made-up files in LongBench's own format, one row for each of its 21 tasks."""

from __future__ import annotations

import json
import random
from pathlib import Path

PEOPLE = "Ada Boris Chen Dora Emil Fatima".split()
PLACES = "Lund Porto Quito Riga Sofia Turin".split()


def facts(rng: random.Random, n: int) -> str:
    who = [rng.randrange(1000) for _ in range(n)]
    return " ".join(f"{PEOPLE[i % 6]} number {i} lives in {PLACES[i // 2 % 6]} and keeps {i} bees." for i in who)


def zh_facts(rng: random.Random, n: int) -> str:
    return "".join(f"第{i}号居民住在{rng.choice('东西南北')}区，养了{rng.randrange(2, 99)}箱蜜蜂。" for i in range(n))


def rows(rng: random.Random) -> dict[str, tuple]:
    """{task: (context, input, answers) or (context, input, answers, all_classes)}"""
    en, zh = facts(rng, 30), zh_facts(rng, 12)
    question = (en, "Who lives in Riga?", ["Chen", "Chen number 2"])
    passages = ("\n\n".join(f"Passage {i}:\n{facts(rng, 4)}" for i in range(1, 5)), "Where does Ada live?", ["Lund"])
    summary = (en, "", ["People live in towns. They keep bees."])
    paragraphs = "\n\n".join(f"Paragraph {i}: {facts(rng, 3)}" for i in range(1, 31))
    trec = "\n".join(f"Question: Where does {p} live?\nType: Place" for p in PEOPLE)
    dialogue = "Dialogue: Ada: Bees? Boris: Yes.\nSummary: Boris has bees."
    return {
        **dict.fromkeys(("narrativeqa", "qasper", "multifieldqa_en"), question),
        **dict.fromkeys(("hotpotqa", "2wikimqa", "musique"), passages),
        **dict.fromkeys(("gov_report", "multi_news"), summary),
        "multifieldqa_zh": (zh, "第3号居民住在哪个区？", ["东区"]),
        "dureader": (zh, "居民养什么？", ["养蜜蜂", "蜜蜂"]),
        "qmsum": (en, "What did they say about bees?", ["They keep bees."]),
        "vcsum": (zh, "", ["居民们讨论了养蜂。"]),
        "trec": (
            trec,
            "Question: How many?\nType:",
            ["Number of bees"],
            ["Number of bees", "Person", "Place", "Number"],
        ),
        "triviaqa": (f"Passage:\n{en}\nAnswer: Ada\n", "Passage:\nBees.\nAnswer:", ["Boris", "Boris number 1"]),
        "samsum": (dialogue, "Dialogue: Chen: Honey? Dora: No.\nSummary: ", ["Dora has no honey."]),
        "lsht": (f"新闻内容：\n{zh}\n类别：农业\n", "新闻内容：\n养蜂\n类别：", ["农业"], ["体育", "经济", "农业"]),
        "passage_count": (paragraphs, "", ["30"]),
        "passage_retrieval_en": (paragraphs, "Somebody keeps bees.", ["Paragraph 17"]),
        "passage_retrieval_zh": ("\n\n".join(f"段落{i}：{zh}" for i in range(1, 9)), "有人养蜂。", ["段落5"]),
        "lcc": ("def bees(n):\n    total = 0\n    for i in range(n):\n", "", ["        total += i"]),
        "repobench-p": ("class Bees {\n}\n", "class Hive {\n", ["    int count() { return 1; }"]),
    }


def write(folder: Path) -> list[str]:
    """Writes the files; returns the names of the tasks."""
    made = rows(random.Random(7))
    for task, row in made.items():
        context, question, answers, *classes = row
        record = {"input": question, "context": context, "answers": answers, "length": len(context), "dataset": task}
        record |= {"language": "en", "all_classes": classes[0] if classes else None, "_id": task}
        text = json.dumps(record, ensure_ascii=False)
        (folder / f"{task}.jsonl").write_text(f"{text}\n\n{text}\n", encoding="utf-8")
    return list(made)
