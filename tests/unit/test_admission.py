"""What keeps an attempt from beginning besides busy agents: open circuits and rate limits; never for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.agents.protocol import AttemptContext, TaskCall
from contexten.extensions.flow.definition import Task
from contexten.extensions.flow.errors import AttemptError
from contexten.extensions.flow.execution.admission import circuit_names

if TYPE_CHECKING:
    from tests.unit.conftest import EndOf, FakeClock

pytestmark = pytest.mark.anyio


class Worker:
    """Works while it is up; notes when it was asked."""

    agent_type = "worker"

    def __init__(self, name: str, clock: FakeClock, *tools: str, capacity: int = 10, kind: str = "network") -> None:
        self.name = name
        self.tools = tools
        self.capacity = capacity
        self.is_up = True
        self.kind = kind
        self.asked: list[float] = []
        self._clock = clock
        self._marks: dict[int, anyio.Event] = {}

    async def run(self, task: TaskCall, context: AttemptContext) -> str:
        self.asked.append(self._clock.monotonic())
        self._marks.setdefault(len(self.asked), anyio.Event()).set()
        if not self.is_up:
            raise AttemptError("it is down", kind=self.kind)
        return self.name

    async def was_asked(self, times: int) -> None:
        """Wait until it was asked that often."""
        with anyio.fail_after(30):
            await self._marks.setdefault(times, anyio.Event()).wait()


def job(name: str = "job", tool: str = "api", **fields: Any) -> dict[str, Any]:
    return {"name": name, "type": "t", "required_tools": [tool], "retry": {"max_attempts": 1}, **fields}


def flow(*tasks: dict[str, Any]) -> dict[str, Any]:
    stage = {"name": "only", "execution_mode": "parallel", "continue_on_task_failure": True, "tasks": list(tasks)}
    return {"stages": [stage]}


@pytest.fixture
def settings(settings: FlowSettings) -> FlowSettings:
    return settings.model_copy(update={"circuit_failures": 5})


async def fail_five_times(flows: FlowService, end_of: EndOf, tool: str = "api") -> str:
    """Open a circuit; answers the run whose failure did it."""
    for _ in range(5):
        run = await end_of(flows, (await flows.execute_flow(workflow_def=flow(job(tool=tool)))).run_id)
        assert run.failed_tasks == ["job"]
    return run.run_id


async def settle(flows: FlowService) -> None:
    """Let everything under way come to rest; commits happen in another thread."""
    for _ in range(3):
        await flows._store.write(lambda tx: None)  # after all that was submitted before
        await flows.metrics()
        await anyio.wait_all_tasks_blocked()


async def until_held(flows: FlowService, run_id: str) -> None:
    """Wait until the run's first task is held up: that is no event."""
    with anyio.fail_after(30):
        while not ((await flows.get_run(run_id, detail="tasks")).tasks or [])[0].reason:
            await anyio.lowlevel.checkpoint()


async def test_what_fails_in_a_row_is_left_alone_and_says_so(
    settings: FlowSettings, clock: FakeClock, end_of: EndOf
) -> None:
    worker = Worker("only", clock, "api")
    worker.is_up = False
    async with FlowService(settings, agents=[worker], clock=clock) as flows:
        culprit = await fail_five_times(flows, end_of)
        opened = [event for event in await flows.events(culprit) if event.type == "task.circuit_opened"]
        worker.is_up = True
        run = await flows.execute_flow(workflow_def=flow(job()))
        await settle(flows)
        why = await flows.explain(run_id=run.run_id)
        (task,) = (await flows.get_run(run.run_id, detail="tasks")).tasks or []
        shown = await flows.agents()
        assert len(worker.asked) == 5
        await clock.advance(30)
        ended = await end_of(flows, run.run_id)
        closed = [event for event in await flows.events(run.run_id) if event.type == "task.circuit_closed"]
        after = await flows.agents()
    until = "2030-01-01T00:00:30.000+00:00"
    assert [event.details for event in opened] == [{"agent": "only", "until": until}, {"tool": "api", "until": until}]
    assert why.waiting_for == [f"job: circuit of tool api open until {until}"]
    assert (task.state, task.reason) == ("pending", f"circuit of tool api open until {until}")
    circuit = shown.agents[0].circuit
    assert circuit is not None
    assert (circuit.state, circuit.until) == ("open", until)
    assert [tool.circuit is not None for tool in shown.tools if tool.name == "api"] == [True]
    assert ended.state == "completed"
    assert [event.details for event in closed] == [{"agent": "only"}, {"tool": "api"}]
    assert after.agents[0].circuit is None


