"""A failed run tells its cause, what its flow's history knows of it, and calls that really mend it."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.agents.protocol import AttemptContext, TaskCall
from contexten.extensions.flow.errors import AttemptError
from contexten.extensions.flow.views import Explanation

if TYPE_CHECKING:
    from tests.unit.conftest import EndOf

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
            raise AttemptError("not now", kind=self.kind)
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
