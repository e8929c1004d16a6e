"""Large answers are cut at a number of characters, stay valid JSON, and say how to get the rest."""

import json
from typing import Any

import pytest

pytestmark = pytest.mark.anyio


async def call(client: Any, tool: str, **arguments: Any) -> tuple[dict[str, Any], int]:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    assert json.loads(result.content[0].text) == result.structured_content
    return result.structured_content, len(result.content[0].text)


async def test_an_output_that_fits_comes_whole(live: Any, era: str) -> None:
    async with live.client(era) as client:
        run, _ = await call(
            client, "execute_flow", workflow_def=live.flow(live.value_task(value="x" * 15_000)), wait_s=20
        )
        assert "output" not in run
        assert run["has_output"] is True
        status, _ = await call(client, **run["next"]["arguments"], tool=run["next"]["tool"])
        assert status["output"] == {"value": "x" * 15_000}
        assert "output_truncated" not in status


@pytest.mark.parametrize("max_chars", [500, 2_000, 20_000, 90_000])
async def test_following_next_gives_the_whole_of_a_large_output(live: Any, era: str, max_chars: int) -> None:
    value = [{"row": number, "text": 'quo"ted \\ \u00fcnicode \U0001f600'} for number in range(max_chars // 12)]
    async with live.client(era) as client:
        run, _ = await call(client, "execute_flow", workflow_def=live.flow(live.value_task(value=value)), wait_s=40)
        step: dict[str, Any] | None = {
            "run_id": run["run_id"],
            "detail": "output",
            "task": "value",
            "max_chars": max_chars,
        }
        text = ""
        while step is not None:
            status, chars = await call(client, "get_flow_status", **step)
            assert chars <= max_chars
            cut = status["output_truncated"]
            assert cut["from"] == len(text)
            assert cut["shown"] == len(cut["preview"])
            text += cut["preview"]
            step = cut["next"]["arguments"] if "next" in cut else None
        assert len(text) == cut["chars"]
        assert json.loads(text) == value


async def test_a_cut_output_names_the_resource_that_has_it_whole(live: Any, era: str) -> None:
    value = ["\u00fc" * 50] * 800
    async with live.client(era) as client:
        run, _ = await call(client, "execute_flow", workflow_def=live.flow(live.value_task(value=value)), wait_s=40)
        status, _ = await call(client, "get_flow_status", run_id=run["run_id"], detail="output", task="value")
        whole = await client.read_resource(status["output_truncated"]["resource"])
    assert json.loads(whole.contents[0].text) == value


async def test_the_resource_of_a_very_large_output_has_its_beginning_and_the_way_to_the_rest(
    live: Any, era: str
) -> None:
    value = ['quo"ted \\ \u00fc\U0001f600' * 20] * 900
    async with live.client(era) as client:
        run, _ = await call(client, "execute_flow", workflow_def=live.flow(live.value_task(value=value)), wait_s=40)
        read = await client.read_resource(f"flow://runs/{run['run_id']}/outputs/value")
        assert 190_000 < len(read.contents[0].text) <= 200_000
        cut = json.loads(read.contents[0].text)["output_truncated"]
        assert cut["shown"] == len(cut["preview"])
        text = cut["preview"]
        while "next" in cut:
            status, _ = await call(client, cut["next"]["tool"], **cut["next"]["arguments"])
            cut = status["output_truncated"]
            assert "resource" not in cut
            text += cut["preview"]
    assert json.loads(text) == value


@pytest.mark.parametrize("detail", ["summary", "tasks", "graph", "events", "output", "definition"])
async def test_the_least_number_of_characters_is_kept_to_and_the_next_call_is_whole(
    live: Any, era: str, detail: str
) -> None:
    tasks = [live.value_task(f"a_rather_long_name_of_a_task_{number:04}", "v" * 300) for number in range(20)]
    failing = {"name": "failing", "required_tools": ["data_processor"], "parameters": {"data": 1, "query": "length(@)"}}
    stage = {"name": "main", "execution_mode": "parallel", "tasks": [*tasks, failing]}
    definition = {
        "name": "A report of some length",
        "tags": ["t" * 100],
        "stages": [stage],
        "continue_on_failure": True,
    }
    async with live.client(era) as client:
        run, _ = await call(client, "execute_flow", workflow_def=definition, wait_s=40)
        status, chars = await call(
            client, "get_flow_status", run_id=run["run_id"], detail=detail, task=None, max_chars=500
        )
        assert chars <= 500
        assert status["run_id"] == run["run_id"]
        if detail == "events":
            assert status["more_events"] is True
            assert status["cursor"] == status["events"][-1]["cursor"]
            return
        assert status["cursor"] == run["cursor"]
        step = status["output_truncated"]["next"] if detail != "summary" else status["next"]
        if detail == "tasks":
            assert step.endswith("has all.")
        else:
            assert not (await client.call_tool(step["tool"], step["arguments"])).is_error


@pytest.mark.parametrize("detail", ["output", "definition"])
@pytest.mark.parametrize("since", ["text--5", "text-", "text-1x", "text-9999999999999"])
async def test_a_place_that_is_none_is_refused(live: Any, detail: str, since: str) -> None:
    async with live.client("legacy") as client:
        run, _ = await call(client, "execute_flow", workflow_def=live.flow(live.value_task()), wait_s=20)
        result = await client.call_tool(
            "get_flow_status", {"run_id": run["run_id"], "detail": detail, "since": since, "max_chars": 2000}
        )
    error = result.structured_content["error"]
    assert (error["code"], error["issues"][0]["path"]) == ("invalid_arguments", "/since")


async def test_a_task_alone_is_never_overlooked(live: Any, era: str) -> None:
    task = live.value_task("one", "v")
    async with live.client(era) as client:
        saved, _ = await call(client, "create_flow", workflow_def=live.flow(task, live.value_task("two", "v")))
        of_flow = {"flow_id": saved["flow_id"], "task": "one"}
        status, _ = await call(client, "get_flow_status", **of_flow, detail="definition")
        assert status["definition"] == task
        run, _ = await call(client, "execute_flow", flow_id=saved["flow_id"], wait_s=20)
        status, _ = await call(client, "get_flow_status", run_id=run["run_id"], task="one")
        assert [found["name"] for found in status["tasks"]] == ["one"]
        for subject in ({"run_id": run["run_id"]}, {"flow_id": saved["flow_id"]}):
            status, _ = await call(client, "get_flow_status", **subject, task="one", detail="definition")
            assert status["definition"] == task
            unknown = {**subject, "task": "three", "detail": "definition"}
            result = await client.call_tool("get_flow_status", unknown)
            assert result.structured_content["error"]["code"] == "task_not_found"


async def test_events_are_cut_and_since_goes_on_without_a_gap(live: Any, era: str) -> None:
    tasks = [live.value_task(f"task_{number}", "v") for number in range(40)]
    async with live.client(era) as client:
        run, _ = await call(client, "execute_flow", workflow_def=live.flow(*tasks), wait_s=40)
        assert run["state"] == "completed"
        expected = [event.cursor for event in await live.service.events(run["run_id"], limit=1000)]
        found: list[str] = []
        since: dict[str, str] = {}
        for _ in range(200):
            status, chars = await call(
                client, "get_flow_status", run_id=run["run_id"], detail="events", max_chars=2_000, **since
            )
            assert chars <= 2_000
            found += [event["cursor"] for event in status["events"]]
            since = {"since": status["cursor"]}
            if not status.get("more_events"):
                break
        assert found == expected


async def test_tasks_are_cut_with_failed_ones_kept(live: Any, era: str) -> None:
    tasks = [live.value_task(f"task_{number}", "v") for number in range(60)]
    failing = {"name": "failing", "required_tools": ["data_processor"], "parameters": {"data": 1, "query": "length(@)"}}
    stage = {"name": "main", "execution_mode": "parallel", "tasks": [*tasks, failing]}
    async with live.client(era) as client:
        run, _ = await call(client, "execute_flow", workflow_def={"stages": [stage]}, wait_s=40)
        assert run["state"] == "failed"
        status, chars = await call(client, "get_flow_status", run_id=run["run_id"], detail="tasks", max_chars=3_000)
        assert chars <= 3_000
        assert "failing" in {task["name"] for task in status["tasks"]}
        cut = status["output_truncated"]
        assert (cut["what"], cut["total"]) == ("tasks", 61)
        assert cut["shown"] == len(status["tasks"]) < 61
        one, _ = await call(client, "get_flow_status", run_id=run["run_id"], detail="tasks", task="task_7")
        assert [task["name"] for task in one["tasks"]] == ["task_7"]


async def test_a_long_definition_is_paged_too(live: Any, era: str) -> None:
    tasks = [live.value_task(f"task_{number}", "v" * 300) for number in range(100)]
    async with live.client(era) as client:
        saved, _ = await call(client, "create_flow", workflow_def=live.flow(*tasks), flow_id="long")
        text, step = "", {"flow_id": "long", "detail": "definition"}
        while step:
            status, chars = await call(client, "get_flow_status", **step)
            assert chars <= 20_200
            text += status["output_truncated"]["preview"]
            step = status["output_truncated"].get("next", {}).get("arguments")
        assert len(json.loads(text)["stages"][0]["tasks"]) == 100
        assert saved["plan"]["tasks"] == 100


async def test_a_place_past_the_end_of_a_text_is_refused(live: Any, era: str) -> None:
    async with live.client(era) as client:
        run, _ = await call(client, "execute_flow", workflow_def=live.flow(live.value_task()), wait_s=20)
        result = await client.call_tool(
            "get_flow_status", {"run_id": run["run_id"], "detail": "output", "since": "text-99999"}
        )
    assert result.structured_content["error"]["issues"][0]["path"] == "/since"


async def test_the_output_of_a_run_that_has_none_yet_is_told_as_such(live: Any, era: str) -> None:
    async with live.client(era) as client:
        run, _ = await call(client, "execute_flow", workflow_def=live.flow(live.gate_task()))
        status, _ = await call(client, "get_flow_status", run_id=run["run_id"], detail="output")
        assert status["has_output"] is False
        assert status["next"]["tool"] == "wait_for_flow"
        live.gate.opened.set()


async def test_no_default_answer_is_beyond_what_hosts_let_through(live: Any) -> None:
    """Hosts cut a tool's text at 25,000 tokens."""
    tasks = [live.value_task(f"a_rather_long_name_of_a_task_{number:04}", "v") for number in range(400)]
    definition = {"stages": [{"name": "main", "execution_mode": "parallel", "tasks": tasks}]}
    async with live.client("legacy") as client:
        _, chars = await call(client, "create_flow", workflow_def=definition, flow_id="wide")
        assert chars <= 90_000
        run, chars = await call(client, "execute_flow", flow_id="wide", wait_s=45)
        assert chars <= 20_500
        for detail in ("summary", "tasks", "graph", "events", "output", "definition"):
            _, chars = await call(client, "get_flow_status", run_id=run["run_id"], detail=detail)
            assert chars <= 20_500
        _, chars = await call(client, "wait_for_flow", run_id=run["run_id"], since=run["cursor"])
        assert chars <= 20_500
        for tool in ("list_flows", "list_agents", "get_metrics", "get_reference"):
            _, chars = await call(client, tool)
            assert chars <= 90_000
        _, chars = await call(client, "explain_flow", flow_id="wide")
        assert chars <= 90_000


@pytest.mark.parametrize("max_chars", [500, 2_000])
async def test_the_graph_of_a_large_run_comes_in_parts_that_make_it_whole(live: Any, max_chars: int) -> None:
    stage = {
        "name": "wide",
        "execution_mode": "parallel",
        "tasks": [live.value_task(f"t{number}") for number in range(40)],
    }
    async with live.client("2026-07-28") as client:
        run, _ = await call(client, "execute_flow", workflow_def={"stages": [stage]}, wait_s=20)
        step: dict[str, Any] = {"run_id": run["run_id"], "detail": "graph", "max_chars": max_chars}
        text = ""
        while True:
            status, chars = await call(client, "get_flow_status", **step)
            assert chars <= max_chars
            assert "tasks" not in status
            text += status["output_truncated"]["preview"]
            if "next" not in status["output_truncated"]:
                break
            step = status["output_truncated"]["next"]["arguments"]
    whole = (await live.service.get_run(run["run_id"], detail="graph")).data()
    assert json.loads(text) == whole["graph"]


async def test_a_graph_that_fits_without_all_tasks_comes_whole_with_some_of_them(live: Any) -> None:
    stage = {
        "name": "wide",
        "execution_mode": "parallel",
        "tasks": [live.value_task(f"t{number}") for number in range(40)],
    }
    async with live.client("2026-07-28") as client:
        run, _ = await call(client, "execute_flow", workflow_def={"stages": [stage]}, wait_s=20)
        status, chars = await call(client, "get_flow_status", run_id=run["run_id"], detail="graph", max_chars=5_000)
    assert chars <= 5_000
    assert len(status["graph"]) == 40
    assert 0 < len(status["tasks"]) < 40
    assert status["output_truncated"]["what"] == "tasks"
