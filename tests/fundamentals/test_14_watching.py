"""Every change is an event with a cursor: who did what and when, what is new, why it is so."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.actor import Actor
from contexten.extensions.flow.live.watching import Change

if TYPE_CHECKING:
    from tests.fundamentals.conftest import EndOf, Gate

pytestmark = pytest.mark.anyio

HOLD = {"name": "hold", "type": "t", "required_tools": ["gate"]}


def flow(*tasks: dict[str, Any]) -> dict[str, Any]:
    return {"stages": [{"name": "only", "tasks": list(tasks)}]}


async def test_the_journal_tells_a_runs_story_and_who_asked_for_it(settings: FlowSettings, end_of: EndOf) -> None:
    claude = Actor(client="claude", transport="stdio", tool="execute_flow")
    async with FlowService(settings) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=flow({"name": "one"}), actor=claude)).run_id)
        events = await flows.events(run.run_id)
    assert [event.type for event in events] == [
        "run.scheduled",
        "run.running",
        "task.running",
        "task.completed",
        "run.completed",
    ]
    assert events[0].actor == "claude/stdio/execute_flow"
    assert all(earlier.at <= later.at for earlier, later in pairwise(events))


async def test_requests_are_in_the_journal_with_their_actor_and_reason(
    settings: FlowSettings, gate: Gate, end_of: EndOf
) -> None:
    async with FlowService(settings, agents=[gate]) as flows:
        run = await flows.execute_flow(workflow_def=flow(HOLD))
        with anyio.fail_after(30):
            await gate.reached.wait()
        await flows.control(run.run_id, "cancel", reason="too dear", actor=Actor(client="anna", transport="http"))
        await end_of(flows, run.run_id)
        asked = next(event for event in await flows.events(run.run_id) if event.type == "run.cancel_requested")
    assert (asked.actor, asked.details) == ("anna/http", {"reason": "too dear"})


async def test_a_cursor_gives_only_what_came_after_it(settings: FlowSettings, gate: Gate, end_of: EndOf) -> None:
    async with FlowService(settings, agents=[gate]) as flows:
        run = await flows.execute_flow(workflow_def=flow({"name": "first", "preferred_agent_type": "tool"}, HOLD))
        with anyio.fail_after(30):
            await gate.reached.wait()
        seen = await flows.get_run(run.run_id, detail="tasks")
        gate.opened.set()
        await end_of(flows, run.run_id)
        tasks = (await flows.get_run(run.run_id, detail="tasks", since=seen.cursor)).tasks or []
        events = (await flows.get_run(run.run_id, detail="events", since=seen.cursor)).events or []
        last = await flows.get_run(run.run_id, detail="events")
        nothing = (await flows.get_run(run.run_id, detail="events", since=last.cursor)).events
    assert [task.name for task in tasks] == ["hold"]
    assert [event.type for event in events] == ["task.completed", "run.completed"]
    assert not nothing


async def test_a_foreign_cursor_is_answered_with_a_snapshot(settings: FlowSettings, end_of: EndOf) -> None:
    async with FlowService(settings) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=flow({"name": "one"}))).run_id)
        answer = await flows.get_run(run.run_id, detail="events", since="000000.3")
    assert answer.reset
    assert len(answer.events or []) == 5


async def test_waiting_until_a_change_answers_with_what_changed(
    settings: FlowSettings, gate: Gate, end_of: EndOf
) -> None:
    async with FlowService(settings, agents=[gate]) as flows:
        run = await flows.execute_flow(workflow_def=flow(HOLD))
        with anyio.fail_after(30):
            await gate.reached.wait()
            before = await flows.get_run(run.run_id)
            gate.opened.set()
            changed = await flows.wait(run.run_id, until="change", since=before.cursor)
        assert next(event.type for event in changed.events or []) == "task.completed"
        await end_of(flows, run.run_id)


async def test_the_end_of_waiting_is_not_the_end_of_the_run(settings: FlowSettings, gate: Gate, end_of: EndOf) -> None:
    async with FlowService(settings, agents=[gate]) as flows:
        run = await flows.execute_flow(workflow_def=flow(HOLD))
        waited = await flows.wait(run.run_id, timeout_s=0.05)
        assert waited.state in ("scheduled", "running")
        assert waited.next_poll_s > 0
        gate.opened.set()
        assert (await end_of(flows, run.run_id)).state == "completed"


async def test_subscribers_hear_of_every_change_after_its_commit(settings: FlowSettings, end_of: EndOf) -> None:
    heard: list[Change] = []
    async with FlowService(settings) as flows:
        stop = flows.subscribe(heard.append)
        run = await end_of(flows, (await flows.execute_flow(workflow_def=flow({"name": "one"}))).run_id)
        stop()
        count = len(heard)
        await end_of(flows, (await flows.execute_flow(workflow_def=flow({"name": "one"}))).run_id)
    types = [type_ for change in heard if change.run_id == run.run_id for type_ in change.types]
    assert types[0] == "run.scheduled"
    assert types[-1] == "run.completed"
    assert len(heard) == count


@pytest.mark.parametrize("run", [anyio.run, lambda main: asyncio.run(main())], ids=["anyio", "asyncio"])
def test_a_subscriber_may_start_tasks_and_is_called_in_its_own_context(
    settings: FlowSettings, run: Callable[[Callable[[], Awaitable[None]]], None]
) -> None:
    user = ContextVar("user", default="nobody")
    users: set[str] = set()

    async def main() -> None:
        completed = anyio.Event()

        async def hear(change: Change) -> None:
            users.add(user.get())
            if change.state == "completed":
                completed.set()

        async with FlowService(settings) as flows, anyio.create_task_group() as group:

            def listen(change: Change) -> None:
                group.start_soon(hear, change)

            user.set("somebody")
            stop = flows.subscribe(listen)
            await flows.execute_flow(workflow_def=flow({"name": "one"}))
            with anyio.fail_after(30):
                await completed.wait()
            stop()

    run(main)
    assert users == {"somebody"}


async def test_explain_says_why_a_run_failed_and_what_to_do(settings: FlowSettings, end_of: EndOf) -> None:
    bad = {"name": "parse", "required_tools": ["json_parser"], "parameters": {"text": "{"}}
    async with FlowService(settings) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=flow(bad, {"name": "after"}))).run_id)
        why = await flows.explain(run_id=run.run_id)
    assert why.summary.startswith("Failed in task parse: invalid")
    assert why.failure is not None
    assert (why.failure["root_task"], why.failure["skipped"]) == ("parse", ["after"])
    assert any("update_flow" in call for call in why.next or [])


async def test_explain_says_what_a_flow_will_do_before_it_runs(settings: FlowSettings) -> None:
    definition = {
        "stages": [
            {"name": "load", "execution_mode": "parallel", "tasks": [{"name": "a", "complexity": 5}, {"name": "b"}]},
            {"name": "join", "tasks": [{"name": "c"}]},
        ]
    }
    async with FlowService(settings) as flows:
        plan = await flows.explain(workflow_def=definition)
    assert plan.plan is not None
    assert plan.plan.waves == [["a", "b"], ["c"]]
    assert plan.critical_path == ["a", "c"]


async def test_an_agent_that_floods_its_log_does_not_flood_the_journal(settings: FlowSettings, end_of: EndOf) -> None:
    async def chatty(task: object, context: Any) -> None:
        for number in range(5000):
            context.log("info", f"{number}" * 5000)

    chat = {"name": "chat", "type": "t", "required_tools": ["chatty"]}
    async with FlowService(settings, agents=[chatty]) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=flow(chat))).run_id)
        lines = [event for event in await flows.events(run.run_id, limit=10_000) if event.type == "task.log"]
    assert run.state == "completed"
    assert len(lines) == 1000
    assert all(line.details is not None and len(line.details["message"]) <= 4000 for line in lines)


async def test_the_figures_count_runs_tasks_and_attempts(settings: FlowSettings, end_of: EndOf) -> None:
    async with FlowService(settings) as flows:
        await end_of(flows, (await flows.execute_flow(workflow_def=flow({"name": "one"}, {"name": "two"}))).run_id)
        metrics = await flows.metrics()
    assert metrics.flows["runs_by_state"] == {"completed": 1}
    assert metrics.flows["success_rate"] == 1.0
    assert metrics.tasks["tasks_by_state"] == {"completed": 2}
    assert metrics.tasks["attempts"] == 2


async def test_journal_and_tables_agree(settings: FlowSettings, gate: Gate, end_of: EndOf) -> None:
    async with FlowService(settings, agents=[gate]) as flows:
        ids = [
            (await flows.execute_flow(workflow_def=flow(HOLD, {"name": "b", "when": "false"}))).run_id for _ in range(5)
        ]
        await flows.control(ids[0], "cancel")
        await flows.control(ids[1], "pause")
        gate.opened.set()
        for run_id in (ids[0], *ids[2:]):
            await end_of(flows, run_id)
        report = await flows.verify()
    assert report.ok, report.problems
    assert report.runs == 5
