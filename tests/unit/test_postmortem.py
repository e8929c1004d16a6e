"""A failed run tells its cause, what its flow's history knows of it, and calls that really mend it."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.agents.protocol import AttemptContext, TaskCall
from contexten.extensions.flow.errors import AttemptError
from contexten.extensions.flow.views import Explanation

if TYPE_CHECKING:
    from tests.unit.conftest import EndOf, FakeClock

pytestmark = pytest.mark.anyio


class Shaky:
    """Fails the first attempts of each run."""

    name = "shaky"
    agent_type = "test"
    tools = ("shaky",)
    capacity = 10

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.failures = 1

    async def run(self, task: TaskCall, context: AttemptContext) -> str:
        if context.attempt <= self.failures:
            raise AttemptError("not now", kind=self.kind, details={"timeout_s": "an agent's own"})
        return "fine"


def flow(**fields: Any) -> dict[str, Any]:
    job = {"name": "job", "type": "t", "required_tools": ["shaky"], **fields}
    before = {"name": "before", "required_tools": ["json_parser"], "parameters": {"text": "1"}}
    return {"id": "shaky", "stages": [{"name": "only", "tasks": [before, job]}]}


async def call(flows: FlowService, text: str) -> Any:
    """Make a call as an explanation words it."""
    node = ast.parse(text, mode="eval").body
    assert isinstance(node, ast.Call)
    assert isinstance(node.func, ast.Name)
    given = {word.arg: ast.literal_eval(word.value) for word in node.keywords if word.arg is not None}
    if node.func.id == "control_flow":
        return await flows.control(**given)
    if node.func.id == "update_flow":
        return await flows.update_flow(**given)
    if node.func.id == "execute_flow":
        return await flows.execute_flow(**given)
    if node.func.id == "get_flow_status":
        return await flows.get_run(**given)
    assert node.func.id == "explain_flow"
    return await flows.explain(**given)


async def failed(flows: FlowService, end_of: EndOf, definition: dict[str, Any] | None = None) -> Explanation:
    request: dict[str, Any] = {"flow_id": "shaky"} if definition is None else {"workflow_def": definition}
    run = await end_of(flows, (await flows.execute_flow(**request)).run_id)
    assert run.state == "failed"
    return await flows.explain(run_id=run.run_id)


async def test_a_failure_that_a_retry_mended_before_is_known(settings: FlowSettings, end_of: EndOf) -> None:
    agent = Shaky("network")
    async with FlowService(settings, agents=[agent]) as flows:
        definition = flow(retry={"max_attempts": 2, "delay_s": 0})
        for _ in range(3):
            await end_of(flows, (await flows.execute_flow(workflow_def=definition)).run_id)
        agent.failures = 9
        why = await failed(flows, end_of)
    assert why.failure is not None
    assert why.failure["history"] == {"runs": 3, "failed": 0, "mended_by_retry": 3, "mended_by_rerun": 0}
    assert "3 had the same failure: a retry mended it 3 times" in why.summary
    assert "(after 2 attempts)" in why.summary


async def test_another_kind_of_failure_of_the_same_task_is_another_failure(
    settings: FlowSettings, end_of: EndOf
) -> None:
    agent = Shaky("odd")
    async with FlowService(settings, agents=[agent]) as flows:
        definition = flow(retry={"max_attempts": 2, "delay_s": 0})
        await end_of(flows, (await flows.execute_flow(workflow_def=definition)).run_id)
        agent.failures, agent.kind = 9, "network"
        why = await failed(flows, end_of)
    assert why.failure is not None
    assert why.failure["history"] == {"runs": 1, "failed": 0, "mended_by_retry": 0, "mended_by_rerun": 0}
    assert "None of the flow's 1 other recent runs had this failure." in why.summary


@pytest.mark.parametrize("retry", [None, {"delay_s": 0}, {"max_attempts": 2, "delay_s": 0}])
async def test_where_retries_never_helped_the_first_calls_give_the_task_more_attempts(
    settings: FlowSettings, end_of: EndOf, retry: dict[str, Any] | None
) -> None:
    agent = Shaky("network")
    agent.failures = 100
    patient = settings.model_copy(update={"circuit_failures": 0})
    async with FlowService(patient, agents=[agent]) as flows:
        await failed(flows, end_of, flow(**({"retry": retry} if retry else {})))
        await failed(flows, end_of)
        why = await failed(flows, end_of)
        assert why.next is not None
        tries = (why.failure or {})["attempts"]
        agent.failures = tries if retry else 0  # without a delay of its own, eight attempts would take a minute
        update, retried, again = why.next
        saved = await call(flows, update)
        result = await call(flows, retried)
        run = await end_of(flows, result.run_id)
    assert saved.version == 2
    assert run.output == {"before": 1, "job": "fine"}
    assert again == f"control_flow(run_id={why.run_id!r}, action='retry')"


async def test_a_timeout_is_mended_by_more_time(settings: FlowSettings, end_of: EndOf) -> None:
    agent = Shaky("timeout")
    agent.failures = 9
    async with FlowService(settings, agents=[agent]) as flows:
        why = await failed(flows, end_of, flow(timeout_s=3, retry={"max_attempts": 1}))
        assert why.next is not None
        assert why.next[0] == f"control_flow(run_id={why.run_id!r}, action='retry')"
        await call(flows, why.next[1])
        definition = (await flows.get_flow("shaky")).definition
    assert definition is not None
    assert definition["stages"][0]["tasks"][1]["timeout_s"] == 6


async def test_more_time_is_more_than_recovery_gave(settings: FlowSettings, end_of: EndOf) -> None:
    tried: list[float | None] = []

    async def slow(task: TaskCall, context: AttemptContext) -> str:
        tried.append(context.timeout_s)
        await anyio.sleep_forever()
        return "never"

    job = {"name": "job", "type": "t", "required_tools": ["slow"], "timeout_s": 0.01}
    definition = {"id": "shaky", "stages": [{"name": "only", "tasks": [job | {"retry": {"max_attempts": 2}}]}]}
    async with FlowService(settings, agents=[slow]) as flows:
        why = await failed(flows, end_of, definition)
        for text in (why.next or [])[1:]:
            await call(flows, text)
        saved = (await flows.get_flow("shaky")).definition
    assert saved is not None
    assert saved["stages"][0]["tasks"][0]["timeout_s"] == 2 * max(limit for limit in tried[:2] if limit is not None)
    assert tried[:2] == [0.01, 0.02]


def long_wait(**fields: Any) -> dict[str, Any]:
    """A flow whose one task waits for as many seconds as its input says."""
    wait = {"name": "rest", "type": "wait", "parameters": {"seconds": "{{ inputs.s }}"}}
    return {"id": "shaky", "inputs": {"type": "object"}, "stages": [{"name": "only", "tasks": [wait]}], **fields}


@pytest.mark.parametrize(
    ("called_s", "stated_s", "expected"),
    [
        (None, 0.02, ["update_flow", "control_flow"]),
        (0.02, None, ["control_flow"]),
        (0.02, 0.03, ["update_flow", "control_flow"]),
        (5, 0.02, ["update_flow", "control_flow"]),
    ],
)
async def test_a_run_whose_time_was_up_is_given_more(
    settings: FlowSettings, end_of: EndOf, called_s: float | None, stated_s: float | None, expected: list[str]
) -> None:
    definition = long_wait(**({"context": {"timeout": stated_s}} if stated_s else {}))
    async with FlowService(settings) as flows:
        run = await flows.execute_flow(workflow_def=definition, inputs={"s": 100}, timeout_s=called_s)
        await end_of(flows, run.run_id)
        why = await flows.explain(run_id=run.run_id)
        assert [text.partition("(")[0] for text in why.next or []] == expected
        again = [await call(flows, text) for text in why.next or []][-1]
        ended = await end_of(flows, again.run_id)
        given = (await flows.get_run(again.run_id, detail="definition")).inputs
    assert (why.failure or {})["kind"] == "timeout"
    assert ended.error is not None
    assert "its limit of 0.04 s" in ended.error.message  # twice as long as the first
    assert given is None or given == {"s": 100}


async def test_a_run_whose_time_was_up_goes_on_with_what_was_done(
    settings: FlowSettings, end_of: EndOf, clock: FakeClock
) -> None:
    done: list[str] = []
    has_begun, is_ready = anyio.Event(), anyio.Event()

    async def work(task: TaskCall, context: AttemptContext) -> str:
        if task.name == "second":
            has_begun.set()
            await is_ready.wait()
        done.append(task.name)
        return "done"

    tasks = [{"name": name, "type": "t", "required_tools": ["work"]} for name in ("first", "second")]
    async with FlowService(settings, agents=[work], clock=clock) as flows:
        definition = {"id": "shaky", "stages": [{"name": "only", "tasks": tasks}]}
        run = await flows.execute_flow(workflow_def=definition, timeout_s=50)
        with anyio.fail_after(30):
            await has_begun.wait()
        await clock.advance(50)
        await end_of(flows, run.run_id)
        (text,) = (await flows.explain(run_id=run.run_id)).next or []
        is_ready.set()
        again = await call(flows, text)
        ended = await end_of(flows, again.run_id)
    assert (text.endswith("timeout_s=100.0)"), again.taken_over) == (True, ["first"])
    assert (ended.state, done) == ("completed", ["first", "second"])


async def test_a_newer_version_with_enough_time_is_just_retried(settings: FlowSettings, end_of: EndOf) -> None:
    async with FlowService(settings) as flows:
        definition = long_wait(context={"timeout": 0.02})
        run = await flows.execute_flow(workflow_def=definition, inputs={"s": 0.03})
        await end_of(flows, run.run_id)
        await flows.update_flow("shaky", workflow_def=long_wait())
        (text,) = (await flows.explain(run_id=run.run_id)).next or []
        ended = await end_of(flows, (await call(flows, text)).run_id)
    assert ended.state == "completed"


async def test_a_run_that_never_started_names_what_it_depended_on(settings: FlowSettings, end_of: EndOf) -> None:
    agent = Shaky("invalid")
    after = {"id": "after", "stages": [{"name": "only", "tasks": [{"name": "t", **PARSE}]}]}
    async with FlowService(settings, agents=[agent]) as flows:
        first = await end_of(flows, (await flows.execute_flow(workflow_def=flow())).run_id)
        run = await flows.execute_flow(workflow_def=after, dependencies=["shaky"])
        await end_of(flows, run.run_id)
        why = await flows.explain(run_id=run.run_id)
        look, retry = why.next or []
        cause = await call(flows, look)
        ended = await end_of(flows, (await call(flows, retry)).run_id)
    assert why.failure is not None
    assert why.failure["kind"] == "dependency_failed"
    assert why.failure["dependencies"] == [{"id": "shaky", "run_id": first.run_id, "state": "failed"}]
    assert (cause.run_id, cause.failure["root_task"]) == (first.run_id, "job")
    assert ended.state == "completed"


PARSE = {"required_tools": ["json_parser"], "parameters": {"text": "{}"}}
FIRST = {"name": "first", **PARSE}
SECOND = {"name": "second", **PARSE}
SECOND_PATH = "/stages/0/tasks/1"
NO_CHECK = "{{ tasks.first.output.none }}"


@pytest.mark.parametrize(
    ("definition", "paths"),
    [
        (
            {
                "stages": [
                    {"name": "a", "tasks": [FIRST]},
                    {"name": "b", "when": "tasks.first.output.none > 1", "tasks": [SECOND]},
                ]
            },
            ["/stages/1/when"],
        ),
        (
            {"stages": [{"name": "a", "tasks": [FIRST, {**SECOND, "when": "tasks.first.output"}]}]},
            [f"{SECOND_PATH}/when"],
        ),
        (
            {"stages": [{"name": "a", "tasks": [FIRST, {**SECOND, "for_each": "tasks.first.output"}]}]},
            [f"{SECOND_PATH}/for_each"],
        ),
        (
            {"stages": [{"name": "a", "tasks": [FIRST, {**SECOND, "for_each": NO_CHECK}]}]},
            [f"{SECOND_PATH}/for_each"],
        ),
        (
            {"stages": [{"name": "a", "tasks": [FIRST, {**SECOND, "parameters": {"text": NO_CHECK}}]}]},
            [f"{SECOND_PATH}/parameters/text"],
        ),
        (
            {"stages": [{"name": "a", "tasks": [FIRST, {**SECOND, "output_schema": {"type": "array"}}]}]},
            [f"{SECOND_PATH}/parameters", f"{SECOND_PATH}/output_schema"],
        ),
        (
            {"stages": [{"name": "a", "tasks": [FIRST]}], "output": {"b/c": ["{{ tasks.first.output }}", NO_CHECK]}},
            ["/output/b~1c/1"],
        ),
    ],
)
async def test_a_patch_is_proposed_where_the_fault_is(
    settings: FlowSettings, end_of: EndOf, definition: dict[str, Any], paths: list[str]
) -> None:
    async with FlowService(settings) as flows:
        why = await failed(flows, end_of, {"id": "shaky", **definition})
        proposed = [text for text in why.next or [] if text.startswith("update_flow")]
        patches = [
            ast.literal_eval(word.value)[0]
            for text in proposed
            for word in ast.parse(text, mode="eval").body.keywords  # type: ignore[attr-defined] # a call
            if word.arg == "patch"
        ]
        assert [patch["path"] for patch in patches] == paths
        mended: dict[str, Any] = {"when": True, "for_each": [1], "text": "1", "parameters": {"text": "[]"}}
        mend = [{**patches[0], "value": mended.get(paths[0].rpartition("/")[2], "done")}]
        await flows.update_flow("shaky", patch=mend)
        ended = await end_of(flows, (await call(flows, (why.next or [""])[-1])).run_id)
    assert (why.failure or {})["kind"] == "invalid"
    assert ended.state == "completed"


async def test_a_task_that_a_crash_cut_off_is_not_given_more_attempts(settings: FlowSettings, end_of: EndOf) -> None:
    agent = Shaky("interrupted")
    async with FlowService(settings, agents=[agent]) as flows:
        once = {"retry": {"max_attempts": 1}}
        why = await failed(flows, end_of, flow(on_interrupt="fail", **once))
        retry, update, again = why.next or []
        assert retry == f"control_flow(run_id={why.run_id!r}, action='retry')"
        assert "the task may run twice" in update
        await call(flows, update)
        saved = (await flows.get_flow("shaky")).definition
        retried = await call(flows, again)
        await end_of(flows, retried.run_id)
        still = await flows.explain(run_id=retried.run_id)
        assert [text.partition("(")[0] for text in still.next or []] == ["control_flow", "get_flow_status"]
        for text in still.next or []:
            await call(flows, text)
    assert saved is not None
    assert saved["stages"][0]["tasks"][1]["on_interrupt"] == "retry"


async def test_an_output_that_grows_too_large_asks_for_an_output_of_the_flows_own(
    settings: FlowSettings, end_of: EndOf
) -> None:
    tasks = [
        {"name": name, "required_tools": ["json_parser"], "parameters": {"text": f'"{"x" * 700}"'}} for name in "ab"
    ]
    small = settings.model_copy(update={"max_output_bytes": 1024})
    async with FlowService(small) as flows:
        why = await failed(flows, end_of, {"id": "shaky", "stages": [{"name": "only", "tasks": tasks}]})
        update, retry = why.next or []
        await call(flows, update.replace("...", "'small'"))
        ended = await end_of(flows, (await call(flows, retry)).run_id)
    assert ended.output == "small"


async def test_where_the_flow_has_a_newer_version_that_one_is_tried(settings: FlowSettings, end_of: EndOf) -> None:
    agent = Shaky("invalid")
    async with FlowService(settings, agents=[agent]) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=flow())).run_id)
        await flows.update_flow("shaky", workflow_def=flow(description="mended"))
        why = await flows.explain(run_id=run.run_id)
    assert (why.next or [""])[0] == f"control_flow(run_id={run.run_id!r}, action='retry', version=2)"


async def test_a_failed_sub_flow_sends_to_its_own_run(settings: FlowSettings, end_of: EndOf) -> None:
    agent = Shaky("invalid")
    outer = {"stages": [{"name": "s", "tasks": [{"name": "sub", "type": "flow", "parameters": {"flow_id": "shaky"}}]}]}
    async with FlowService(settings, agents=[agent]) as flows:
        await flows.create_flow(workflow_def=flow())
        run = await end_of(flows, (await flows.execute_flow(workflow_def=outer)).run_id)
        why = await flows.explain(run_id=run.run_id)
        inner = await call(flows, (why.next or [""])[0])
    assert inner.failure["root_task"] == "job"
    assert f"The sub-flow's run {inner.run_id} failed: not now" in why.summary


async def test_of_a_for_each_the_item_that_failed_is_the_root(settings: FlowSettings, end_of: EndOf) -> None:
    async def each(task: TaskCall, context: AttemptContext) -> int:
        if context.item_index == 2:
            raise AttemptError("the third", kind="network")
        return 1

    job = {"name": "job", "type": "t", "required_tools": ["each"], "for_each": "{{ [1, 2, 3] }}"}
    definition = {"stages": [{"name": "only", "tasks": [job | {"retry": {"max_attempts": 2, "delay_s": 0}}]}]}
    async with FlowService(settings, agents=[each]) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=definition)).run_id)
        why = await flows.explain(run_id=run.run_id)
    assert why.failure is not None
    assert (why.failure["root_task"], why.failure["item"], why.failure["attempts"]) == ("job", 2, 2)
    assert why.failure["message"] == "the third"


@pytest.mark.parametrize("retry", [None, {"delay_s": 0}])
async def test_more_attempts_are_twice_those_of_this_process(
    settings: FlowSettings, end_of: EndOf, retry: dict[str, Any] | None
) -> None:
    agent = Shaky("network")
    agent.failures = 100
    keen = settings.model_copy(update={"circuit_failures": 0, "max_retries": 2})
    async with FlowService(keen, agents=[agent]) as flows:
        await failed(flows, end_of, flow(**({"retry": retry} if retry else {})))
        await failed(flows, end_of)
        why = await failed(flows, end_of)
        assert (why.failure or {})["attempts"] == 3
        assert why.next is not None
        await call(flows, why.next[0])
        definition = (await flows.get_flow("shaky")).definition or {}
    assert definition["stages"][0]["tasks"][1]["retry"]["max_attempts"] == 6
