#!/usr/bin/env python3
"""Ctrl-C while the answer streams: it ends, the table still comes, the exit code is 130.
usage: command_interrupt.py PRISM MODEL"""
import signal
import subprocess
import sys

prism, model = sys.argv[1:3]
run = subprocess.Popen([prism, "run", "-m", model, "-p", "It was the best of times", "-n", "100000"],
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE)
first = run.stdout.read(1)  # comes while tens of thousands of tokens are still to be made
run.send_signal(signal.SIGINT)
answer, table = run.communicate(timeout=120)
problems = [what for what, holds in {
    "the answer did not start": len(first) == 1,
    "the answer does not end in a line feed": answer.endswith(b"\n"),
    f"exit code {run.returncode}, wanted 130": run.returncode == 130,
    "there is no table": b"answer tokens" in table and b"density per layer" in table,
}.items() if not holds]
if problems:
    sys.exit("FAILED: " + "; ".join(problems))
