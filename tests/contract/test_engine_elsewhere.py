"""Runs of an engine whose library one of the servers lacks: they are made where it is, and never by somebody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from importlib import import_module
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from contexten.extensions.flow import driver
from contexten.extensions.flow.engines import EngineReference, choice
from contexten.extensions.flow.errors import EngineUnavailable
from contexten.extensions.flow.execution.conductor import Conductor
from contexten.extensions.flow.service import FlowService
from contexten.extensions.flow.settings import FlowSettings

pytestmark = pytest.mark.anyio

ENGINE_AND_TASK = [
    ("native", "agent"),
    ("strands", "agent"),
    ("strands", "poem"),
    ("controlflow", "agent"),
    ("controlflow", "poem"),
    ("prefect", "agent"),
    ("prefect:gpu", "agent"),
    ("prefect:gpu", "poem"),
    ("prefect:gpu", "tool"),
]

Join = Callable[..., Any]


@pytest.fixture
async def join(database: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Join]:
    """Servers; what is asked of them in the test itself finds all engines, what they do alone finds none."""
    for name in ("strands", "controlflow", "prefect"):
        import_module(f"contexten.extensions.flow.{name}.engine")  # before what it imports is replaced
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    monkeypatch.setattr(driver, "installed_version", lambda _engine: None)  # no mirror
    settings = FlowSettings(
        database=database, stop_grace_s=0.0, model="openai/any", model_base_url="http://127.0.0.1:9/v1"
    )
    async with AsyncExitStack() as stack:

        async def join(drive: bool = True) -> FlowService:
            me = asyncio.current_task()
            monkeypatch.setattr(
                choice, "installed_version", lambda _engine: "1.0" if asyncio.current_task() is me else None
            )
            return await stack.enter_async_context(FlowService(settings, drive=drive))

        yield join


def conductor(service: FlowService) -> Conductor:
    assert service._driver.conductor is not None
    return service._driver.conductor


def worker_of(service: FlowService, engine: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have the service make the engine; its agent answers at once. Its name."""

    async def run(_task: Any, _context: Any) -> str:
        return "by the engine"

    worker = service.engines.engine(EngineReference.parse(engine)).worker
    monkeypatch.setattr(worker, "run", run)
    return worker.name


def submission(engine: str, kind: str) -> dict[str, Any]:
    name, _, pool = engine.partition(":")
    tools = ["data_processor"] if kind == "tool" else []
    parameters = {"data": [1], "query": "[0]"}
    task = {"name": "t", "type": kind, "description": "Do.", "required_tools": tools, "parameters": parameters}
    definition = {"stages": [{"name": "s", "tasks": [task]}]}
    return {"workflow_def": definition, "framework": name, "work_pool": pool or None}


@pytest.mark.parametrize(("engine", "kind"), ENGINE_AND_TASK)
async def test_a_run_goes_on_where_its_engine_is(
    join: Join, monkeypatch: pytest.MonkeyPatch, engine: str, kind: str
) -> None:
    poor, able = await join(), await join()
    name = worker_of(able, engine, monkeypatch)
    with anyio.fail_after(30):
        while any(conductor(service).intake.share.servers < 2 for service in (poor, able)):
            await anyio.lowlevel.checkpoint()
    conductor(able).is_stopping = True  # it takes nothing yet
    run_id = (await able.execute_flow(**submission(engine, kind))).run_id
    with anyio.fail_after(30):
        while conductor(poor).handover.declined != [run_id]:
            await anyio.lowlevel.checkpoint()
    conductor(able).is_stopping = False
    with anyio.fail_after(20):
        await able.wait(run_id)
    run = await able.get_run(run_id, detail="tasks")
    assert (run.state, await able.run_output(run_id)) == ("completed", '{"t":"by the engine"}')
    assert [(task.agent, task.attempts) for task in run.tasks] == [(name, 1)]


@pytest.mark.parametrize(("engine", "kind"), ENGINE_AND_TASK)
async def test_a_run_waits_and_says_what_it_lacks_where_no_server_has_its_engine(
    join: Join, monkeypatch: pytest.MonkeyPatch, engine: str, kind: str
) -> None:
    guest = await join(drive=False)
    run_id = (await guest.execute_flow(**submission(engine, kind))).run_id
    monkeypatch.setattr(choice, "installed_version", lambda _engine: None)
    async with FlowService(guest.settings) as poor:
        with anyio.fail_after(20):
            while not (await poor.get_run(run_id)).started_at:
                await anyio.lowlevel.checkpoint()
        obstacles = (await poor.explain(run_id=run_id)).waiting_for
        assert (await poor.get_run(run_id)).state == "running"
        assert [line for line in obstacles or () if "is not installed" in line], obstacles


async def test_a_submission_for_a_model_is_refused_where_no_library_can_ask_it(join: Join) -> None:
    service = await join()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choice, "installed_version", lambda _engine: None)
        with pytest.raises(EngineUnavailable, match="task t cannot run here: The engine 'strands' is not installed"):
            await service.execute_flow(**submission("native", "agent"))
