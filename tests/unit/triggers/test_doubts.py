"""What is probably not meant so is said when a trigger is made or changed, and it is saved all the same."""

from __future__ import annotations

from typing import Any

import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.actor import PYTHON

pytestmark = pytest.mark.anyio

FLOW: dict[str, Any] = {"stages": [{"name": "only", "tasks": [{"name": "note", "type": "note"}]}]}
TEXT = {"type": "string"}
OF_TITLE = {"type": "object", "required": ["title"], "properties": {"title": TEXT}}
OF_EVENT = {"type": "object", "required": ["event"], "properties": {"event": {"type": "object"}}}


async def doubts(settings: FlowSettings, inputs: dict[str, Any] | None, schema: dict[str, Any] | None) -> Any:
    async with FlowService(settings, drive=False) as flows:
        await flows.create_flow(workflow_def={**FLOW, **({"inputs": schema} if schema else {})}, flow_id="target")
        made = await flows.triggers.create(flow_id="target", kind="webhook", inputs=inputs, actor=PYTHON)
    return [(one.code, one.path, one.suggestion) for one in made.warnings or ()]


MISSING = ("missing_input", "/inputs", None)


@pytest.mark.parametrize(
    ("inputs", "schema", "told"),
    [
        (None, OF_TITLE, [MISSING]),
        ({}, OF_TITLE, [MISSING]),
        (
            {"titel": "a"},
            OF_TITLE,
            [("undeclared_input", "/inputs/titel", "title"), ("missing_input", "/inputs", "title")],
        ),
        ({"title": "{{ event.type }}"}, OF_TITLE, []),
        ({"title": "a"}, {**OF_TITLE, "required": ["title", "undeclared"]}, [MISSING]),
        ({"title": "a"}, {"allOf": [{"type": "object"}], "required": ["other"]}, [MISSING]),
        (None, {**OF_TITLE, "properties": {"title": {**TEXT, "default": "Untitled"}}}, []),
        (None, OF_EVENT, []),
        (
            {"other": 1},
            {**OF_EVENT, "additionalProperties": True},
            [("undeclared_input", "/inputs/other", None), MISSING],
        ),
        (None, {"type": "object", "required": ["event"]}, [MISSING]),
        (None, None, []),
    ],
)
async def test_an_input_that_is_required_and_not_given_is_warned_of(
    settings: FlowSettings, inputs: dict[str, Any] | None, schema: dict[str, Any] | None, told: list[Any]
) -> None:
    assert await doubts(settings, inputs, schema) == told


async def test_the_warning_of_a_missing_input_names_it_and_what_was_given_for_it(settings: FlowSettings) -> None:
    async with FlowService(settings, drive=False) as flows:
        await flows.create_flow(workflow_def={**FLOW, "inputs": OF_TITLE}, flow_id="target")
        made = await flows.triggers.create(flow_id="target", kind="webhook", inputs={"titel": "a"}, actor=PYTHON)
    assert made.warnings is not None
    message = "The flow requires the input 'title', which the trigger does not give; did you mean it by 'titel'?"
    assert made.warnings[1].message == message


async def test_a_flow_that_is_not_there_is_warned_of_where_its_end_is_to_be_heard(settings: FlowSettings) -> None:
    async with FlowService(settings, drive=False) as flows:
        for flow_id in ("target", "nightly-report"):
            await flows.create_flow(workflow_def=FLOW, flow_id=flow_id)
        made = await flows.triggers.create(
            flow_id="target", kind="flow", config={"flow_ids": ["nightly-report", "nightly-reprot", "x"]}, actor=PYTHON
        )
        view = await flows.triggers.get(made.trigger_id)
    assert view.enabled
    assert [(one.code, one.path, one.message, one.suggestion) for one in made.warnings or ()] == [
        (
            "unknown_flow",
            "/config/flow_ids/1",
            "There is no flow 'nightly-reprot'; did you mean 'nightly-report'?",
            "nightly-report",
        ),
        ("unknown_flow", "/config/flow_ids/2", "There is no flow 'x' yet.", None),
    ]


async def test_a_change_is_warned_of_as_a_new_trigger_is(settings: FlowSettings) -> None:
    async with FlowService(settings, drive=False) as flows:
        await flows.create_flow(workflow_def={**FLOW, "inputs": OF_TITLE}, flow_id="target")
        create, update = flows.triggers.create, flows.triggers.update
        await create(flow_id="target", kind="webhook", inputs={"title": "a"}, trigger_id="hook", actor=PYTHON)
        assert (await update("hook", name="Hook", actor=PYTHON)).warnings is None
        changed = await update("hook", inputs={"titel": "a"}, actor=PYTHON)
        made = await create(flow_id="target", kind="webhook", inputs={"titel": "a"}, actor=PYTHON)
        assert [one.code for one in changed.warnings or ()] == ["undeclared_input", "missing_input"]
        assert changed.warnings == made.warnings
        heard = {"flow_ids": ["none"]}
        await create(flow_id="target", kind="flow", config=heard, trigger_id="end", inputs={"title": "a"}, actor=PYTHON)
        [unknown] = (await update("end", enabled=False, actor=PYTHON)).warnings or []
        assert (unknown.code, unknown.path) == ("unknown_flow", "/config/flow_ids/0")


async def test_a_change_of_a_trigger_whose_flow_is_gone_is_made_and_warned_of(settings: FlowSettings) -> None:
    async with FlowService(settings, drive=False) as flows:
        await flows.create_flow(workflow_def=FLOW, flow_id="target")
        await flows.triggers.create(flow_id="target", kind="webhook", trigger_id="hook", actor=PYTHON)
        await flows._store.write(lambda tx: tx.rows("DELETE FROM flow_versions"))
        await flows._store.write(lambda tx: tx.rows("DELETE FROM flows"))
        flows._flows.gone(["target"])
        changed = await flows.triggers.update("hook", enabled=False, actor=PYTHON)
        assert not changed.enabled
        assert [(one.code, one.path) for one in changed.warnings or ()] == [("unknown_flow", "/flow_id")]
