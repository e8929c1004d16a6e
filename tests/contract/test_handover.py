"""Runs go to the server that has what they need: its agents and its secrets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from contexten.extensions.flow.execution.conductor import Conductor
from contexten.extensions.flow.service import FlowService
from contexten.extensions.flow.settings import FlowSettings, SecretGrant

pytestmark = pytest.mark.anyio

VALUES = {"TOK": "the-first-value", "KEY": "the-second-value"}


class Worker:
    """Says who it is."""

    agent_type = "test"
    capacity = 100

    def __init__(self, name: str, tool: str = "work") -> None:
        self.name = name
        self.tools = (tool,)

    async def run(self, task: Any, context: Any) -> str:
        return self.name


Join = Callable[..., Any]


@pytest.fixture
async def join(database: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Join]:
    for name, value in VALUES.items():
        monkeypatch.setenv(name, value)
    async with AsyncExitStack() as stack:

        async def join(worker: str | Worker, *secrets: str, drive: bool = True) -> FlowService:
            grants = tuple(SecretGrant(name=name) for name in secrets)
            settings = FlowSettings(database=database, retry_delay_s=0.0, stop_grace_s=0.0, secrets=grants)
            agent = Worker(worker) if isinstance(worker, str) else worker
            return await stack.enter_async_context(FlowService(settings, agents=[agent], drive=drive))

        yield join


def flow(*tasks: tuple[str, ...]) -> dict[str, Any]:
    """Tasks one after the other, with the secrets that each needs."""
    return {
        "id": "needy",
        "stages": [
            {
                "name": "s",
                "tasks": [
                    {
                        "name": f"t{number}",
                        "type": "test",
                        "required_tools": ["work"],
                        "parameters": {name: f"{{{{ secrets.{name} }}}}" for name in names},
                    }
                    for number, names in enumerate(tasks, 1)
                ],
            }
        ],
    }


async def save(join: Join, definition: dict[str, Any]) -> None:
    """By a process that has all secrets, and drives nothing."""
    guest = await join("guest", *VALUES, drive=False)
    await guest.create_flow(name="needy", workflow_def=definition)


def conductor(service: FlowService) -> Conductor:
    assert service._driver.conductor is not None
    return service._driver.conductor


async def together(*services: FlowService) -> None:
    """Until all know of each other."""
    with anyio.fail_after(30):
        while any(conductor(service).intake.share.servers < len(services) for service in services):
            await anyio.lowlevel.checkpoint()


async def submit_first(service: FlowService, other: FlowService, **flow: Any) -> str:
    """A run that the one takes, while the other takes none."""
    conductor(other).is_stopping = True
    run_id = (await service.execute_flow(**flow)).run_id
    with anyio.fail_after(30):
        while not (await service.get_run(run_id)).started_at:
            await anyio.lowlevel.checkpoint()
    conductor(other).is_stopping = False
    return run_id


async def end(service: FlowService, run_id: str) -> Any:
    with anyio.fail_after(20):
        await service.wait(run_id)
    return await service.get_run(run_id, detail="tasks")


async def releases(service: FlowService, run_id: str) -> list[list[str]]:
    """The tasks for which the run was given up, each time that it was."""
    events = await service.events(run_id)
    return [(event.details or {})["unserved"] for event in events if event.type == "run.released"]


async def test_a_run_goes_on_where_the_secret_of_its_task_is(join: Join) -> None:
    await save(join, flow((), ("TOK",)))
    poor, rich = await join("poor"), await join("rich", "TOK")
    await together(poor, rich)
    run_id = await submit_first(poor, rich, flow_id="needy")
    run = await end(poor, run_id)
    assert run.state == "completed"
    assert run.tasks[1].agent == "rich"
    assert run.tasks[1].attempts == 1
    assert await releases(poor, run_id) == [["t2"]]
    with anyio.fail_after(30):
        while conductor(poor).handover.declined:  # forgotten once its end is heard of
            await anyio.lowlevel.checkpoint()


async def test_a_run_fails_where_no_server_that_lives_has_the_secret(join: Join) -> None:
    await save(join, flow(("TOK",)))
    servers = [await join(name) for name in ("first", "second", "third")]
    await together(*servers)
    run_id = (await servers[0].execute_flow(flow_id="needy")).run_id
    run = await end(servers[0], run_id)
    assert run.state == "failed"
    assert "No secret TOK is named" in run.error.message
    assert run.tasks[0].attempts == 1
    assert await releases(servers[0], run_id) == [["t1"], ["t1"]]


async def test_a_run_comes_back_for_a_secret_that_only_an_earlier_server_has(join: Join) -> None:
    await save(join, flow(("TOK",), ("KEY",), ("TOK",)))
    first, second = await join("first", "TOK"), await join("second", "KEY")
    await together(first, second)
    run = await end(first, (await first.execute_flow(flow_id="needy")).run_id)
    assert [task.agent for task in run.tasks] == ["first", "second", "first"]
    assert run.state == "completed"


async def test_a_task_whose_secrets_no_server_has_together_fails(join: Join) -> None:
    await save(join, flow(("TOK", "KEY")))
    first, second = await join("first", "TOK"), await join("second", "KEY")
    await together(first, second)
    run = await end(first, (await first.execute_flow(flow_id="needy")).run_id)
    assert run.state == "failed"
    assert "No secret" in run.error.message


async def test_an_agent_that_offers_other_tools_now_counts_as_another(join: Join) -> None:
    poor, able = await join(Worker("poor", tool="play")), await join("able")
    await together(poor, able)
    guest = await join("guest", drive=False)
    conductor(able).is_stopping = True  # it takes nothing yet
    run_id = (await guest.execute_flow(workflow_def=flow(()))).run_id
    with anyio.fail_after(30):
        while conductor(poor).handover.declined != [run_id]:
            await anyio.lowlevel.checkpoint()
    poor.add_agents([Worker("poor")])
    assert conductor(poor).handover.declined == []


async def test_a_run_goes_with_its_sub_flow_to_where_the_secret_is(join: Join) -> None:
    await save(join, flow(("TOK",)))
    poor, rich = await join("poor"), await join("rich", "TOK")
    await together(poor, rich)
    part = {"name": "part", "type": "flow", "parameters": {"flow_id": "needy"}}
    run_id = await submit_first(poor, rich, workflow_def={"stages": [{"name": "s", "tasks": [part]}]})
    assert (await end(poor, run_id)).state == "completed"
    ((released,),) = await releases(poor, run_id)
    assert released.endswith("/t1")
