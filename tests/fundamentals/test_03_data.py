"""Data flows through templates: inputs, the outputs of earlier tasks, the context, the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from contexten.extensions.flow import FlowError, FlowService, FlowSettings

if TYPE_CHECKING:
    from tests.fundamentals.conftest import EndOf

pytestmark = pytest.mark.anyio


def flow(*tasks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"stages": [{"name": "only", "tasks": list(tasks)}], **fields}


async def test_a_template_hands_the_output_of_one_task_to_another(settings: FlowSettings, end_of: EndOf) -> None:
    definition = flow(
        {"name": "load", "parameters": {"rows": [3, 1, 2]}},
        {"name": "count", "parameters": {"n": "{{ size(tasks.load.output.rows) }}"}},
    )
    async with FlowService(settings) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=definition)).run_id)
    assert run.output["count"] == {"n": 3}


async def test_a_string_that_is_one_template_keeps_the_type_and_text_around_it_makes_a_string(
    settings: FlowSettings, end_of: EndOf
) -> None:
    definition = flow(
        {
            "name": "show",
            "parameters": {"number": "{{ inputs.n + 1 }}", "text": "n is {{ inputs.n }}", "raw": "{{ '{{' }}"},
        }
    )
    async with FlowService(settings) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=definition, inputs={"n": 4})).run_id)
    assert run.output == {"show": {"number": 5, "text": "n is 4", "raw": "{{"}}


async def test_a_template_that_names_a_task_is_a_dependency(settings: FlowSettings, end_of: EndOf) -> None:
    definition = flow(
        {"name": "second", "parameters": {"from": "{{ tasks.first.output.value }}"}},
        {"name": "first", "parameters": {"value": 7}},
    )
    definition["stages"][0]["execution_mode"] = "parallel"
    async with FlowService(settings) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=definition)).run_id)
    assert run.output == {"second": {"from": 7}, "first": {"value": 7}}


async def test_context_and_run_are_in_scope(settings: FlowSettings, end_of: EndOf) -> None:
    definition = flow(
        {"name": "show", "parameters": {"where": "{{ context.environment }}", "who": "{{ run.id }}"}},
        context={"environment": "production"},
    )
    async with FlowService(settings) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=definition)).run_id)
    assert run.output == {"show": {"where": "production", "who": run.run_id}}


async def test_inputs_are_checked_against_their_schema_and_filled_with_defaults(
    settings: FlowSettings, end_of: EndOf
) -> None:
    schema = {
        "type": "object",
        "required": ["city"],
        "properties": {"city": {"type": "string"}, "days": {"type": "integer", "default": 3}},
    }
    definition = flow({"name": "show", "parameters": {"days": "{{ inputs.days }}"}}, inputs=schema)
    async with FlowService(settings) as flows:
        with pytest.raises(FlowError) as caught:
            await flows.execute_flow(workflow_def=definition, inputs={"city": 5})
        run = await end_of(flows, (await flows.execute_flow(workflow_def=definition, inputs={"city": "Oslo"})).run_id)
    assert caught.value.code == "invalid_inputs"
    assert caught.value.issues[0].path == "/inputs/city"
    assert run.output == {"show": {"days": 3}}


async def test_the_output_of_a_run_is_its_template_or_what_the_last_stage_gave(
    settings: FlowSettings, end_of: EndOf
) -> None:
    two = {
        "stages": [
            {"name": "a", "tasks": [{"name": "x", "parameters": {"v": 1}}]},
            {"name": "b", "tasks": [{"name": "y"}]},
        ]
    }
    async with FlowService(settings) as flows:
        plain = await end_of(flows, (await flows.execute_flow(workflow_def=two)).run_id)
        shaped = {**two, "output": {"answer": "{{ tasks.x.output.v }}"}}
        made = await end_of(flows, (await flows.execute_flow(workflow_def=shaped)).run_id)
    assert plain.output == {"y": {}}
    assert made.output == {"answer": 1}


async def test_an_output_that_breaks_its_schema_fails_the_task_as_invalid(
    settings: FlowSettings, end_of: EndOf
) -> None:
    definition = flow(
        {"name": "show", "parameters": {"n": "four"}, "output_schema": {"properties": {"n": {"type": "number"}}}}
    )
    async with FlowService(settings) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=definition)).run_id)
    assert run.state == "failed"
    assert run.error is not None
    assert run.error.kind == "invalid"
    assert "/n" in run.error.message


async def test_a_large_output_is_kept_whole(settings: FlowSettings, end_of: EndOf) -> None:
    text = "0123456789" * 20_000
    definition = flow(
        {"name": "big", "parameters": {"text": "{{ inputs.text }}"}},
        {"name": "size", "parameters": {"n": "{{ size(tasks.big.output.text) }}"}},
    )
    async with FlowService(settings) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=definition, inputs={"text": text})).run_id)
        tasks = (await flows.get_run(run.run_id, detail="tasks", task="big")).tasks
        assert await flows.task_output(run.run_id, "big") == f'{{"text":"{text}"}}'
    assert run.output["size"] == {"n": 200_000}
    assert tasks is not None
    assert tasks[0].output_bytes == 200_011
