"""Whatever is wrong with a request for a run is refused before anything is recorded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from contexten.extensions.flow import FlowError, FlowService, FlowSettings
from contexten.extensions.flow.agents.protocol import TaskCall
from contexten.extensions.flow.runs.submission import check_timeout
from contexten.extensions.flow.scheduling.priorities import parse_priority

pytestmark = pytest.mark.anyio

FLOW: dict[str, Any] = {
    "stages": [{"name": "only", "tasks": [{"name": "one", "parameters": {"n": "{{ inputs.n }}"}}]}],
    "inputs": {
        "type": "object",
        "required": ["n"],
        "additionalProperties": False,
        "properties": {"n": {"type": "integer", "minimum": 1}, "s": {"type": "string"}},
    },
}


@pytest.fixture
async def flows(settings: FlowSettings) -> AsyncIterator[FlowService]:
    async with FlowService(settings, drive=False) as service:
        await service.create_flow(flow_id="one", workflow_def=FLOW)
        yield service


@pytest.mark.parametrize(
    ("arguments", "code", "path"),
    [
        ({"priority": "urgent"}, "invalid_arguments", "/priority"),
        ({"priority": 1_000_001}, "invalid_arguments", "/priority"),
        ({"framework": "nativ"}, "invalid_arguments", "/framework"),
        ({"timeout_s": 0}, "invalid_arguments", "/timeout_s"),
        ({"timeout_s": float("nan")}, "invalid_arguments", "/timeout_s"),
        ({"timeout_s": True}, "invalid_arguments", "/timeout_s"),
        ({"idempotency_key": ""}, "invalid_arguments", "/idempotency_key"),
        ({"idempotency_key": "k" * 201}, "invalid_arguments", "/idempotency_key"),
        ({"inputs": [1]}, "invalid_inputs", "/inputs"),
        ({"inputs": {}}, "invalid_inputs", "/inputs"),
        ({"inputs": {"n": 0}}, "invalid_inputs", "/inputs/n"),
        ({"inputs": {"n": 1, "m": 2}}, "invalid_inputs", "/inputs"),
        ({"inputs": {"n": float("inf")}}, "invalid_inputs", "/inputs/n"),
        ({"inputs": {"n": 2**60}}, "invalid_inputs", "/inputs/n"),
        ({"inputs": {"n": 1, "s": "\ud800"}}, "invalid_inputs", "/inputs/s"),
        ({"inputs": {"n": 1, "s": "x" * (2 << 20)}}, "invalid_inputs", "/inputs"),
        ({"deadline": "2020-01-01"}, "invalid_arguments", "/deadline"),
        ({"deadline": "0001-01-01"}, "invalid_arguments", "/deadline"),
        ({"deadline": "soon"}, "invalid_arguments", "/deadline"),
        ({"deadline": 0}, "invalid_arguments", "/deadline"),
        ({"deadline": float("nan")}, "invalid_arguments", "/deadline"),
        ({"deadline": 2e9}, "invalid_arguments", "/deadline"),
        ({"deadline": 10**400}, "invalid_arguments", "/deadline"),
        ({"deadline": True}, "invalid_arguments", "/deadline"),
        ({"deadline": datetime(2020, 1, 1, tzinfo=UTC)}, "invalid_arguments", "/deadline"),
        ({"deadline": datetime.min}, "invalid_arguments", "/deadline"),  # noqa: DTZ901 - a naive one is meant
        ({"on_deadline": "stop"}, "invalid_arguments", "/on_deadline"),
        ({"on_deadline": ["cancel"]}, "invalid_arguments", "/on_deadline"),
        ({"dependencies": "one"}, "invalid_arguments", "/dependencies"),
        ({"dependencies": [1]}, "invalid_arguments", "/dependencies"),
        ({"dependencies": [""]}, "invalid_arguments", "/dependencies"),
        ({"dependencies": [f"run_{number}" for number in range(101)]}, "invalid_arguments", "/dependencies"),
        ({"dependencies": ["nobody"]}, "invalid_arguments", "/dependencies/0"),
        ({"dependencies": ["one"]}, "invalid_arguments", "/dependencies"),  # its own first run
        ({"on_dependency_failure": "skip"}, "invalid_arguments", "/on_dependency_failure"),
        ({"framework": "strand"}, "invalid_arguments", "/framework"),
        ({"framework": "native", "work_pool": "pool"}, "invalid_arguments", "/work_pool"),
        ({"version": 9}, "flow_not_found", None),
        ({"flow_id": "two"}, "flow_not_found", None),
        ({"flow_id": None}, "invalid_arguments", None),
    ],
)
async def test_a_request_that_makes_no_sense_is_refused_and_leaves_no_run(
    flows: FlowService, arguments: dict[str, Any], code: str, path: str | None
) -> None:
    with pytest.raises(FlowError) as caught:
        await flows.execute_flow(**{"flow_id": "one", "inputs": {"n": 1}, **arguments})
    assert caught.value.code == code
    if path is not None:
        assert caught.value.issues[0].path == path
    assert (await flows.list_runs()).runs == []


async def test_a_good_request_is_recorded_with_its_defaults(flows: FlowService) -> None:
    run = await flows.execute_flow(flow_id="one", inputs={"n": 3}, priority="high", timeout_s=5)
    whole = await flows.get_run(run.run_id, detail="definition")
    assert (run.state, run.priority, run.framework, run.version) == ("scheduled", 1, "native", 1)
    assert whole.inputs == {"n": 3}
    assert whole.definition == FLOW


async def test_a_flow_whose_agent_is_not_here_is_refused_before_it_is_queued(settings: FlowSettings) -> None:
    async def rare(task: TaskCall) -> None: ...

    flow = {"stages": [{"name": "only", "tasks": [{"name": "one", "type": "t", "required_tools": ["rare"]}]}]}
    async with FlowService(settings, agents=[rare]) as service:
        await service.create_flow(flow_id="rare", workflow_def=flow)
    async with FlowService(settings) as service:
        with pytest.raises(FlowError, match="no agent here offers") as caught:
            await service.execute_flow(flow_id="rare")
        assert (await service.list_runs()).runs == []
    assert caught.value.issues[0].path == "/stages/0/tasks/0/required_tools"


async def test_a_closed_service_takes_no_work(settings: FlowSettings) -> None:
    service = FlowService(settings)
    with pytest.raises(FlowError) as caught:
        await service.execute_flow(flow_id="one")
    assert (caught.value.code, caught.value.retryable) == ("closing", True)


@pytest.mark.parametrize(("given", "level"), [(None, 2), ("High", 1), (-5, -5), ("3", 3), (" -1000000 ", -1_000_000)])
def test_a_priority_is_a_name_or_a_number_as_the_command_line_gives_it_too(given: object, level: int) -> None:
    assert parse_priority(given) == level


@pytest.mark.parametrize("given", ["1000001", 1_000_001, "1.5", True, "", [], "²"])
def test_another_priority_is_refused_with_its_bounds(given: object) -> None:
    with pytest.raises(FlowError, match="from -1000000 to 1000000"):
        parse_priority(given)


@pytest.mark.parametrize("value", [None, 1, 0.5, 1e9])
def test_a_timeout_is_a_positive_number_or_none(value: float | None) -> None:
    check_timeout(value)


@pytest.mark.parametrize("value", [-1, 0, float("inf"), "5", [], 10**400])
def test_other_timeouts_are_refused(value: object) -> None:
    with pytest.raises(FlowError, match="positive"):
        check_timeout(value)
