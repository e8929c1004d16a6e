"""Flows have versions, a run is pinned to one; an idempotency key makes a request safe to repeat."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.errors import FlowExists, FlowNotFound, IdempotencyConflict, InvalidArguments

if TYPE_CHECKING:
    from tests.fundamentals.conftest import EndOf, Gate

pytestmark = pytest.mark.anyio


def saying(word: str) -> dict[str, Any]:
    return {
        "stages": [
            {"name": "only", "tasks": [{"name": "say", "parameters": {"word": word, "n": "{{ has(inputs.n) }}"}}]}
        ]
    }


async def test_an_update_makes_a_new_version_and_earlier_ones_can_still_be_run(
    settings: FlowSettings, end_of: EndOf
) -> None:
    async with FlowService(settings) as flows:
        await flows.create_flow(flow_id="speech", workflow_def=saying("one"))
        second = await flows.update_flow("speech", workflow_def=saying("two"))
        new = await end_of(flows, (await flows.execute_flow(flow_id="speech")).run_id)
        old = await end_of(flows, (await flows.execute_flow(flow_id="speech", version=1)).run_id)
    assert second.version == 2
    assert (new.version, new.output["say"]["word"]) == (2, "two")
    assert (old.version, old.output["say"]["word"]) == (1, "one")


async def test_an_update_may_be_a_patch(settings: FlowSettings) -> None:
    patch = [{"op": "replace", "path": "/stages/0/tasks/0/parameters/word", "value": "patched"}]
    async with FlowService(settings) as flows:
        await flows.create_flow(flow_id="speech", workflow_def=saying("one"))
        await flows.update_flow("speech", patch=patch)
        definition = (await flows.get_flow("speech")).definition
    assert definition is not None
    assert definition["stages"][0]["tasks"][0]["parameters"]["word"] == "patched"


async def test_a_run_under_way_keeps_its_version(settings: FlowSettings, gate: Gate, end_of: EndOf) -> None:
    first = saying("one")
    first["stages"][0]["tasks"].insert(0, {"name": "hold", "type": "t", "required_tools": ["gate"]})
    async with FlowService(settings, agents=[gate]) as flows:
        await flows.create_flow(flow_id="speech", workflow_def=first)
        run = await flows.execute_flow(flow_id="speech")
        with anyio.fail_after(30):
            await gate.reached.wait()
        await flows.update_flow("speech", workflow_def=saying("two"))
        gate.opened.set()
        ended = await end_of(flows, run.run_id)
    assert (ended.version, ended.state) == (1, "completed")


async def test_the_same_id_with_other_content_is_refused_with_a_pointer_to_update_flow(settings: FlowSettings) -> None:
    async with FlowService(settings) as flows:
        await flows.create_flow(flow_id="speech", workflow_def=saying("one"))
        with pytest.raises(FlowExists) as caught:
            await flows.create_flow(flow_id="speech", workflow_def=saying("two"))
    assert "update_flow" in (caught.value.next or "")


async def test_what_does_not_exist_is_answered_with_the_nearest_name(settings: FlowSettings) -> None:
    async with FlowService(settings) as flows:
        await flows.create_flow(flow_id="speech", workflow_def=saying("one"))
        with pytest.raises(FlowNotFound, match="Did you mean 'speech'"):
            await flows.execute_flow(flow_id="speach")
        with pytest.raises(FlowNotFound, match="has no version 7"):
            await flows.execute_flow(flow_id="speech", version=7)
        with pytest.raises(InvalidArguments, match="either"):
            await flows.update_flow("speech")


async def test_the_same_request_with_a_key_answers_the_same_run(settings: FlowSettings, end_of: EndOf) -> None:
    async with FlowService(settings) as flows:
        await flows.create_flow(flow_id="speech", workflow_def=saying("one"))
        first = await flows.execute_flow(flow_id="speech", idempotency_key="monday", inputs={"n": 1})
        again = await flows.execute_flow(flow_id="speech", idempotency_key="monday", inputs={"n": 1})
        await end_of(flows, first.run_id)
        later = await flows.execute_flow(flow_id="speech", idempotency_key="monday", inputs={"n": 1})
        assert (first.existing, again.existing, later.existing) == (None, True, True)
        assert first.run_id == again.run_id == later.run_id
        with pytest.raises(IdempotencyConflict):
            await flows.execute_flow(flow_id="speech", idempotency_key="monday", inputs={"n": 2})


async def test_a_key_answers_its_run_after_the_flow_has_changed(settings: FlowSettings) -> None:
    async with FlowService(settings) as flows:
        await flows.create_flow(flow_id="speech", workflow_def=saying("one"))
        first = await flows.execute_flow(flow_id="speech", idempotency_key="monday")
        await flows.update_flow("speech", workflow_def=saying("two"))
        again = await flows.execute_flow(flow_id="speech", idempotency_key="monday")
    assert (again.run_id, again.existing) == (first.run_id, True)


async def test_a_definition_that_is_run_at_once_is_saved_but_not_listed(settings: FlowSettings, end_of: EndOf) -> None:
    async with FlowService(settings) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=saying("once"))).run_id)
        assert (await flows.list_flows()).flows == []
        assert (await flows.get_flow(run.flow_id)).definition == saying("once")
