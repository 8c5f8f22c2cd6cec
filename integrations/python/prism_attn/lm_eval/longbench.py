"""lm-eval's own LongBench tasks, from local files: TASK.jsonl (or TASK_e.jsonl) in LongBench's own format.

lm-eval reads a copy of the data on the Hugging Face hub. There, the field `input` of LongBench's files is `question`.
"""

from __future__ import annotations

import json
from pathlib import Path

HUB_NAME = "Xnhyacinth/LongBench"
SOURCE = "data.zip of https://huggingface.co/datasets/THUDM/LongBench has the files"


def read_row(line: str, where: str) -> dict:
    """One line of a file as lm-eval's tasks want it. where: names the line in errors."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as e:
        raise ValueError(f"{where}: not JSON: {e}") from None
    missing = [name for name in ("input", "context", "answers") if name not in row]
    if missing or not row["answers"]:
        raise ValueError(f"{where}: lacks {', '.join(missing) or 'an answer'}")
    return {"question": row["input"], **{k: row.get(k) for k in ("context", "answers", "all_classes")}}


def read_file(folder: Path, task: str) -> dict:
    """The data set of one task. task: LongBench's name, e.g. hotpotqa."""
    from datasets import Dataset

    path = folder / f"{task}.jsonl"
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}: {SOURCE}")
    lines = enumerate(path.read_text(encoding="utf-8").split("\n"), 1)
    return {"test": Dataset.from_list([read_row(line, f"{path}:{i}") for i, line in lines if line.strip()])}


def use_files(folder: str) -> None:
    """From here on LongBench's tasks read folder; all other tasks load their data as before."""
    import datasets

    load = datasets.load_dataset

    def load_dataset(path, name=None, **kwargs):
        return read_file(Path(folder), name) if path == HUB_NAME else load(path, name, **kwargs)

    datasets.load_dataset = load_dataset
