"""The examples of the native engine and of Prefect run as they stand: a scripted model, a real Prefect server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from .model_server import Call, Calls, ModelRequest, ModelServer, Reply
from .prefect_servers import PrefectServer

EXAMPLES = Path(__file__).parents[2] / "examples" / "engines"
PATIENCE_S = 120


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Of a user who has configured nothing."""
    foreign = ("CONTEXTEN_", "PREFECT_", "OPENAI_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return kept | {"PREFECT_HOME": str(tmp_path / "prefect"), "DO_NOT_TRACK": "1"}


def run(program: str, *arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLES / program), *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env=environment,
        stdin=subprocess.DEVNULL,
    )


def buyer(request: ModelRequest) -> Reply:
    """Orders what is scarce, and tells it in the structure that is asked for."""
    orders = [{"article": "cups", "pieces": 18}, {"article": "spoons", "pieces": 17}]
    if not request.results:
        assert '"cups"' in request.user
        tool = next(name for name in request.tools if name != "final_answer")
        return Calls([Call(tool, order) for order in orders])
    assert "cups" in request.results[0]
    return Call("final_answer", {"orders": orders})


def test_a_tool_task_and_a_model_use_an_mcp_server(model_server: ModelServer, environment: dict[str, str]) -> None:
    model_server.script = buyer
    environment |= {"CONTEXTEN_FLOW_MODEL": "openai/scripted", "CONTEXTEN_FLOW_MODEL_BASE_URL": model_server.url}
    done = run("native_agent.py", environment=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    first, *calls = done.stdout.splitlines()
    output = json.loads(first.removeprefix("completed "))
    assert [one["article"] for one in output["scarce"]] == ["cups", "spoons"]
    assert [order["pieces"] for order in output["orders"]] == [18, 17]
    assert calls == ["restock called mcp:stock/order"] * 2


def test_without_a_model_the_example_says_what_to_set(environment: dict[str, str]) -> None:
    done = run("native_agent.py", environment=environment)
    assert done.returncode == 1
    assert "CONTEXTEN_FLOW_MODEL" in done.stderr
    assert "Traceback" not in done.stderr


def test_prefect_shows_the_run_of_the_example(prefect_server: PrefectServer, environment: dict[str, str]) -> None:
    done = run("prefect_flow.py", environment=environment | {"PREFECT_API_URL": prefect_server.url})
    assert done.returncode == 0, done.stdout + done.stderr
    result, page = done.stdout.splitlines()
    assert result == "completed 33"
    flow_run_id = page.rpartition("/")[2]
    assert prefect_server.ask(f"/flow_runs/{flow_run_id}")["tags"] == ["example"]
    tasks = prefect_server.task_runs(flow_run_id)
    assert "Retrying" in prefect_server.states("task", tasks["weights[0]"]["id"])


@pytest.mark.slow
def test_the_example_starts_a_prefect_server_where_there_is_none(environment: dict[str, str]) -> None:
    done = run("prefect_flow.py", environment=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("completed 33\nhttp://127.0.0.1:")


@contextmanager
def worker(pool: str, server: PrefectServer, environment: dict[str, str]) -> Iterator[None]:
    """A worker of the pool, when the server knows of it."""
    command = [sys.executable, "-m", "contexten_server", "worker", "--pool", pool]
    with subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + PATIENCE_S
            while not _has_workers(server, pool):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
            yield
        finally:
            process.terminate()


def _has_workers(server: PrefectServer, pool: str) -> bool:
    try:
        return bool(server.ask(f"/work_pools/{pool}/workers/filter", {}))
    except httpx.HTTPStatusError:  # the pool is not made yet
        return False


def test_a_worker_of_a_pool_makes_the_attempts_of_the_example(
    prefect_server: PrefectServer, environment: dict[str, str]
) -> None:
    environment |= {"PREFECT_API_URL": prefect_server.url}
    with worker("example-pool", prefect_server, environment):
        done = run("prefect_pool.py", "--pool", "example-pool", environment=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    first, *lines = done.stdout.splitlines()
    assert json.loads(first.removeprefix("completed ")) == {"words": [6, 4], "total": 10}
    assert any("example-pool" in line for line in lines)


def test_a_pool_that_is_not_there_is_told_with_what_to_do(
    prefect_server: PrefectServer, environment: dict[str, str]
) -> None:
    environment |= {"PREFECT_API_URL": prefect_server.url}
    done = run("prefect_pool.py", "--pool", "nobodys", environment=environment)
    assert done.returncode == 1
    assert "contexten-flow worker --pool nobodys" in done.stdout


def test_without_an_api_the_example_says_what_to_set(environment: dict[str, str]) -> None:
    done = run("prefect_pool.py", environment=environment)
    assert done.returncode == 1
    assert "PREFECT_API_URL" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("program", ["native_agent.py", "prefect_flow.py", "prefect_pool.py"])
def test_each_example_says_how_it_is_used(program: str, environment: dict[str, str]) -> None:
    done = run(program, "--help", environment=environment)
    assert done.returncode == 0
    assert "pip install" in done.stdout
