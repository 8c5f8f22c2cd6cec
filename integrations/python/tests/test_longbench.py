"""lm-eval's LongBench tasks on local files: no network, its own prompts and metrics."""

from __future__ import annotations

import json
import subprocess
import sys

import longbench_files
import pytest
from conftest import MODEL

from prism_attn.lm_eval import longbench

TASKS = [f"longbench_{name}" for name in longbench_files.rows(longbench_files.random.Random(0))]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets, "load_dataset", datasets.load_dataset)  # put back after the test
    longbench_files.write(tmp_path)
    longbench.use_files(str(tmp_path))
    return tmp_path


def test_every_task_reads_its_file_and_scores_its_answer(folder):
    from lm_eval.tasks import TaskManager

    tasks = TaskManager().load(TASKS)["tasks"]
    assert len(tasks) == 21
    for name, task in tasks.items():
        docs = list(task.test_docs())
        row = json.loads((folder / f"{name.removeprefix('longbench_')}.jsonl").read_text().split("\n")[0])
        assert len(docs) == 2 and docs[0]["answers"] == row["answers"] and row["context"] in task.doc_to_text(docs[0])
        if row["input"]:
            assert row["input"] in task.doc_to_text(docs[0])
        assert task.process_results(docs[0], [row["answers"][0]])["score"] == pytest.approx(1, abs=1e-6), name
        assert task.process_results(docs[0], ["~"])["score"] == 0, name


def test_what_is_wrong_with_a_file_is_said(folder):
    with pytest.raises(FileNotFoundError, match=r"no .*nothing\.jsonl: data\.zip of"):
        longbench.read_file(folder, "nothing")
    (folder / "lcc.jsonl").write_text(
        '{"input": "", "context": "", "answers": ["a"]}\n{"input": "", "answers": ["a"]}\n'
    )
    with pytest.raises(ValueError, match=r"lcc\.jsonl:2: lacks context"):
        longbench.read_file(folder, "lcc")
    (folder / "lcc.jsonl").write_text("{")
    with pytest.raises(ValueError, match=r"lcc\.jsonl:1: not JSON"):
        longbench.read_file(folder, "lcc")


def test_command_runs_the_group(tmp_path):
    (tmp_path / "data").mkdir()
    longbench_files.write(tmp_path / "data")
    source = f"pretrained={MODEL.parent},gguf_file={MODEL.name},dtype=float32,max_length=131072,add_bos_token=True"
    theirs = ["--model", "hf", "--model_args", source, "--tasks", "longbench", "--limit", "1", "--device", "cpu"]
    theirs += ["--gen_kwargs", "max_gen_toks=4", "--output_path", str(tmp_path)]
    ours = ["--prism-longbench", str(tmp_path / "data"), "--prism-option", "min_tokens=0"]
    command = [sys.executable, "-m", "prism_attn.lm_eval", *theirs, *ours]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    (file,) = tmp_path.rglob("results_*.json")
    results = json.loads(file.read_text())
    assert set(TASKS) < set(results["results"]) and "score,none" in results["groups"]["longbench"]
    assert results["prism_attn"]["calls"]["sparse"] >= 8 * 21
