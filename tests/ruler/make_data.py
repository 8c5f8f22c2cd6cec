#!/usr/bin/env python3
"""Writes small made-up files in the formats of LongBench (all 21 tasks), SQuAD 2.0 and HotpotQA: data/longbench,
data/squad.json, data/hotpot.json.

    python3 make_data.py
"""
import json
import os
import random

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data")
rng = random.Random(7)
PEOPLE = ["Ada", "Boris", "Chen", "Dora", "Emil", "Fatima"]
PLACES = ["Lund", "Porto", "Quito", "Riga", "Sofia", "Turin"]


def fact(i):
    return f"{PEOPLE[i % 6]} number {i} lives in {PLACES[i // 2 % 6]} and keeps {rng.randrange(2, 99)} bees."


def facts(n):
    return " ".join(fact(rng.randrange(1000)) for _ in range(n))


def line(task, language, context, question, answers, classes=None):
    return {"input": question, "context": context, "answers": answers, "length": len(context.split()), "dataset": task,
            "language": language, "all_classes": classes, "_id": f"{rng.getrandbits(64):016x}"}


def zh(n):
    return "".join(f"第{i}号居民住在{rng.choice('东西南北')}区，养了{rng.randrange(2, 99)}箱蜜蜂。" for i in range(n))


def longbench():
    en_qa = lambda t: line(t, "en", facts(12), "Who lives in Riga?", ["Chen", "Chen number 2"])
    passages = lambda t: line(t, "en", "\n\n".join(f"Passage {i}:\n{facts(4)}" for i in range(1, 5)),
                              "Where does Ada live?", ["Lund"])
    summary = lambda t: line(t, "en", facts(30), "", ["People live in towns. They keep bees."])
    kinds = ["Number of bees", "Person", "Place", "Number"]
    trec = "\n".join(f"Question: Where does {p} live?\nType: Place" for p in PEOPLE)
    topics = ["体育", "经济", "农业"]
    makers = {
        "narrativeqa": en_qa, "qasper": en_qa, "multifieldqa_en": en_qa,
        "multifieldqa_zh": lambda t: line(t, "zh", zh(12), "第3号居民住在哪个区？", ["东区"]),
        "hotpotqa": passages, "2wikimqa": passages, "musique": passages,
        "dureader": lambda t: line(t, "zh", zh(20), "居民养什么？", ["养蜜蜂", "蜜蜂"]),
        "gov_report": summary,
        "qmsum": lambda t: line(t, "en", facts(20), "What did they say about bees?", ["They keep bees."]),
        "multi_news": summary,
        "vcsum": lambda t: line(t, "zh", zh(30), "", ["居民们讨论了养蜂。"]),
        "trec": lambda t: line(t, "en", trec, "Question: How many bees are there?\nType:", ["Number of bees"], kinds),
        "triviaqa": lambda t: line(t, "en", f"Passage:\n{facts(3)}\nQuestion: Who?\nAnswer: Ada\n",
                                   f"Passage:\n{facts(3)}\nQuestion: Who?\nAnswer:", ["Boris", "Boris number 1"]),
        "samsum": lambda t: line(t, "en", "Dialogue: Ada: Bees? Boris: Yes.\nSummary: Boris has bees.",
                                 "Dialogue: Chen: Honey? Dora: No.\nSummary: ", ["Dora has no honey."]),
        "lsht": lambda t: line(t, "zh", f"新闻内容：\n{zh(2)}\n类别：农业\n", f"新闻内容：\n{zh(2)}\n类别：", ["农业"], topics),
        "passage_count": lambda t: line(t, "en", "\n\n".join(f"Paragraph {i}: {facts(3)}" for i in range(1, 6)), "", ["5"]),
        "passage_retrieval_en": lambda t: line(t, "en", "\n\n".join(f"Paragraph {i}: {facts(3)}" for i in range(1, 31)),
                                               "Somebody keeps bees.", ["Paragraph 17"]),
        "passage_retrieval_zh": lambda t: line(t, "zh", "\n\n".join(f"段落{i}：{zh(3)}" for i in range(1, 9)),
                                               "有人养蜂。", ["段落5"]),
        "lcc": lambda t: line(t, "python", "def bees(n):\n    total = 0\n    for i in range(n):\n", "",
                              ["        total += i"]),
        "repobench-p": lambda t: line(t, "java", "class Bees {\n    int total;\n}\n",
                                      "class Hive {\n    Bees bees = new Bees();\n", ["    int count() { return bees.total; }"]),
    }
    assert len(makers) == 21
    os.makedirs(os.path.join(HERE, "longbench"), exist_ok=True)
    for task, make in makers.items():
        with open(os.path.join(HERE, "longbench", task + ".jsonl"), "w", encoding="utf-8") as out:
            for _ in range(3):
                out.write(json.dumps(make(task), ensure_ascii=False) + "\n")


def squad():
    articles = []
    for a in range(8):
        paragraphs = []
        for p in range(6):
            i = a * 6 + p
            qas = [{"id": f"q{i}", "question": f"Where does resident {i} live?", "is_impossible": False,
                    "answers": [{"text": f"in street {i}", "answer_start": 0}, {"text": f"street {i}", "answer_start": 3},
                                {"text": f"street {i}", "answer_start": 3}]},
                   {"id": f"n{i}", "question": "What is not said?", "is_impossible": True, "answers": [],
                    "plausible_answers": [{"text": "nothing", "answer_start": 0}]}]
            paragraphs.append({"context": f"Resident {i} lives in street {i}. {facts(10)}", "qas": qas})
        articles.append({"title": f"Town_{a}", "paragraphs": paragraphs})
    with open(os.path.join(HERE, "squad.json"), "w") as out:
        json.dump({"version": "v2.0", "data": articles}, out, indent=1)


def hotpot():
    questions = []
    for i in range(12):
        titles = [f"Hill {i}.{k}" for k in range(8)]
        context = [[t, [f"{t} is a hill.", f" {facts(3)}"]] for t in titles[:8]]
        context += [["Shared valley", ["The valley is shared."]], [f"Brook {i}", [f"Brook {i} rises on Hill {i}.3."]]]
        rng.shuffle(context)
        questions.append({"_id": f"h{i}", "question": f"On which hill does brook {i} rise?", "answer": f"Hill {i}.3",
                          "supporting_facts": [[f"Brook {i}", 0], [f"Hill {i}.3", 0]], "context": context,
                          "type": "bridge", "level": "hard"})
    with open(os.path.join(HERE, "hotpot.json"), "w") as out:
        json.dump(questions, out, indent=1)


if __name__ == "__main__":
    longbench()
    squad()
    hotpot()