async def test_while_an_agents_circuit_is_open_another_able_one_works(
    settings: FlowSettings, clock: FakeClock, end_of: EndOf
) -> None:
    bad, good = Worker("bad", clock, "api"), Worker("good", clock, "api", capacity=1)
    bad.is_up = False
    async with FlowService(settings, agents=[bad], clock=clock) as flows:
        await fail_five_times(flows, end_of)
        await clock.advance(30)  # the tool's circuit is half-open now, and so is the agent's
        flows.add_agents([good])
        probe = await end_of(flows, (await flows.execute_flow(workflow_def=flow(job()))).run_id)
        assert probe.failed_tasks == ["job"]  # it went to the first agent, which is still down
        for _ in range(3):
            run = await end_of(flows, (await flows.execute_flow(workflow_def=flow(job()))).run_id)
            assert run.output == {"job": "good"}
    assert len(bad.asked) == 6


async def test_failures_of_one_of_several_agents_do_not_speak_against_the_tool(
    settings: FlowSettings, clock: FakeClock, end_of: EndOf
) -> None:
    bad, good = Worker("bad", clock, "api", capacity=100), Worker("good", clock, "api")
    bad.is_up = False
    async with FlowService(settings, agents=[bad, good], clock=clock) as flows:
        flows.registry.placement = lambda loads: next((i for i, load in enumerate(loads) if load.name == "bad"), 0)
        await fail_five_times(flows, end_of)
        run = await end_of(flows, (await flows.execute_flow(workflow_def=flow(job()))).run_id)
    assert run.output == {"job": "good"}


async def test_a_built_in_tool_that_fails_leaves_the_other_tools_alone(
    settings: FlowSettings, clock: FakeClock, end_of: EndOf
) -> None:
    reachable = FlowSettings(**{**settings.model_dump(), "allow_hosts": "127.0.0.1:9"})
    call = {"name": "call", "required_tools": ["http_client"], "parameters": {"url": "http://127.0.0.1:9/"}}
    both = {**call, "required_tools": ["http_client", "json_parser"], "retry": {"max_attempts": 1}}
    parse = {"name": "parse", "required_tools": ["json_parser"], "parameters": {"text": "[1]"}}
    async with FlowService(reachable, clock=clock) as flows:
        for _ in range(5):
            await end_of(flows, (await flows.execute_flow(workflow_def=flow(both))).run_id)
        opened = [event for event in await flows.events() if event.type == "task.circuit_opened"]
        run = await end_of(flows, (await flows.execute_flow(workflow_def=flow(parse))).run_id)
    assert run.output == {"parse": [1]}
    assert [event.details for event in opened] == [
        {"tool": "http_client at 127.0.0.1:9", "until": "2030-01-01T00:00:30.000+00:00"}
    ]


async def test_a_task_is_held_for_one_open_time_and_one_probe_at_most(
    settings: FlowSettings, clock: FakeClock, end_of: EndOf
) -> None:
    worker = Worker("only", clock, "api")
    worker.is_up = False
    async with FlowService(settings, agents=[worker], clock=clock) as flows:
        await fail_five_times(flows, end_of)
        run = await flows.execute_flow(workflow_def=flow(job("a"), job("b"), job("c")))
        await settle(flows)
        await clock.advance(30)
        await worker.was_asked(6)
        await settle(flows)
        assert len(worker.asked) == 6  # one probe, which fails: the circuit is open for a minute more
        await clock.advance(29)
        assert len(worker.asked) == 6
        await clock.advance(1)
        ended = await end_of(flows, run.run_id)
    assert worker.asked[5:] == [30, 60, 60]
    assert ended.failed_tasks == ["a", "b", "c"]


async def test_a_retry_that_a_circuit_holds_up_is_retrying_with_the_reason(
    settings: FlowSettings, clock: FakeClock, end_of: EndOf
) -> None:
    worker = Worker("only", clock, "api")
    worker.is_up = False
    patient = job(retry={"max_attempts": 6, "delay_s": 0})
    async with FlowService(settings, agents=[worker], clock=clock) as flows:
        run = await flows.execute_flow(workflow_def=flow(patient))
        await worker.was_asked(5)
        await until_held(flows, run.run_id)
        why = await flows.explain(run_id=run.run_id)
        (task,) = (await flows.get_run(run.run_id, detail="tasks")).tasks or []
        worker.is_up = True
        await clock.advance(30)
        ended = await end_of(flows, run.run_id)
    assert task.state == "retrying"
    assert why.waiting_for == ["job: circuit of tool api open until 2030-01-01T00:00:30.000+00:00"]
    assert ended.state == "completed"


