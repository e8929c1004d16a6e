"""What an agent sends wrong comes back as an error that it can act on, in the shape that outputSchema tells."""

import json
import logging
from typing import Any

import anyio
import jsonschema
import pytest
from mcp.client import Client

from contexten_server.assembly import build_server
from contexten_tools import App

pytestmark = pytest.mark.anyio

FLOW = {
    "stages": [
        {
            "name": "s",
            "tasks": [{"name": "t", "required_tools": ["data_processor"], "parameters": {"data": 1, "query": "@"}}],
        }
    ]
}
GPU_FLOW = {
    "stages": [
        {"name": "s", "tasks": [{"name": "t", "type": "wait", "parameters": {"seconds": 1}, "resources": {"gpu": 1}}]}
    ]
}


async def refuse(client: Client, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """The error of a call that must be refused, checked against the tool's outputSchema."""
    result = await client.call_tool(tool, arguments)
    assert result.is_error, result.structured_content
    block = result.content[0]
    assert block.type == "text"
    assert json.loads(block.text) == result.structured_content
    error: dict[str, Any] = result.structured_content["error"]
    assert set(error) <= {"code", "message", "issues", "retryable", "next"}
    assert error["message"]
    assert error["next"]
    assert isinstance(error["retryable"], bool)
    for other in (await client.list_tools()).tools:
        if other.name == tool and other.output_schema is not None:
            jsonschema.validate(result.structured_content, other.output_schema)
    return error


CASES: list[tuple[str, dict[str, Any], str, str | None]] = [
    ("create_flow", {}, "invalid_arguments", "missing_argument"),
    ("create_flow", {"workflow_def": 3}, "invalid_arguments", "wrong_type"),
    ("create_flow", {"workflow_def": [1]}, "invalid_arguments", "wrong_type"),
    ("create_flow", {"workflow_def": '{"stages": '}, "invalid_definition", "malformed_json"),
    ("create_flow", {"workflow_def": FLOW, "name": 7}, "invalid_arguments", "wrong_type"),
    ("create_flow", {"workflow_def": FLOW, "validate_only": "yes"}, "invalid_arguments", "wrong_type"),
    ("create_flow", {"workflow_def": FLOW, "worklow_def": 1}, "invalid_arguments", "unknown_argument"),
    ("create_flow", {"workflow_def": FLOW, "flow_id": "x" * 129}, "invalid_arguments", "out_of_range"),
    ("create_flow", {"workflow_def": {"stages": [{"name": "a b", "tasks": []}]}}, "invalid_definition", None),
    ("update_flow", {"flow_id": "nothing", "workflow_def": FLOW}, "flow_not_found", None),
    ("update_flow", {"flow_id": "nothing"}, "invalid_arguments", "missing_argument"),
    (
        "update_flow",
        {"flow_id": "nothing", "workflow_def": FLOW, "patch": []},
        "invalid_arguments",
        "too_many_arguments",
    ),
    ("execute_flow", {"flow_id": "nothing"}, "flow_not_found", None),
    ("execute_flow", {"flow_id": "a", "workflow_def": FLOW}, "invalid_arguments", "too_many_arguments"),
    ("execute_flow", {"workflow_def": FLOW, "wait_s": 46}, "invalid_arguments", "out_of_range"),
    ("execute_flow", {"workflow_def": FLOW, "wait_s": "5"}, "invalid_arguments", "wrong_type"),
    ("execute_flow", {"workflow_def": FLOW, "inputs": "{"}, "invalid_arguments", "malformed_json"),
    ("execute_flow", {"workflow_def": FLOW, "inputs": [1]}, "invalid_arguments", "wrong_type"),
    ("execute_flow", {"workflow_def": FLOW, "deadline": "2020-01-01T00:00:00Z"}, "invalid_arguments", "out_of_range"),
    ("execute_flow", {"workflow_def": FLOW, "deadline": -1}, "invalid_arguments", "out_of_range"),
    ("execute_flow", {"workflow_def": FLOW, "deadline": "tomorrow"}, "invalid_arguments", "wrong_type"),
    ("execute_flow", {"workflow_def": FLOW, "deadline": 10**400}, "invalid_arguments", "wrong_type"),
    ("execute_flow", {"workflow_def": FLOW, "deadline": [1]}, "invalid_arguments", "wrong_type"),
    ("execute_flow", {"workflow_def": FLOW, "on_deadline": "stop"}, "invalid_arguments", "invalid_value"),
    ("execute_flow", {"workflow_def": FLOW, "dependencies": ["x"]}, "invalid_arguments", "unknown_dependency"),
    ("execute_flow", {"workflow_def": FLOW, "dependencies": "x"}, "invalid_arguments", "wrong_type"),
    ("execute_flow", {"workflow_def": FLOW, "dependencies": [""]}, "invalid_arguments", "out_of_range"),
    ("execute_flow", {"workflow_def": FLOW, "on_dependency_failure": "skip"}, "invalid_arguments", "invalid_value"),
    ("execute_flow", {"workflow_def": GPU_FLOW}, "invalid_arguments", "unknown_pool"),
    ("execute_flow", {"workflow_def": FLOW, "priority": "urgent"}, "invalid_arguments", None),
    ("execute_flow", {"workflow_def": FLOW, "framework": "prefect"}, "engine_unavailable", None),
    ("execute_flow", {"workflow_def": FLOW, "framework": "nativ"}, "invalid_arguments", "unknown_engine"),
    ("wait_for_flow", {"run_id": "run_nothing"}, "run_not_found", None),
    ("wait_for_flow", {"run_id": "run_nothing", "until": "ende"}, "invalid_arguments", "invalid_value"),
    ("wait_for_flow", {"run_id": ""}, "invalid_arguments", "out_of_range"),
    ("get_flow_status", {}, "invalid_arguments", "missing_argument"),
    ("get_flow_status", {"run_id": "r", "flow_id": "f"}, "invalid_arguments", "too_many_arguments"),
    ("get_flow_status", {"run_id": "run_nothing"}, "run_not_found", None),
    ("get_flow_status", {"flow_id": "nothing"}, "flow_not_found", None),
    ("get_flow_status", {"run_id": "r", "max_chars": 10}, "invalid_arguments", "out_of_range"),
    ("get_flow_status", {"run_id": "r", "max_chars": 2.5}, "invalid_arguments", "wrong_type"),
    ("get_flow_status", {"run_id": "r", "detail": "outputs"}, "invalid_arguments", "invalid_value"),
    ("get_flow_status", {"run_id": "r", "since": "text-5"}, "invalid_arguments", "invalid_value"),
    ("list_flows", {"limit": 0}, "invalid_arguments", "out_of_range"),
    ("list_flows", {"status_filter": "runing"}, "invalid_arguments", "invalid_value"),
    ("list_flows", {"kind": "runs", "status_filter": "idle"}, "invalid_arguments", "invalid_value"),
    ("list_flows", {"page": "nonsense"}, "invalid_arguments", None),
    ("control_flow", {"run_id": "run_nothing", "action": "cancel"}, "run_not_found", None),
    ("control_flow", {"run_id": "r", "action": "stop"}, "invalid_arguments", "invalid_value"),
    ("control_flow", {"run_id": "r", "action": "rerun_from"}, "invalid_arguments", "missing_argument"),
    ("control_flow", {"run_id": "r", "action": "pause", "task": "t"}, "invalid_arguments", "invalid_value"),
    ("control_flow", {"run_id": "r", "action": "cancel", "timeout_s": 5}, "invalid_arguments", "invalid_value"),
    ("control_flow", {"run_id": "r", "action": "retry", "timeout_s": 0}, "invalid_arguments", "out_of_range"),
    ("explain_flow", {}, "invalid_arguments", "missing_argument"),
    ("explain_flow", {"flow_id": "nothing"}, "flow_not_found", None),
    ("explain_flow", {"workflow_def": {"stages": 1}}, "invalid_definition", None),
    ("set_strategy", {}, "invalid_arguments", "missing_argument"),
    ("set_strategy", {"strategy": "priorty"}, "invalid_arguments", None),
    ("set_strategy", {"strategy": "deadline"}, "invalid_arguments", "unknown_strategy"),
    ("set_strategy", {"strategy": "lifo", "dry_run": True}, "invalid_arguments", "unknown_strategy"),
    ("set_strategy", {"max_concurrent_flows": 0, "dry_run": True}, "invalid_arguments", "out_of_range"),
    ("set_strategy", {"max_concurrent_flows": True}, "invalid_arguments", "wrong_type"),
    ("list_agents", {"verbose": True}, "invalid_arguments", "unknown_argument"),
    ("get_reference", {"topic": "formats"}, "invalid_arguments", "invalid_value"),
]


@pytest.mark.parametrize(
    ("tool", "arguments", "code", "issue"), CASES, ids=[f"{case[0]}-{i}" for i, case in enumerate(CASES)]
)
async def test_a_wrong_call_is_refused_with_code_place_and_next_step(
    live: Any, tool: str, arguments: dict[str, Any], code: str, issue: str | None
) -> None:
    async with live.client("legacy") as client:
        error = await refuse(client, tool, arguments)
    assert error["code"] == code
    if issue is not None:
        assert issue in {found["code"] for found in error["issues"]}
    for found in error.get("issues", []):
        assert found["path"] == "" or found["path"].startswith("/")


async def test_all_wrong_arguments_are_told_in_one_answer(live: Any, era: str) -> None:
    async with live.client(era) as client:
        error = await refuse(client, "wait_for_flow", {"runid": "r", "timeout_s": 99, "until": "never", "colour": 1})
    assert {found["path"] for found in error["issues"]} == {"/runid", "/timeout_s", "/until", "/colour", "/run_id"}


async def test_a_misspelt_argument_comes_with_a_patch_that_mends_it(live: Any, era: str) -> None:
    import jsonpatch

    wrong = {"definition": FLOW, "validate_only": True}
    async with live.client(era) as client:
        error = await refuse(client, "create_flow", wrong)
        issue = next(found for found in error["issues"] if found["code"] == "unknown_argument")
        assert issue["suggestion"] == "workflow_def"
        mended = jsonpatch.apply_patch(wrong, issue["patch"])
        result = await client.call_tool("create_flow", mended)
        assert not result.is_error


async def test_an_unknown_tool_is_answered_in_the_same_shape(live: Any, era: str) -> None:
    async with live.client(era) as client:
        error = await refuse(client, "creat_flow", {"workflow_def": FLOW})
    assert error["code"] == "unknown_tool"
    assert error["issues"][0]["suggestion"] == "create_flow"


async def test_optional_arguments_given_as_null_count_as_absent(live: Any, era: str) -> None:
    async with live.client(era) as client:
        result = await client.call_tool("list_flows", {"status_filter": None, "kind": None, "page": None, "limit": 5})
    assert not result.is_error


async def test_whole_numbers_may_come_with_a_point(live: Any, era: str) -> None:
    async with live.client(era) as client:
        result = await client.call_tool("list_flows", {"limit": 5.0})
    assert not result.is_error


@pytest.mark.parametrize("arguments", ["not json", "[1]", 5, [1, 2]])
async def test_arguments_that_are_no_object_are_an_error_of_the_call(live: Any, arguments: Any) -> None:
    async with live.client("legacy") as client:
        dispatcher = client.session._dispatcher
        raw = await dispatcher.send_raw_request("tools/call", {"name": "list_flows", "arguments": arguments})
    assert raw["isError"] is True
    assert raw["structuredContent"]["error"]["issues"][0]["code"] == "malformed_json"


async def test_arguments_given_as_the_text_of_an_object_are_read(live: Any) -> None:
    async with live.client("legacy") as client:
        dispatcher = client.session._dispatcher
        raw = await dispatcher.send_raw_request("tools/call", {"name": "list_flows", "arguments": '{"limit": 1}'})
    assert not raw.get("isError")


async def test_deeply_nested_json_is_refused(live: Any, era: str) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    async with live.client(era) as client:
        error = await refuse(client, "create_flow", {"workflow_def": '{"stages": ' + deep + "}"})
        assert error["code"] == "invalid_definition"
        error = await refuse(client, "execute_flow", {"workflow_def": FLOW, "inputs": '{"a": ' + deep + "}"})
        assert error["code"] == "invalid_arguments"
        assert not (await client.call_tool("list_flows", {})).is_error


async def test_a_definition_that_exists_with_other_content_points_to_update_flow(live: Any, era: str) -> None:
    async with live.client(era) as client:
        await client.call_tool("create_flow", {"workflow_def": FLOW, "flow_id": "taken"})
        same = await client.call_tool("create_flow", {"workflow_def": FLOW, "flow_id": "taken"})
        assert same.structured_content["existing"] is True
        other = json.loads(json.dumps(FLOW).replace('"data": 1', '"data": 2'))
        error = await refuse(client, "create_flow", {"workflow_def": other, "flow_id": "taken"})
    assert error["code"] == "flow_exists"
    assert "update_flow" in json.dumps(error["next"])


async def test_an_idempotency_key_used_for_another_request_is_a_conflict(live: Any, era: str) -> None:
    async with live.client(era) as client:
        await client.call_tool("create_flow", {"workflow_def": FLOW, "flow_id": "keyed"})
        await client.call_tool("execute_flow", {"flow_id": "keyed", "idempotency_key": "k"})
        error = await refuse(client, "execute_flow", {"flow_id": "keyed", "idempotency_key": "k", "inputs": {"a": 1}})
    assert error["code"] == "idempotency_conflict"


async def test_inputs_that_break_the_schema_are_told_with_their_place(live: Any, era: str) -> None:
    definition = {**FLOW, "inputs": {"type": "object", "properties": {"n": {"type": "integer"}}}}
    async with live.client(era) as client:
        error = await refuse(client, "execute_flow", {"workflow_def": definition, "inputs": {"n": "x"}})
    assert error["code"] == "invalid_inputs"
    assert error["issues"][0]["path"].endswith("/n")


async def test_an_action_that_makes_no_sense_is_an_illegal_move(live: Any, era: str) -> None:
    async with live.client(era) as client:
        run = await client.call_tool("execute_flow", {"workflow_def": FLOW, "wait_s": 20})
        error = await refuse(client, "control_flow", {"run_id": run.structured_content["run_id"], "action": "resume"})
    assert error["code"] == "illegal_move"


async def test_an_unexpected_fault_is_logged_under_an_id_and_tells_nothing(
    live: Any, era: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("the password is swordfish, at /home/secret")

    monkeypatch.setattr(live.service, "metrics", fail)
    async with live.client(era) as client:
        with caplog.at_level(logging.ERROR):
            error = await refuse(client, "get_metrics", {})
    assert error["code"] == "internal_error"
    assert "swordfish" not in json.dumps(error)
    assert "/home" not in json.dumps(error)
    fault_id = error["message"].split("id ")[1].split(")")[0]
    record = next(record for record in caplog.records if fault_id in record.getMessage())
    assert record.exc_info is not None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800"])
async def test_values_that_json_has_no_word_for_are_refused_in_the_same_shape(live: Any, value: Any) -> None:
    wrong_definition = {
        "stages": [{"name": value, "tasks": [{"name": "t", "required_tools": ["shell"], "retry": value}]}]
    }
    for tool, arguments in (
        ("execute_flow", {"flow_id": "f", "wait_s": value}),
        ("get_flow_status", {"run_id": "r", "max_chars": value}),
        ("list_flows", {"colour": value}),
        ("create_flow", {"workflow_def": wrong_definition}),
    ):
        result = await live.server.call_tool(tool, arguments)
        assert result.is_error
        text = result.content[0].text
        text.encode()
        assert json.loads(text, parse_constant=pytest.fail) == result.structured_content
        assert result.structured_content["error"]["code"] in ("invalid_arguments", "invalid_definition")


@pytest.mark.parametrize("answer", [{"n": float("nan")}, {"n": "\ud800"}, {"n": object()}])
async def test_an_answer_that_is_no_json_is_an_unexpected_fault(
    live: Any, monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any]
) -> None:
    async def give(*_: Any, **__: Any) -> Any:
        return type("View", (), {"data": lambda _: answer})()

    monkeypatch.setattr(live.service, "metrics", give)
    async with live.client("legacy") as client:
        assert (await refuse(client, "get_metrics", {}))["code"] == "internal_error"


async def test_a_read_only_server_hides_its_writers_and_says_so_when_they_are_called(live: Any, era: str) -> None:
    app = App(service=live.service, settings=live.app.settings, transport="memory", read_only=True)
    async with Client(build_server(app), mode="legacy" if era == "legacy" else "auto") as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert names == {
            "wait_for_flow",
            "get_flow_status",
            "list_flows",
            "explain_flow",
            "list_agents",
            "get_metrics",
            "get_reference",
        }
        error = await refuse(client, "create_flow", {"workflow_def": FLOW})
    assert error["code"] == "read_only"
    assert "--read-only" in error["message"]


async def test_answers_and_errors_of_every_tool_fit_their_output_schemas(live: Any) -> None:
    """The TypeScript SDK checks both; a misfit would hide the answer from the model."""
    async with live.client("legacy") as client:
        schemas = {tool.name: tool.output_schema for tool in (await client.list_tools()).tools}
        for schema in schemas.values():
            jsonschema.Draft202012Validator.check_schema(schema)

        async def answer(tool: str, **arguments: Any) -> Any:
            result = await client.call_tool(tool, arguments)
            assert not result.is_error, result.content
            jsonschema.validate(result.structured_content, schemas[tool])
            return result.structured_content

        await answer("create_flow", workflow_def=FLOW, flow_id="fit")
        await answer("update_flow", flow_id="fit", patch=[{"op": "add", "path": "/tags", "value": ["x"]}])
        await answer("get_flow_status", flow_id="fit")
        run = await answer("execute_flow", flow_id="fit", wait_s=20)
        await answer("wait_for_flow", run_id=run["run_id"])
        for detail in ("summary", "tasks", "graph", "events", "output", "definition"):
            await answer("get_flow_status", run_id=run["run_id"], detail=detail)
            await answer("get_flow_status", flow_id="fit", detail=detail)
        await answer("list_flows")
        await answer("list_flows", kind="runs", tag="x")
        await answer("control_flow", run_id=run["run_id"], action="rerun_from", task="t")
        for arguments in ({"flow_id": "fit"}, {"run_id": run["run_id"]}, {"workflow_def": FLOW}):
            await answer("explain_flow", **arguments)
        await answer("set_strategy", strategy="fifo")
        await answer("list_agents")
        await answer("get_metrics")
        await answer("get_reference")
        await answer("get_reference", topic="tools")


async def test_a_closing_service_says_that_the_call_may_be_repeated(live: Any, settings: Any) -> None:
    from contexten.extensions.flow.service import FlowService

    other = settings.model_copy(update={"database": settings.database.with_name("other.sqlite3")})
    async with FlowService(other) as service:
        server = build_server(App(service=service, settings=other))
    async with Client(server, mode="legacy") as client:
        with anyio.fail_after(30):
            error = await refuse(client, "execute_flow", {"workflow_def": FLOW})
    assert (error["code"], error["retryable"]) == ("closing", True)
