"""A run whose first moves were drafted together with its submission, and that was queued all the same."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.agents.protocol import TaskCall

pytestmark = pytest.mark.anyio


class Narrow:
    """An agent with fewer places than the for_each has items."""

    tools = ("narrow",)
    capacity = 2

    async def run(self, task: TaskCall) -> Any:
        return task.parameters["value"]


FAN = {
    "stages": [
        {
            "name": "only",
            "tasks": [
                {
                    "name": "each",
                    "type": "t",
                    "required_tools": ["narrow"],
                    "for_each": "{{ inputs.values }}",
                    "parameters": {"value": "{{ item }}"},
                }
            ],
        }
    ]
}


async def test_a_run_that_could_not_start_at_once_takes_no_turn_before_it_is_claimed(settings: FlowSettings) -> None:
    limited = settings.model_copy(update={"flow_limits": {"another": 5.0}})  # a limit: no start with the submission
    async with FlowService(limited, agents=[Narrow()]) as flows:
        first = await flows.execute_flow(workflow_def=FAN, inputs={"values": [1]})
        await flows.wait(first.run_id)  # the queue is known to be empty now
        run = await flows.execute_flow(workflow_def=FAN, inputs={"values": list(range(7))})
        with anyio.fail_after(30):
            await flows.wait(run.run_id)
        events = await flows.events(run.run_id)
        ended = await flows.get_run(run.run_id, detail="output")
        report = await flows.verify()
    types = [event.type for event in events]
    assert types[:3] == ["run.scheduled", "run.running", "task.running"]
    assert types.count("task.running") == 8
    assert not {"run.lease_taken", "run.released"} & set(types)
    assert ended.output == {"each": list(range(7))}
    assert report.ok
