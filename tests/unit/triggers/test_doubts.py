"""What is probably not meant so is said when a trigger is made; the trigger is made all the same."""

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
