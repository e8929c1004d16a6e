"""Recovery in real runs: what each strategy changes about the next attempt, and what survives a restart."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from contexten.extensions.flow import FlowExecutor, FlowService, FlowSettings
from contexten.extensions.flow.agents.protocol import AttemptContext, TaskCall
from contexten.extensions.flow.errors import AttemptError
from contexten.extensions.flow.recovery.context import RecoveryContext
from contexten.extensions.flow.settings import SecretGrant
from contexten.extensions.flow.views import EventView

if TYPE_CHECKING:
    from tests.unit.conftest import EndOf, FakeClock

pytestmark = pytest.mark.anyio


class Worker:
    """An agent that fails as it is told, then works."""

    agent_type = "worker"
    tools = ("work",)

    def __init__(self, name: str, *failures: BaseException, capacity: int = 1) -> None:
        self.name = name
        self.capacity = capacity
        self.failures = list(failures)
        self.timeouts: list[float | None] = []
        self.renewed = 0

    async def run(self, task: TaskCall, context: AttemptContext) -> str:
        self.timeouts.append(context.timeout_s)
        if self.failures:
            raise self.failures.pop(0)
        return self.name

    async def reinitialize(self) -> None:
        self.renewed += 1


def flow(*tasks: dict[str, Any]) -> dict[str, Any]:
    return {"stages": [{"name": "only", "execution_mode": "parallel", "tasks": list(tasks)}]}


def work(**fields: Any) -> dict[str, Any]:
    return {"name": "job", "type": "t", "required_tools": ["work"], **fields}


async def events_of(flows: FlowService, run_id: str, kind: str) -> list[EventView]:
    return [event for event in await flows.events(run_id) if event.type == kind]


async def until_event(flows: FlowService, run_id: str, kind: str, times: int = 1) -> EventView:
    """The entry of the journal, once it is there that often."""
    with anyio.fail_after(30):
        while True:
            run = await flows.get_run(run_id, detail="events")
            found = [event for event in run.events or [] if event.type == kind]
            if len(found) >= times:
                return found[times - 1]
            await flows.wait(run_id, until="change", since=run.cursor)


def did(event: EventView) -> list[str]:
    return list((event.details or {}).get("recovery", []))


async def test_a_timeout_gives_the_next_attempt_more_time(
    settings: FlowSettings, clock: FakeClock, end_of: EndOf
) -> None:
    seen: list[float | None] = []

    async def work_(task: TaskCall, context: AttemptContext) -> str:
        seen.append(context.timeout_s)
        if len(seen) < 3:
            await asyncio.Event().wait()
        return "done"

    task = {"name": "job", "type": "t", "required_tools": ["work_"], "timeout_s": 2, "retry": {"delay_s": 0}}
    async with FlowService(settings, agents=[work_], clock=clock) as flows:
        run = await flows.execute_flow(workflow_def=flow(task))
        for times, limit_s in ((1, 2), (2, 4)):
            await until_event(flows, run.run_id, "task.running", times)
            await anyio.wait_all_tasks_blocked()
            await clock.advance(limit_s)
        await end_of(flows, run.run_id)
        retrying = await events_of(flows, run.run_id, "task.retrying")
    assert seen == [2, 4, 8]
    assert [did(event) for event in retrying] == [
        ["timeout raised from 2 s to 4 s"],
        ["timeout raised from 4 s to 8 s"],
    ]


async def test_a_failing_agent_is_replaced_by_another_able_one(settings: FlowSettings, end_of: EndOf) -> None:
    first, second = Worker("first", RuntimeError("broken")), Worker("second")
    async with FlowService(settings, agents=[first, second]) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=flow(work(retry={"delay_s": 0})))).run_id)
        (retrying,) = await events_of(flows, run.run_id, "task.retrying")
        (task,) = (await flows.get_run(run.run_id, detail="tasks")).tasks or []
    assert run.output == {"job": "second"}
    assert did(retrying) == ["first is avoided"]
    assert task.agent == "second"


async def test_an_agent_without_another_begins_anew(settings: FlowSettings, end_of: EndOf) -> None:
    only = Worker("only", RuntimeError("broken"))
    async with FlowService(settings, agents=[only]) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=flow(work(retry={"delay_s": 0})))).run_id)
        (retrying,) = await events_of(flows, run.run_id, "task.retrying")
    assert only.renewed == 1
    assert did(retrying) == ["only was reinitialised"]


async def test_want_of_resources_closes_caches_and_lowers_concurrency_for_a_while(
    settings: FlowSettings, clock: FakeClock, end_of: EndOf
) -> None:
    worker = Worker("only", MemoryError(), capacity=8)
    async with FlowService(settings, agents=[worker], clock=clock) as flows:
        run = await flows.execute_flow(workflow_def=flow(work(retry={"delay_s": 5, "jitter": 0})))
        retrying = await until_event(flows, run.run_id, "task.retrying")
        lowered = (await flows.agents()).agents[0]
        await anyio.wait_all_tasks_blocked()
        await clock.advance(10)
        await end_of(flows, run.run_id)
        await clock.advance(20)
        restored = (await flows.agents()).agents[0]
    steps = did(retrying)
    assert steps[0] == "caches were closed"
    assert steps[1].startswith("garbage collected")
    assert steps[2:] == ["concurrency lowered to 1", "delay raised from 5 s to 10 s"]
    assert (lowered.lowered_to, lowered.capacity) == (1, 8)
    assert restored.lowered_to is None


async def test_a_network_failure_waits_longer_than_planned(
    settings: FlowSettings, clock: FakeClock, end_of: EndOf
) -> None:
    worker = Worker("only", ConnectionError())
    async with FlowService(settings, agents=[worker], clock=clock) as flows:
        run = await flows.execute_flow(workflow_def=flow(work(retry={"delay_s": 3, "jitter": 0})))
        retrying = await until_event(flows, run.run_id, "task.retrying")
        await anyio.wait_all_tasks_blocked()
        await clock.advance(5.9)
        assert len(worker.timeouts) == 1
        await clock.advance(0.1)
        await end_of(flows, run.run_id)
    assert did(retrying) == ["delay raised from 3 s to 6 s"]
    assert (retrying.details or {})["delay_s"] == 6


async def test_a_rate_limit_waits_as_long_as_the_server_asks(
    settings: FlowSettings, clock: FakeClock, end_of: EndOf
) -> None:
    worker = Worker("only", AttemptError("slow down", kind="rate_limit", details={"retry_after_s": 90}))
    async with FlowService(settings, agents=[worker], clock=clock) as flows:
        run = await flows.execute_flow(workflow_def=flow(work(retry={"delay_s": 1, "jitter": 0})))
        retrying = await until_event(flows, run.run_id, "task.retrying")
        await clock.advance(89)
        assert len(worker.timeouts) == 1
        await clock.advance(2)
        await end_of(flows, run.run_id)
    assert did(retrying) == ["the server asked to wait 90 s", "delay raised from 1 s to 90 s"]


async def test_an_invalid_request_asks_no_strategy(settings: FlowSettings, end_of: EndOf) -> None:
    worker = Worker("only", AttemptError("no", kind="invalid"))
    async with FlowService(settings, agents=[worker]) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=flow(work()))).run_id)
        (failed,) = await events_of(flows, run.run_id, "task.failed")
    assert did(failed) == []
    assert len(worker.timeouts) == 1


async def test_recovery_can_be_switched_off_while_retries_stay(settings: FlowSettings, end_of: EndOf) -> None:
    first, second = Worker("first", RuntimeError("broken")), Worker("second")
    executor = FlowExecutor(retry_delay=0, enable_recovery=False)
    async with FlowService(settings, agents=[first, second], executor=executor) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=flow(work()))).run_id)
        (retrying,) = await events_of(flows, run.run_id, "task.retrying")
    assert run.output == {"job": "first"}
    assert did(retrying) == []


async def test_what_recovery_changed_is_known_after_a_restart(
    settings: FlowSettings, clock: FakeClock, end_of: EndOf
) -> None:
    async def custom(context: RecoveryContext) -> None:
        context.next_timeout_s = 7
        context.avoid_agents.add("first")
        context.delay_s = 50

    first, second = Worker("first", AttemptError("odd", kind="odd")), Worker("second")
    executor = FlowExecutor(recovery_strategies={"odd": custom})
    async with FlowService(settings, agents=[first, second], executor=executor, clock=clock) as flows:
        run = await flows.execute_flow(workflow_def=flow(work(timeout_s=2)))
        await until_event(flows, run.run_id, "task.retrying")
    await clock.advance(60)
    again, other = Worker("first"), Worker("second")
    async with FlowService(settings, agents=[again, other], clock=clock) as flows:
        await anyio.wait_all_tasks_blocked()
        await clock.advance(0.01)
        ended = await end_of(flows, run.run_id)
    assert ended.output == {"job": "second"}
    assert (again.timeouts, other.timeouts) == ([], [7])


async def test_giving_up_fails_the_task_with_the_reason(settings: FlowSettings, end_of: EndOf) -> None:
    worker = Worker("only", AttemptError("odd", kind="odd"))
    executor = FlowExecutor(retry_delay=0, recovery_strategies={"odd": lambda context: {"give_up": "it is gone"}})
    async with FlowService(settings, agents=[worker], executor=executor) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=flow(work()))).run_id)
        (failed,) = await events_of(flows, run.run_id, "task.failed")
    assert run.state == "failed"
    assert (failed.details or {})["reason"] == "it is gone"
    assert did(failed) == ["gave up: it is gone"]


async def test_a_strategy_that_fails_loses_no_task_and_the_journal_says_so(
    settings: FlowSettings, end_of: EndOf
) -> None:
    async def broken(context: RecoveryContext) -> None:
        raise ValueError("a defect")

    worker = Worker("only", AttemptError("odd", kind="odd"))
    executor = FlowExecutor(retry_delay=0, recovery_strategies={"odd": broken})
    async with FlowService(settings, agents=[worker], executor=executor) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=flow(work()))).run_id)
        (line,) = await events_of(flows, run.run_id, "task.log")
    assert run.state == "completed"
    assert (line.details or {})["level"] == "warning"
    assert "a defect" in (line.details or {})["message"]


async def test_a_run_that_is_cancelled_while_a_strategy_works_ends_at_once(
    settings: FlowSettings, end_of: EndOf
) -> None:
    begun = anyio.Event()

    async def slow(context: RecoveryContext) -> None:
        begun.set()
        await asyncio.Event().wait()

    worker = Worker("only", AttemptError("odd", kind="odd"))
    executor = FlowExecutor(retry_delay=0, recovery_strategies={"odd": slow})
    patient = settings.model_copy(update={"cancel_grace_s": 600.0})
    async with FlowService(patient, agents=[worker], executor=executor) as flows:
        run = await flows.execute_flow(workflow_def=flow(work()))
        with anyio.fail_after(30):
            await begun.wait()
        await flows.control(run.run_id, "cancel")
        with anyio.fail_after(20):  # not cancel_grace_s, nor the 30 s that a strategy may take
            ended = await end_of(flows, run.run_id)
    assert ended.state == "cancelled"


async def test_a_strategy_at_work_does_not_keep_others_from_the_agents_place(
    settings: FlowSettings, end_of: EndOf
) -> None:
    begun, go_on = anyio.Event(), anyio.Event()

    async def slow(context: RecoveryContext) -> None:
        begun.set()
        await go_on.wait()

    worker = Worker("only", AttemptError("odd", kind="odd"))
    executor = FlowExecutor(retry_delay=0, recovery_strategies={"odd": slow})
    async with FlowService(settings, agents=[worker], executor=executor) as flows:
        run = await flows.execute_flow(workflow_def=flow(work()))
        with anyio.fail_after(30):
            await begun.wait()
        other = await end_of(flows, (await flows.execute_flow(workflow_def=flow(work()))).run_id)
        go_on.set()
        ended = await end_of(flows, run.run_id)
    assert (other.state, ended.state) == ("completed", "completed")


async def test_a_service_that_stops_while_a_strategy_works_goes_on_with_the_retry(
    settings: FlowSettings, end_of: EndOf
) -> None:
    begun = anyio.Event()

    async def slow(context: RecoveryContext) -> None:
        begun.set()
        await asyncio.Event().wait()

    quick = settings.model_copy(update={"stop_grace_s": 0.05})
    worker = Worker("only", AttemptError("odd", kind="odd"))
    executor = FlowExecutor(retry_delay=0, recovery_strategies={"odd": slow})
    with anyio.fail_after(20):  # not the 30 s that a strategy may take
        async with FlowService(quick, agents=[worker], executor=executor) as flows:
            run = await flows.execute_flow(workflow_def=flow(work()))
            await begun.wait()
    async with FlowService(settings, agents=[worker]) as flows:
        assert (await end_of(flows, run.run_id)).state == "completed"


async def test_what_recovery_says_is_masked(
    settings: FlowSettings, monkeypatch: pytest.MonkeyPatch, end_of: EndOf
) -> None:
    async def tells(context: RecoveryContext) -> dict[str, Any]:
        context.log("info", "the key is hunter2-hunter2")
        context.steps.append("tried hunter2-hunter2")
        return {"give_up": "hunter2-hunter2 is wrong"}

    monkeypatch.setenv("KEY", "hunter2-hunter2")
    open_handed = FlowSettings(**{**settings.model_dump(), "secrets": "KEY"})
    worker = Worker("only", AttemptError("odd", kind="odd"))
    executor = FlowExecutor(retry_delay=0, recovery_strategies={"odd": tells})
    async with FlowService(open_handed, agents=[worker], executor=executor) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=flow(work()))).run_id)
        told = [str(event.details) for event in await flows.events(run.run_id)]
    assert not any("hunter2" in text for text in told)
    assert any("tried" in text for text in told)


async def test_the_settings_say_what_errors_are(settings: FlowSettings, end_of: EndOf) -> None:
    class Odd(Exception):
        pass

    told = FlowSettings(**{**settings.model_dump(), "error_kinds": "Odd=invalid"})
    async with FlowService(told, agents=[Worker("only", Odd())]) as flows:
        by_settings = await end_of(flows, (await flows.execute_flow(workflow_def=flow(work()))).run_id)
    executor = FlowExecutor(retry_delay=0, error_kinds={Odd: "network"})
    async with FlowService(told, agents=[Worker("only", Odd())], executor=executor) as flows:
        by_executor = await end_of(flows, (await flows.execute_flow(workflow_def=flow(work()))).run_id)
        (retrying,) = await events_of(flows, by_executor.run_id, "task.retrying")
    assert by_settings.error is not None
    assert by_settings.error.kind == "invalid"
    assert (retrying.details or {})["kind"] == "network"


async def test_each_item_of_a_for_each_recovers_by_itself(settings: FlowSettings, end_of: EndOf) -> None:
    seen: list[int | None] = []

    def odd(context: RecoveryContext) -> None:
        seen.append(context.item)
        context.next_timeout_s = 9

    limits: dict[Any, list[float | None]] = {}

    async def items(task: TaskCall, context: AttemptContext) -> Any:
        limits.setdefault(context.item_index, []).append(context.timeout_s)
        if context.item_index == 1 and context.attempt == 1:
            raise AttemptError("odd", kind="odd")
        return context.item_index

    task = {"name": "each", "type": "t", "required_tools": ["items"], "for_each": "{{ [1, 2, 3] }}"}
    executor = FlowExecutor(retry_delay=0, recovery_strategies={"odd": odd})
    async with FlowService(settings, agents=[items], executor=executor) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=flow(task))).run_id)
    assert run.output == {"each": [0, 1, 2]}
    assert seen == [1]
    assert limits == {0: [None], 1: [None, 9], 2: [None]}


async def test_a_secret_that_recovery_code_raises_reaches_no_log(
    settings: FlowSettings, end_of: EndOf, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    value = "a-value-that-nobody-may-see"
    monkeypatch.setenv("TOK", value)

    class Leaky(Worker):
        async def reinitialize(self) -> None:
            raise RuntimeError(f"cannot sign in with {value}")

    def strategy(context: RecoveryContext) -> None:
        raise RuntimeError(f"no plan for {value}")

    settings = settings.model_copy(update={"secrets": (SecretGrant(name="TOK"),)})
    agent = Leaky("leaky", RuntimeError("broken"), AttemptError("slow", kind="network"))
    executor = FlowExecutor(retry_delay=0, recovery_strategies={"network": strategy})
    caplog.set_level(logging.DEBUG)
    async with FlowService(settings, agents=[agent], executor=executor) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=flow(work(retry={"delay_s": 0})))).run_id)
    assert run.state == "completed"
    told = [record.getMessage() for record in caplog.records]
    assert any("cannot sign in with [secret:TOK]" in line for line in told)
    assert any("no plan for [secret:TOK]" in line for line in told)
    formatter = logging.Formatter()
    assert not any(value in formatter.format(record) for record in caplog.records)
    assert not any(value in str(vars(record)) for record in caplog.records)