async def test_a_run_that_a_circuit_holds_up_can_be_cancelled(
    settings: FlowSettings, clock: FakeClock, end_of: EndOf
) -> None:
    worker = Worker("only", clock, "api")
    worker.is_up = False
    async with FlowService(settings, agents=[worker], clock=clock) as flows:
        await fail_five_times(flows, end_of)
        run = await flows.execute_flow(workflow_def=flow(job()))
        await settle(flows)
        await flows.control(run.run_id, "cancel")
        assert (await end_of(flows, run.run_id)).state == "cancelled"


async def test_a_restart_forgets_circuits(settings: FlowSettings, clock: FakeClock, end_of: EndOf) -> None:
    worker = Worker("only", clock, "api")
    worker.is_up = False
    async with FlowService(settings, agents=[worker], clock=clock) as flows:
        await fail_five_times(flows, end_of)
        run = await flows.execute_flow(workflow_def=flow(job()))
        await settle(flows)
    worker.is_up = True
    async with FlowService(settings, agents=[worker], clock=clock) as flows:
        assert (await end_of(flows, run.run_id)).state == "completed"


async def test_a_limited_tool_is_asked_no_more_often_than_its_rate(
    settings: FlowSettings, clock: FakeClock, end_of: EndOf
) -> None:
    limited = FlowSettings(**{**settings.model_dump(), "rate_limits": "api=2/10s"})
    worker = Worker("only", clock, "api", "free")
    async with FlowService(limited, agents=[worker], clock=clock) as flows:
        run = await flows.execute_flow(workflow_def=flow(*(job(f"t{i}") for i in range(5))))
        await worker.was_asked(2)
        await settle(flows)
        why = await flows.explain(run_id=run.run_id)
        shown = await flows.agents()
        free = await end_of(flows, (await flows.execute_flow(workflow_def=flow(job(tool="free")))).run_id)
        for times in (4, 5, 6):
            await clock.advance(5)
            await worker.was_asked(times)
        ended = await end_of(flows, run.run_id)
    assert [at for at in worker.asked if at > 0] == [5, 10, 15]
    assert len(worker.asked) == 6
    assert why.waiting_for is not None
    assert why.waiting_for[0] == "t2: rate limit of tool api until 2030-01-01T00:00:05.000+00:00"
    assert shown.agents[0].running == 0  # what waits for a token holds no place
    assert [tool.rate_limit for tool in shown.tools if tool.name == "api"] == ["2/10s"]
    assert (free.state, ended.state) == ("completed", "completed")


async def test_a_retry_takes_a_token_like_any_attempt(settings: FlowSettings, clock: FakeClock, end_of: EndOf) -> None:
    limited = FlowSettings(**{**settings.model_dump(), "rate_limits": {"api": "1/10s"}})
    worker = Worker("only", clock, "api", kind="odd")
    worker.is_up = False
    async with FlowService(limited, agents=[worker], clock=clock) as flows:
        run = await flows.execute_flow(workflow_def=flow(job(retry={"max_attempts": 2, "delay_s": 0})))
        await worker.was_asked(1)
        await until_held(flows, run.run_id)
        await clock.advance(9)
        assert len(worker.asked) == 1
        await clock.advance(1)
        await end_of(flows, run.run_id)
    assert worker.asked == [0, 10]


async def test_items_of_a_for_each_wait_for_tokens_too(settings: FlowSettings, clock: FakeClock, end_of: EndOf) -> None:
    limited = FlowSettings(**{**settings.model_dump(), "rate_limits": "api=1/1s"})
    worker = Worker("only", clock, "api")
    async with FlowService(limited, agents=[worker], clock=clock) as flows:
        run = await flows.execute_flow(workflow_def=flow(job(for_each="{{ [1, 2, 3] }}")))
        for times in (1, 2, 3):
            await worker.was_asked(times)
            await clock.advance(1)
        ended = await end_of(flows, run.run_id)
    assert ended.output == {"job": ["only"] * 3}
    assert worker.asked == [0, 1, 2]


@pytest.mark.parametrize(
    ("url", "names"),
    [
        ("https://api.example.com/x", ("http_client at api.example.com", "json_parser")),
        (
            "https://me:pass@api.example.com:8443/{{ inputs.path }}",
            ("http_client at api.example.com:8443", "json_parser"),
        ),
        ("https://{{ inputs.host }}/x", ("json_parser",)),
        ("https://api.{{ inputs.zone }}", ("json_parser",)),
        (None, ("json_parser",)),
    ],
)
def test_calls_to_one_host_have_a_circuit_of_their_own(url: str | None, names: tuple[str, ...]) -> None:
    task = Task(name="a", required_tools=("http_client", "json_parser"), parameters={"url": url})
    assert circuit_names(task, task.required_tools) == names
    assert circuit_names(task, ("json_parser",)) == ("json_parser",)
