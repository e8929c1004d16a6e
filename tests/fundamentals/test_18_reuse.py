"""Reuse: a recorded output serves equal tasks of other runs, for as long as it is good."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.agents.protocol import AttemptContext, TaskCall
from contexten.extensions.flow.errors import AttemptError

pytestmark = pytest.mark.anyio


class Fetcher:
    """An agent that counts what it is asked to fetch."""

    name = "fetcher"
    agent_type = "test"
    tools = ("fetch",)
    capacity = 10

    def __init__(self) -> None:
        self.fetched: list[str] = []
        self.is_down = False

    async def run(self, task: TaskCall, context: AttemptContext) -> Any:
        page = str(task.parameters["page"])
        self.fetched.append(page)
        if self.is_down:
            raise AttemptError("the site is down", kind="network")
        return {"page": page, "text": "x" * task.parameters.get("size", 1)}


def fetch(*, name: str = "get", ttl_s: float = 3600, **fields: Any) -> dict[str, Any]:
    return {
        "name": name,
        "type": "fetching",
        "required_tools": ["fetch"],
        "parameters": {"page": "{{ inputs.page }}"},
        "cache": {"key": "{{ inputs.page }}", "ttl_s": ttl_s},
        "retry": {"max_attempts": 1},
        **fields,
    }


def flow(*tasks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"stages": [{"name": "only", "tasks": list(tasks)}], **fields}


async def test_an_equal_task_of_another_run_is_served_without_an_attempt(settings: FlowSettings) -> None:
    fetcher = Fetcher()
    async with FlowService(settings, agents=[fetcher]) as flows:
        first = await flows.run_flow(workflow_def=flow(fetch()), inputs={"page": "a"})
        other = flow(fetch(name="again"), description="another flow, the same question")
        second = await flows.run_flow(workflow_def=other, inputs={"page": "a"})
        third = await flows.run_flow(workflow_def=flow(fetch()), inputs={"page": "b"})
        events = await flows.events(second.run_id)
        views = (await flows.get_run(second.run_id, detail="tasks")).tasks or []
        metrics = await flows.metrics()
        assert (await flows.verify()).ok
    assert fetcher.fetched == ["a", "b"]
    assert second.output == {"again": {"page": "a", "text": "x"}}
    assert first.output is not None
    assert third.output == {"get": {"page": "b", "text": "x"}}
    assert [event.type for event in events if event.task] == ["task.completed"]
    details = next(event.details for event in events if event.task) or {}
    assert details["cached_from"] == first.run_id
    assert [(view.state, view.attempts) for view in views] == [("completed", 0)]
    assert (metrics.tasks["cache_hits"], metrics.tasks["cache_entries"]) == (1, 2)


async def test_another_type_or_other_tools_are_no_equal_task(settings: FlowSettings) -> None:
    fetcher = Fetcher()
    async with FlowService(settings, agents=[fetcher]) as flows:
        for task in (fetch(), fetch(type="crawling"), fetch(required_tools=["fetch", "fetch"])):
            await flows.run_flow(workflow_def=flow(task), inputs={"page": "a"})
    assert fetcher.fetched == ["a", "a", "a"]


async def test_a_recorded_output_serves_after_a_restart(settings: FlowSettings) -> None:
    before, after = Fetcher(), Fetcher()
    large = fetch(parameters={"page": "{{ inputs.page }}", "size": 100_000})  # kept by reference
    async with FlowService(settings, agents=[before]) as flows:
        await flows.run_flow(workflow_def=flow(large), inputs={"page": "a"})
    async with FlowService(settings, agents=[after]) as flows:
        run = await flows.run_flow(workflow_def=flow(large), inputs={"page": "a"})
    assert (before.fetched, after.fetched) == (["a"], [])
    assert len(run.output["get"]["text"]) == 100_000


async def test_a_failure_serves_nobody(settings: FlowSettings) -> None:
    fetcher = Fetcher()
    fetcher.is_down = True
    async with FlowService(settings, agents=[fetcher]) as flows:
        assert (await flows.run_flow(workflow_def=flow(fetch()), inputs={"page": "a"})).state == "failed"
        fetcher.is_down = False
        assert (await flows.run_flow(workflow_def=flow(fetch()), inputs={"page": "a"})).state == "completed"
        assert (await flows.run_flow(workflow_def=flow(fetch()), inputs={"page": "a"})).state == "completed"
    assert fetcher.fetched == ["a", "a"]


async def test_each_item_has_a_key_of_its_own(settings: FlowSettings) -> None:
    fetcher = Fetcher()
    each = fetch(
        for_each="{{ inputs.pages }}",
        max_parallel=1,
        parameters={"page": "{{ item }}"},
        cache={"key": "{{ item }}", "ttl_s": 60},
    )
    async with FlowService(settings, agents=[fetcher]) as flows:
        await flows.run_flow(workflow_def=flow(each), inputs={"pages": ["a", "b"]})
        run = await flows.run_flow(workflow_def=flow(each), inputs={"pages": ["b", "c", "a", "c"]})
        assert (await flows.verify()).ok
    assert fetcher.fetched == ["a", "b", "c"]
    assert [item["page"] for item in run.output["get"]] == ["b", "c", "a", "c"]


async def test_hits_obey_the_order_and_the_room_of_their_stage(settings: FlowSettings) -> None:
    fetcher = Fetcher()
    pages = [
        fetch(name=f"get_{n}", parameters={"page": f"p{n}"}, cache={"key": f"p{n}", "ttl_s": 60}) for n in range(4)
    ]
    crowd = flow(*pages)
    crowd["stages"][0] |= {"execution_mode": "parallel", "max_parallel": 1}
    async with FlowService(settings, agents=[fetcher]) as flows:
        with anyio.fail_after(30):
            await flows.run_flow(workflow_def=flow(*pages[:2]))
            run = await flows.run_flow(workflow_def=crowd)
    assert fetcher.fetched == ["p0", "p1", "p2", "p3"]
    assert run.state == "completed"


async def test_a_key_that_cannot_be_made_fails_the_task(settings: FlowSettings) -> None:
    fetcher = Fetcher()
    bad = fetch(cache={"key": "{{ inputs.nothing }}", "ttl_s": 60})
    async with FlowService(settings, agents=[fetcher]) as flows:
        run = await flows.run_flow(workflow_def=flow(bad), inputs={"page": "a"})
    assert run.state == "failed"
    assert run.error is not None
    assert (run.error.kind, "inputs.nothing" in run.error.message) == ("invalid", True)
    assert fetcher.fetched == []
