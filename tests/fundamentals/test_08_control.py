"""Anyone may cancel, pause and resume a run, and run it again from where it makes sense."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.agents.protocol import TaskCall
from contexten.extensions.flow.errors import AttemptError, IllegalMove, InvalidArguments, TaskNotFound

if TYPE_CHECKING:
    from tests.fundamentals.conftest import EndOf, Gate

pytestmark = pytest.mark.anyio


def flow(*tasks: dict[str, Any], **stage: Any) -> dict[str, Any]:
    return {"stages": [{"name": "only", "tasks": list(tasks), **stage}]}


def hold(name: str) -> dict[str, Any]:
    return {"name": name, "type": "t", "required_tools": ["gate"]}


class Counting:
    """Counts how often each task ran; those in `broken` fail."""

    tools = ("count",)
    capacity = 10

    def __init__(self, *broken: str) -> None:
        self.broken = set(broken)
        self.ran: list[str] = []

    async def run(self, task: TaskCall) -> dict[str, Any]:
        self.ran.append(task.name)
        if task.name in self.broken:
            raise AttemptError("broken", kind="invalid")
        return {"run": len(self.ran)}


def count(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "type": "t", "required_tools": ["count"], **fields}


async def until(flows: FlowService, run_id: str, state: str) -> None:
    with anyio.fail_after(30):
        while (run := await flows.get_run(run_id)).state != state:
            await flows.wait(run_id, until="change", since=run.cursor)


async def test_cancel_ends_attempts_in_flight_and_leaves_nothing_pending(
    settings: FlowSettings, gate: Gate, end_of: EndOf
) -> None:
    async with FlowService(settings, agents=[gate]) as flows:
        run = await flows.execute_flow(workflow_def=flow(hold("first"), hold("second")))
        with anyio.fail_after(30):
            await gate.reached.wait()
        await flows.control(run.run_id, "cancel", reason="no longer needed")
        ended = await end_of(flows, run.run_id)
        tasks = (await flows.get_run(run.run_id, detail="tasks")).tasks or []
    assert (ended.state, ended.reason) == ("cancelled", "no longer needed")
    assert [task.state for task in tasks] == ["cancelled", "cancelled"]


async def test_an_agent_that_clings_to_life_holds_a_cancelled_run_no_longer_than_the_grace(
    settings: FlowSettings, end_of: EndOf
) -> None:
    reached, let_go = anyio.Event(), anyio.Event()

    async def clings(task: TaskCall) -> None:
        reached.set()
        while not let_go.is_set():
            with suppress(asyncio.CancelledError):
                await let_go.wait()

    short = settings.model_copy(update={"cancel_grace_s": 0.05})
    async with FlowService(short, agents=[clings]) as flows:
        run = await flows.execute_flow(workflow_def=flow({"name": "a", "type": "t", "required_tools": ["clings"]}))
        with anyio.fail_after(30):
            await reached.wait()
        await flows.control(run.run_id, "cancel")
        assert (await end_of(flows, run.run_id)).state == "cancelled"
        let_go.set()


async def test_a_cancelled_run_is_never_resumed_but_may_be_cancelled_again(settings: FlowSettings) -> None:
    wait = {"name": "later", "type": "wait", "parameters": {"seconds": 3600}}
    async with FlowService(settings) as flows:
        run = await flows.execute_flow(workflow_def=flow(wait))
        await until(flows, run.run_id, "waiting")
        assert (await flows.control(run.run_id, "cancel")).state == "cancelled"
        assert (await flows.control(run.run_id, "cancel")).state == "cancelled"
        with pytest.raises(IllegalMove, match="has ended"):
            await flows.control(run.run_id, "resume")


async def test_pause_lets_attempts_in_flight_finish_and_starts_none(
    settings: FlowSettings, gate: Gate, end_of: EndOf
) -> None:
    async with FlowService(settings, agents=[gate]) as flows:
        run = await flows.execute_flow(workflow_def=flow(hold("first"), hold("second")))
        with anyio.fail_after(30):
            await gate.reached.wait()
        pausing = await flows.control(run.run_id, "pause", reason="lunch")
        assert (pausing.state, pausing.note) == ("running", "it pauses when the tasks in flight have ended")
        gate.opened.set()
        await until(flows, run.run_id, "paused")
        assert gate.passed == ["first"]
        await flows.control(run.run_id, "resume")
        assert (await end_of(flows, run.run_id)).state == "completed"
    assert gate.passed == ["first", "second"]


async def test_a_pause_can_be_taken_back_before_it_took_effect(
    settings: FlowSettings, gate: Gate, end_of: EndOf
) -> None:
    async with FlowService(settings, agents=[gate]) as flows:
        run = await flows.execute_flow(workflow_def=flow(hold("first"), hold("second")))
        with anyio.fail_after(30):
            await gate.reached.wait()
        await flows.control(run.run_id, "pause")
        await flows.control(run.run_id, "resume")
        gate.opened.set()
        assert (await end_of(flows, run.run_id)).state == "completed"


async def test_a_waiting_run_can_be_paused_and_keeps_its_time(settings: FlowSettings) -> None:
    wait = {"name": "later", "type": "wait", "parameters": {"seconds": 3600}}
    async with FlowService(settings) as flows:
        run = await flows.execute_flow(workflow_def=flow(wait))
        await until(flows, run.run_id, "waiting")
        before = (await flows.get_run(run.run_id, detail="tasks")).tasks
        assert (await flows.control(run.run_id, "pause")).state == "paused"
        await flows.control(run.run_id, "resume")
        await until(flows, run.run_id, "waiting")
        after = (await flows.get_run(run.run_id, detail="tasks")).tasks
    assert before == after


async def test_retry_makes_a_new_run_that_takes_over_what_was_done(settings: FlowSettings, end_of: EndOf) -> None:
    agent = Counting("second")
    async with FlowService(settings, agents=[agent]) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=flow(count("first"), count("second")))).run_id)
        assert run.state == "failed"
        agent.broken.clear()
        again = await flows.control(run.run_id, "retry")
        ended = await end_of(flows, again.run_id)
    assert (again.rerun_of, again.taken_over) == (run.run_id, ["first"])
    assert ended.output == {"first": {"run": 1}, "second": {"run": 3}}
    assert agent.ran == ["first", "second", "second"]


async def test_retry_does_again_what_depends_on_a_task_that_runs_again(settings: FlowSettings, end_of: EndOf) -> None:
    agent = Counting("load")
    definition = flow(count("load"), count("fallback", when="tasks.load.state == 'failed'"), execution_mode="parallel")
    async with FlowService(settings, agents=[agent]) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=definition)).run_id)
        agent.broken.clear()
        ended = await end_of(flows, (await flows.control(run.run_id, "retry")).run_id)
        tasks = {task.name: task.state for task in (await flows.get_run(ended.run_id, detail="tasks")).tasks or []}
    assert tasks == {"load": "completed", "fallback": "skipped"}


async def test_rerun_from_does_a_task_and_what_comes_after_it_again(settings: FlowSettings, end_of: EndOf) -> None:
    agent = Counting()
    definition = flow(count("first"), count("second"), count("third"))
    async with FlowService(settings, agents=[agent]) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=definition)).run_id)
        again = await flows.control(run.run_id, "rerun_from", task="second")
        await end_of(flows, again.run_id)
    assert again.taken_over == ["first"]
    assert agent.ran == ["first", "second", "third", "second", "third"]


async def test_a_failed_run_can_be_retried_on_a_mended_version(settings: FlowSettings, end_of: EndOf) -> None:
    bad = {"name": "parse", "required_tools": ["json_parser"], "parameters": {"text": "{"}}
    async with FlowService(settings) as flows:
        saved = await flows.create_flow(
            flow_id="mend", workflow_def=flow({"name": "load", "parameters": {"v": 1}}, bad)
        )
        run = await end_of(flows, (await flows.execute_flow(flow_id=saved.flow_id)).run_id)
        patch = [{"op": "replace", "path": "/stages/0/tasks/1/parameters/text", "value": "[1]"}]
        mended = await flows.update_flow("mend", patch=patch)
        again = await flows.control(run.run_id, "retry", version=mended.version)
        ended = await end_of(flows, again.run_id)
    assert again.taken_over == ["load"]
    assert (ended.version, ended.output["parse"]) == (2, [1])


async def test_what_makes_no_sense_is_refused_with_what_to_do(settings: FlowSettings, end_of: EndOf) -> None:
    async with FlowService(settings) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=flow({"name": "one"}))).run_id)
        with pytest.raises(IllegalMove, match="nothing to retry") as caught:
            await flows.control(run.run_id, "retry")
        assert "rerun_from" in (caught.value.next or "")
        with pytest.raises(InvalidArguments, match="needs a task"):
            await flows.control(run.run_id, "rerun_from")
        with pytest.raises(TaskNotFound):
            await flows.control(run.run_id, "rerun_from", task="nope")
        with pytest.raises(IllegalMove, match="has ended"):
            await flows.control(run.run_id, "pause")
