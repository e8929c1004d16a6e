"""A scripted language model in a process of its own, so that its work is nobody's: prints its URL, ends with its input.

It answers at once, and what an engine wants to hear: `done`, in words or by the tool that ends a task.
"""

from __future__ import annotations

import sys

from tests.engines.model_server import Call, ModelRequest, Reply, Text, serving


def answer(request: ModelRequest) -> Reply:
    """One answer a task."""
    ending = next((name for name in request.tools if name.endswith("_successful")), None)
    return Text("done") if ending is None else Call(ending, {"result": "done"})


if __name__ == "__main__":
    with serving(answer) as server:
        print(server.url, flush=True)
        sys.stdin.read()
