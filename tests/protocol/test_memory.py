"""The tools and resources as clients of both eras see them, in one process."""

import json
from typing import Any

import anyio
import pytest
from mcp.shared.exceptions import MCPError

from contexten.extensions.flow.strategies import SchedulingStrategy

pytestmark = pytest.mark.anyio

TOOLS = [
    "create_flow",
    "update_flow",
    "execute_flow",
    "wait_for_flow",
    "get_flow_status",
    "list_flows",
    "control_flow",
    "explain_flow",
    "set_strategy",
    "list_agents",
    "get_metrics",
    "get_reference",
]
WRITERS = {"create_flow", "update_flow", "execute_flow", "control_flow", "set_strategy"}


async def call(client: Any, tool: str, **arguments: Any) -> dict[str, Any]:
    """The structured answer of a call that must succeed."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    assert json.loads(result.content[0].text) == result.structured_content
    answer: dict[str, Any] = result.structured_content
    return answer


async def test_twelve_tools_are_listed_in_a_fixed_order_with_short_descriptions(live: Any, era: str) -> None:
    async with live.client(era) as client:
        tools = (await client.list_tools()).tools
        again = (await client.list_tools(cache_mode="bypass")).tools
    assert [tool.name for tool in tools] == TOOLS
    assert again == tools
    for tool in tools:
        assert tool.title
        assert tool.description is not None
        assert 100 < len(tool.description.encode()) < 2048
        assert tool.input_schema["type"] == "object"
        assert tool.input_schema["additionalProperties"] is False
        assert tool.output_schema is not None
        assert tool.output_schema["type"] == "object"
        assert len(tool.output_schema["anyOf"]) >= 2


async def test_annotations_tell_which_tools_write(live: Any) -> None:
    async with live.client("legacy") as client:
        tools = (await client.list_tools()).tools
    for tool in tools:
        assert tool.annotations is not None
        assert tool.annotations.read_only_hint is (tool.name not in WRITERS)
    destructive = {tool.name for tool in tools if tool.annotations and tool.annotations.destructive_hint}
    assert destructive == {"execute_flow", "control_flow"}


async def test_every_parameter_is_described_or_speaks_for_itself(live: Any) -> None:
    async with live.client("legacy") as client:
        tools = (await client.list_tools()).tools
    for tool in tools:
        for name, schema in tool.input_schema["properties"].items():
            assert "description" in schema or name in {"run_id", "flow_id", "action"}, (tool.name, name)


async def test_engines_that_this_version_lacks_are_not_advertised(live: Any) -> None:
    async with live.client("legacy") as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    framework = tools["execute_flow"].input_schema["properties"]["framework"]
    assert framework["examples"] == ["auto", "native"]
    assert set(tools["set_strategy"].input_schema["properties"]["strategy"]["enum"]) == set(SchedulingStrategy)


async def test_instructions_and_identity_reach_clients(live: Any, era: str) -> None:
    async with live.client(era) as client:
        assert client.instructions is not None
        assert "wait_for_flow" in client.instructions
        assert client.server_info is not None
        assert client.server_info.name == "contexten-flow"


async def test_a_flow_is_created_run_and_its_output_read(live: Any, era: str) -> None:
    async with live.client(era) as client:
        saved = await call(client, "create_flow", name="Answer", workflow_def=live.flow(live.value_task(value=[1, 2])))
        assert saved["version"] == 1
        run = await call(client, "execute_flow", flow_id=saved["flow_id"], wait_s=20)
        assert run["state"] == "completed"
        assert run["output"] == {"value": [1, 2]}
        status = await call(client, "get_flow_status", run_id=run["run_id"], detail="output", task="value")
        assert status["output"] == [1, 2]
        assert status["has_output"] is True


async def test_a_definition_may_be_json_text(live: Any, era: str) -> None:
    async with live.client(era) as client:
        text = json.dumps(live.flow(live.value_task()))
        run = await call(client, "execute_flow", workflow_def=text, wait_s=20)
        assert run["output"] == {"value": 42}


async def test_execute_answers_at_once_and_wait_tells_what_changed(live: Any, era: str) -> None:
    async with live.client(era) as client:
        run = await call(client, "execute_flow", workflow_def=live.flow(live.gate_task(x=1)))
        assert run["state"] in ("scheduled", "running")
        assert run["next"] == {"tool": "wait_for_flow", "arguments": {"run_id": run["run_id"]}}
        waited = await call(client, "wait_for_flow", run_id=run["run_id"], timeout_s=0)
        assert waited["state"] in ("scheduled", "running")
        live.gate.opened.set()
        ended = await call(client, "wait_for_flow", run_id=run["run_id"], timeout_s=20, since=run["cursor"])
        assert ended["state"] == "completed"
        assert ended["next_poll_s"] == 0
        assert [event["type"] for event in ended["events"]][-1] == "run.completed"
        assert ended["output"] == {"held": {"x": 1}}


async def test_waiting_reports_progress_that_only_grows(live: Any, era: str) -> None:
    told: list[tuple[float, float | None, str | None]] = []
    first = anyio.Event()

    async def note(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, total, message))
        first.set()

    async with live.client(era) as client, anyio.create_task_group() as group:
        definition = live.flow(live.gate_task("one"), live.gate_task("two"))
        run = await call(client, "execute_flow", workflow_def=definition)

        async def open_gate() -> None:
            await first.wait()
            live.gate.opened.set()

        group.start_soon(open_gate)
        with anyio.fail_after(20):
            result = await client.call_tool(
                "wait_for_flow", {"run_id": run["run_id"], "timeout_s": 20}, progress_callback=note
            )
    assert result.structured_content["state"] == "completed"
    values = [progress for progress, _, _ in told]
    assert values == sorted(set(values))
    assert all(total == 2 for _, total, _ in told)
    assert "of 2 tasks" in str(told[0][2])


async def test_since_gives_only_what_came_after_it(live: Any, era: str) -> None:
    async with live.client(era) as client:
        run = await call(client, "execute_flow", workflow_def=live.flow(live.value_task()), wait_s=20)
        whole = await call(client, "get_flow_status", run_id=run["run_id"], detail="events")
        types = [event["type"] for event in whole["events"]]
        assert "run.running" in types
        assert "task.completed" in types
        middle = whole["events"][2]["cursor"]
        rest = await call(client, "get_flow_status", run_id=run["run_id"], detail="events", since=middle)
        assert [event["type"] for event in rest["events"]] == types[3:]
        nothing = await call(client, "get_flow_status", run_id=run["run_id"], detail="tasks", since=whole["cursor"])
        assert nothing["tasks"] == []


async def test_tasks_and_definition_are_shown_as_asked(live: Any, era: str) -> None:
    definition = live.flow(live.value_task("a"), live.value_task("b"))
    async with live.client(era) as client:
        run = await call(client, "execute_flow", workflow_def=definition, wait_s=20)
        tasks = await call(client, "get_flow_status", run_id=run["run_id"], detail="tasks")
        assert [(task["name"], task["state"]) for task in tasks["tasks"]] == [("a", "completed"), ("b", "completed")]
        shown = await call(client, "get_flow_status", run_id=run["run_id"], detail="definition")
        assert [task["name"] for task in shown["definition"]["stages"][0]["tasks"]] == ["a", "b"]


async def test_a_flow_without_runs_answers_as_idle(live: Any, era: str) -> None:
    async with live.client(era) as client:
        await call(client, "create_flow", flow_id="idle-one", workflow_def=live.flow(live.value_task()))
        status = await call(client, "get_flow_status", flow_id="idle-one")
        assert status["state"] == "idle"
        assert status["next"]["tool"] == "execute_flow"
        run = await call(client, "execute_flow", flow_id="idle-one", wait_s=20)
        latest = await call(client, "get_flow_status", flow_id="idle-one")
        assert latest["run_id"] == run["run_id"]


async def test_lists_page_through_everything_once(live: Any, era: str) -> None:
    async with live.client(era) as client:
        for number in range(5):
            await call(client, "create_flow", flow_id=f"flow-{number}", workflow_def=live.flow(live.value_task()))
        found: list[str] = []
        page: str | None = None
        while True:
            answer = await call(client, "list_flows", limit=2, **({"page": page} if page else {}))
            found += [row["flow_id"] for row in answer["flows"]]
            page = answer.get("next_page")
            if page is None:
                break
        assert sorted(found) == [f"flow-{number}" for number in range(5)]
        assert len(found) == 5
        one = await call(client, "list_flows", flow_id="flow-3")
        assert [row["flow_id"] for row in one["flows"]] == ["flow-3"]
        none = await call(client, "list_flows", flow_id="flow-3", status_filter="running")
        assert none["flows"] == []
        runs = await call(client, "list_flows", kind="runs")
        assert runs["runs"] == []


async def test_a_new_version_is_made_by_a_patch(live: Any, era: str) -> None:
    async with live.client(era) as client:
        await call(client, "create_flow", flow_id="grows", workflow_def=live.flow(live.value_task(value=1)))
        patch = [{"op": "replace", "path": "/stages/0/tasks/0/parameters/data", "value": 2}]
        saved = await call(client, "update_flow", flow_id="grows", patch=patch)
        assert saved["version"] == 2
        run = await call(client, "execute_flow", flow_id="grows", wait_s=20)
        assert run["output"] == {"value": 2}


async def test_a_run_is_paused_resumed_and_cancelled(live: Any, era: str) -> None:
    async with live.client(era) as client:
        run = await call(client, "execute_flow", workflow_def=live.flow(live.gate_task("a"), live.gate_task("b")))
        run_id = run["run_id"]
        with anyio.fail_after(30):
            await live.gate.reached.wait()
        await call(client, "control_flow", run_id=run_id, action="pause", reason="to look at it")
        live.gate.opened.set()
        paused = await call(client, "wait_for_flow", run_id=run_id, timeout_s=20)
        assert paused["state"] == "paused"
        assert paused["next"]["arguments"]["action"] == "resume"
        await call(client, "control_flow", run_id=run_id, action="resume")
        ended = await call(client, "wait_for_flow", run_id=run_id, timeout_s=20)
        assert ended["state"] == "completed"
        held = await call(client, "execute_flow", workflow_def=live.flow(_forever()))
        await call(client, "control_flow", run_id=held["run_id"], action="cancel")
        cancelled = await call(client, "wait_for_flow", run_id=held["run_id"], timeout_s=20)
        assert cancelled["state"] == "cancelled"


def _forever() -> dict[str, Any]:
    return {"name": "forever", "type": "wait", "parameters": {"seconds": 3600}}


async def test_a_failed_run_is_explained_mended_and_retried(live: Any, era: str) -> None:
    broken = {
        "name": "broken",
        "required_tools": ["data_processor"],
        "parameters": {"data": "{{ tasks.fine.output }}", "query": "max_by(@, &x)"},
    }
    async with live.client(era) as client:
        await call(
            client, "create_flow", flow_id="mend", workflow_def=live.flow(live.value_task("fine", "text"), broken)
        )
        run = await call(client, "execute_flow", flow_id="mend", wait_s=20)
        assert run["state"] == "failed"
        assert run["error"]["task"] == "broken"
        assert run["next"] == {"tool": "explain_flow", "arguments": {"run_id": run["run_id"]}}
        explained = await call(client, "explain_flow", run_id=run["run_id"])
        assert explained["subject"] == "run"
        assert "broken" in json.dumps(explained["failure"])
        patch = [{"op": "replace", "path": "/stages/0/tasks/1/parameters/query", "value": "length(@)"}]
        version = (await call(client, "update_flow", flow_id="mend", patch=patch))["version"]
        retried = await call(client, "control_flow", run_id=run["run_id"], action="retry", version=version)
        assert retried["rerun_of"] == run["run_id"]
        assert retried["run_id"] != run["run_id"]
        ended = await call(client, "wait_for_flow", run_id=retried["run_id"], timeout_s=20)
        assert ended["state"] == "completed"
        assert ended["output"]["broken"] == 4


async def test_the_same_idempotency_key_answers_the_same_run(live: Any, era: str) -> None:
    async with live.client(era) as client:
        await call(client, "create_flow", flow_id="once", workflow_def=live.flow(live.value_task()))
        first = await call(client, "execute_flow", flow_id="once", idempotency_key="k", wait_s=20)
        second = await call(client, "execute_flow", flow_id="once", idempotency_key="k")
        assert second["run_id"] == first["run_id"]
        assert second["existing"] is True


async def test_the_strategy_is_changed_and_what_held_before_is_told(live: Any, era: str) -> None:
    async with live.client(era) as client:
        change = await call(client, "set_strategy", strategy="PRIORITY", max_concurrent_flows=7)
        assert change["before"]["strategy"] == "fifo"
        assert change["after"] == {"strategy": "priority", "max_concurrent_flows": 7}
        assert change["effect"]


async def test_agents_metrics_and_reference_are_told(live: Any, era: str) -> None:
    async with live.client(era) as client:
        agents = await call(client, "list_agents")
        assert {"http_client", "data_processor"} <= {tool["name"] for tool in agents["tools"]}
        assert "shell" in agents["disabled_tools"]
        metrics = await call(client, "get_metrics")
        assert set(metrics) >= {"scheduler", "flows", "tasks", "agents", "store"}
        topics = await call(client, "get_reference")
        for topic in topics["topics"]:
            text = (await call(client, "get_reference", topic=topic["topic"]))["text"]
            assert len(text) > 200


async def test_the_audit_trail_names_client_transport_and_tool(live: Any, era: str) -> None:
    async with live.client(era) as client:
        run = await call(client, "execute_flow", workflow_def=live.flow(live.value_task()), wait_s=20)
    actors = [event.actor for event in await live.service.events(run["run_id"]) if event.actor]
    assert actors[0] == "a test/memory/execute_flow"


async def test_every_resource_is_read_as_its_type_says(live: Any, era: str) -> None:
    async with live.client(era) as client:
        await call(client, "create_flow", flow_id="a flow", workflow_def=live.flow(live.value_task(value="x")))
        run = await call(client, "execute_flow", flow_id="a flow", wait_s=20)
        resources = (await client.list_resources()).resources
        templates = (await client.list_resource_templates()).resource_templates
        assert [str(resource.uri) for resource in resources] == [
            "ui://contexten-flow/run.html",
            "flow://flows",
            "flow://scheduler",
            "flow://metrics",
            "flow://agents",
            "flow://schema/workflow",
        ]
        assert [template.uri_template for template in templates] == [
            "flow://flows/{flow_id}",
            "flow://runs/{run_id}",
            "flow://runs/{run_id}/events",
            "flow://runs/{run_id}/outputs/{task}",
            "flow://reference/{topic}",
        ]
        run_id = run["run_id"]
        for uri in (
            *[str(resource.uri) for resource in resources if str(resource.uri).startswith("flow://")],
            "flow://flows/a%20flow",
            f"flow://runs/{run_id}",
            f"flow://runs/{run_id}/events",
            f"flow://runs/{run_id}/outputs/value",
        ):
            content = (await client.read_resource(uri)).contents[0]
            assert "json" in content.mime_type
            json.loads(content.text)
        output = await client.read_resource(f"flow://runs/{run_id}/outputs/value")
        assert json.loads(output.contents[0].text) == "x"
        reference = (await client.read_resource("flow://reference/best-practices")).contents[0]
        assert reference.mime_type == "text/markdown"


@pytest.mark.parametrize(
    "uri",
    [
        "flow://runs/run_nothing",
        "flow://runs/run_nothing/events",
        "flow://runs/run_nothing/outputs/a",
        "flow://flows/nothing",
        "flow://flows/..",
        "flow://reference/nothing",
        "flow://nothing",
        "other://nothing",
    ],
)
async def test_a_resource_that_is_not_there_is_invalid_params_with_its_uri(live: Any, era: str, uri: str) -> None:
    async with live.client(era) as client:
        with pytest.raises(MCPError) as caught:
            await client.read_resource(uri)
    assert caught.value.error.code == -32602
    assert caught.value.error.data == {"uri": uri}


async def test_texts_may_be_kept_and_live_state_may_not(live: Any) -> None:
    async with live.client("2026-07-28") as client:
        tools = await client.list_tools()
        assert tools.ttl_ms > 0
        assert tools.cache_scope == "public"
        text = await client.read_resource("flow://reference/format")
        assert (text.ttl_ms > 0, text.cache_scope) == (True, "public")
        state = await client.read_resource("flow://scheduler")
        assert (state.ttl_ms, state.cache_scope) == (0, "private")


async def test_ids_in_templates_are_completed(live: Any, era: str) -> None:
    from mcp_types import ResourceTemplateReference

    async with live.client(era) as client:
        await call(client, "create_flow", flow_id="complete-me", workflow_def=live.flow(live.value_task()))
        run = await call(client, "execute_flow", flow_id="complete-me", wait_s=20)

        async def complete(uri: str, name: str, value: str, known: dict[str, str] | None = None) -> list[str]:
            found = await client.complete(
                ResourceTemplateReference(uri=uri), {"name": name, "value": value}, context_arguments=known
            )
            return list(found.completion.values)

        assert await complete("flow://flows/{flow_id}", "flow_id", "comp") == ["complete-me"]
        assert await complete("flow://reference/{topic}", "topic", "e") == ["expressions", "engines"]
        assert await complete("flow://runs/{run_id}", "run_id", "run_") == [run["run_id"]]
        outputs = "flow://runs/{run_id}/outputs/{task}"
        assert await complete(outputs, "task", "", {"run_id": run["run_id"]}) == ["value"]
        assert await complete(outputs, "task", "", {"run_id": "nothing"}) == []


async def test_several_clients_at_once_see_the_same_runs(live: Any) -> None:
    run_ids: list[str] = []

    async def work(era: str, number: int) -> None:
        async with live.client(era) as client:
            run = await call(client, "execute_flow", workflow_def=live.flow(live.value_task(value=number)), wait_s=30)
            assert run["output"] == {"value": number}
            run_ids.append(run["run_id"])

    with anyio.fail_after(40):
        async with anyio.create_task_group() as group:
            for number in range(8):
                group.start_soon(work, "legacy" if number % 2 else "2026-07-28", number)
    async with live.client("legacy") as client:
        rows = (await call(client, "list_flows", kind="runs"))["runs"]
    assert {row["run_id"] for row in rows} == set(run_ids)


async def test_a_client_that_cancels_its_call_does_not_touch_the_run(live: Any, era: str) -> None:
    async with live.client(era) as client:
        run = await call(client, "execute_flow", workflow_def=live.flow(live.gate_task(x=1)))
        with anyio.fail_after(30):
            await live.gate.reached.wait()
        async with anyio.create_task_group() as group:
            group.start_soon(client.call_tool, "wait_for_flow", {"run_id": run["run_id"], "timeout_s": 45})
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
        live.gate.opened.set()
        ended = await call(client, "wait_for_flow", run_id=run["run_id"], timeout_s=20)
        assert ended["state"] == "completed"


async def test_a_client_that_vanishes_in_mid_call_does_not_touch_the_run(live: Any, era: str) -> None:
    async with anyio.create_task_group() as group:

        async def vanish() -> None:
            async with live.client(era) as client:
                await client.call_tool("execute_flow", {"workflow_def": live.flow(live.gate_task()), "wait_s": 45})

        group.start_soon(vanish)
        with anyio.fail_after(30):
            await live.gate.reached.wait()
        group.cancel_scope.cancel()
    live.gate.opened.set()
    run = (await live.service.list_runs()).runs[0]
    ended = await live.service.wait(run.run_id, timeout_s=20)
    assert ended.state == "completed"
