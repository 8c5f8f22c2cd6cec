#!/usr/bin/env python3
"""Writes small made-up files in the formats of SQuAD 2.0 and HotpotQA: data/squad.json, data/hotpot.json.

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
    squad()
    hotpot()
