"""The examples run as they stand, with the scripted model in place of a real one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ...protocol.conftest import reserved_port
from ..model_server import Call, ModelRequest, ModelServer, Reply, Text

EXAMPLES = Path(__file__).parents[3] / "examples" / "engines"

SQUARES = {
    "stages": [
        {
            "name": "main",
            "tasks": [
                {
                    "name": "squares",
                    "required_tools": ["data_processor"],
                    "parameters": {"data": [1, 2, 3], "expression": "data.map(n, n * n)"},
                }
            ],
        }
    ]
}


def run(program: str, *arguments: str, **environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / program), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_a_flow_with_a_model_in_it(model_server: ModelServer) -> None:
    def script(request: ModelRequest) -> Reply:
        assert "customer care" in request.system
        if not request.results:
            count = {"data": ["broken", "broken"], "query": "length(@)"}
            return Call("data_processor", count)
        assert request.results == ["2"]
        return Call("final_answer", {"complaint": "broken", "action": "pack better"})

    model_server.script = script
    lines = run(
        "strands_flow.py", CONTEXTEN_FLOW_MODEL="openai/scripted", CONTEXTEN_FLOW_MODEL_BASE_URL=model_server.url
    )
    assert lines[0] == 'completed {"bad": 2, "action": "pack better"}'
    assert [line.split()[0] for line in lines[1:]] == ["task.tool_called", "task.usage"]


@contextmanager
def flow_server(database: Path) -> Iterator[str]:
    with reserved_port() as port:
        command = [sys.executable, "-m", "contexten_server", "serve", "--transport", "http", "--port", str(port)]
        with subprocess.Popen([*command, "--db", str(database)], stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            for line in process.stderr:
                if str(port) in line:
                    break
            try:
                yield f"http://127.0.0.1:{port}/mcp"
            finally:
                process.terminate()
                process.communicate(timeout=20)


def composer(request: ModelRequest) -> Reply:
    """Composes a flow, runs it, waits for it and reads its output, by what the tools answer."""
    assert {"create_flow", "execute_flow", "wait_for_flow", "get_flow_status"} <= request.tools.keys()
    answers = [_last_json(result) for result in request.results]
    match len(answers):
        case 0:
            return Call("create_flow", {"name": "Squares", "workflow_def": SQUARES})
        case 1:
            return Call("execute_flow", {"flow_id": answers[0]["flow_id"]})
        case 2:
            return Call("wait_for_flow", {"run_id": answers[1]["run_id"], "timeout_s": 20})
        case 3:
            assert answers[2]["state"] == "completed"
            return Call("get_flow_status", {"run_id": answers[1]["run_id"], "detail": "output"})
        case _:
            return Text(f"The squares are {answers[3]['output']['squares']}.")


def _last_json(result: str) -> Any:
    """The structured content, which Strands puts last."""
    for line in reversed(result.splitlines()):
        try:
            return json.loads(line)
        except ValueError:
            continue
    raise AssertionError(result)


@pytest.mark.parametrize("transport", ["stdio", "http"])
def test_an_agent_of_strands_composes_and_watches_a_flow(
    model_server: ModelServer, tmp_path: Path, transport: str
) -> None:
    model_server.script = composer
    environment = {"OPENAI_BASE_URL": model_server.url, "MODEL": "scripted"}
    if transport == "stdio":
        lines = run("strands_client.py", "Square 1 to 3.", **environment)
    else:
        with flow_server(tmp_path / "served.sqlite3") as url:
            lines = run("strands_client.py", "--url", url, "Square 1 to 3.", **environment)
    assert lines == [
        "-> create_flow",
        "-> execute_flow",
        "-> wait_for_flow",
        "-> get_flow_status",
        "The squares are [1, 4, 9].",
    ]
