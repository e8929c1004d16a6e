"""The HTTP API: what the library answers, over the whole application in this process."""

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx
import pytest
from jsonschema import Draft202012Validator

from contexten.extensions.flow.triggers.model import TriggerKind
from contexten_server.api import flows
from contexten_server.api import history as api_history
from contexten_server.api import notifications as api_notifications
from contexten_server.api import triggers as api_triggers
from contexten_server.assembly import program_version
from contexten_server.http import http_app
from contexten_tools import authoring, history, notifications, triggers
from contexten_tools.arguments import Arguments, input_schema

pytestmark = pytest.mark.anyio


@pytest.fixture
async def web(live: Any) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(http_app(live.server, live.app, host="127.0.0.1"))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        yield client


async def _ended(live: Any, run_id: str) -> None:
    with anyio.fail_after(10):
        await live.service.wait(run_id)


async def _error(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (status, code), error
    assert error["message"]
    assert error["next"]
    assert isinstance(error["retryable"], bool)
    return dict(error)


async def test_a_flow_is_saved_run_and_read(web: httpx.AsyncClient, live: Any) -> None:
    definition = live.flow(live.value_task(), output="{{ tasks.value.output }}")
    saved = await web.post("/api/flows", json={"workflow_def": definition, "name": "Answers", "flow_id": "answers"})
    assert (saved.status_code, saved.json()["version"]) == (200, 1)
    started = await web.post("/api/runs", json={"flow_id": "answers", "inputs": {}})
    run_id = started.json()["run_id"]
    await _ended(live, run_id)
    run = (await web.get(f"/api/runs/{run_id}", params={"detail": "tasks"})).json()
    assert (run["state"], run["tasks"][0]["name"]) == ("completed", "value")
    assert (await web.get(f"/api/runs/{run_id}/output")).json() == 42
    assert (await web.get(f"/api/runs/{run_id}/outputs/value")).json() == 42
    assert (await web.get(f"/api/runs/{run_id}/explanation")).json()["subject"] == "run"
    assert (await web.get("/api/flows/answers/explanation")).json()["subject"] == "flow"
    assert (await web.get("/api/flows/answers")).json()["definition"] == {"name": "Answers", **definition}
    flows = (await web.get("/api/flows", params={"status": "completed"})).json()["flows"]
    assert [flow["latest_run"]["run_id"] for flow in flows] == [run_id]


async def test_what_changed_is_in_the_journal_under_the_callers_name(web: httpx.AsyncClient, live: Any) -> None:
    started = await web.post(
        "/api/runs", json={"workflow_def": live.flow(live.value_task())}, headers={"User-Agent": "curl/8.5.0 x"}
    )
    run_id = started.json()["run_id"]
    await _ended(live, run_id)
    first = (await web.get(f"/api/runs/{run_id}/events", params={"limit": 1})).json()
    assert (first["more"], first["events"][0]["actor"]) == (True, "curl/http/execute_flow")
    rest = (await web.get(f"/api/runs/{run_id}/events", params={"since": first["events"][0]["cursor"]})).json()
    assert (rest["more"], rest["events"][-1]["type"]) == (False, "run.completed")
    shown = await web.post(
        "/api/runs", json={"workflow_def": live.flow(live.value_task())}, headers={"Sec-Fetch-Site": "same-origin"}
    )
    journal = (await web.get(f"/api/runs/{shown.json()['run_id']}/events")).json()["events"]
    assert journal[0]["actor"] == "dashboard/http/execute_flow"


async def test_a_run_is_paused_resumed_cancelled_and_retried(web: httpx.AsyncClient, live: Any) -> None:
    started = await web.post("/api/runs", json={"workflow_def": live.flow(live.gate_task())})
    run_id = started.json()["run_id"]
    with anyio.fail_after(10):
        await live.gate.reached.wait()

        async def act(action: str, **more: Any) -> httpx.Response:
            return await web.post(f"/api/runs/{run_id}/actions", json={"action": action, **more})

        assert (await act("pause", reason="lunch")).status_code == 200
        assert (await act("resume")).status_code == 200
        assert (await act("cancel", reason="no more")).status_code == 200
        await _ended(live, run_id)
        assert (await web.get(f"/api/runs/{run_id}")).json()["reason"] == "no more"
        await _error(await act("resume"), 409, "illegal_move")
        retried = (await act("retry")).json()
        assert retried["rerun_of"] == run_id
        live.gate.opened.set()
        await _ended(live, retried["run_id"])


async def test_a_flow_gets_a_new_version_by_a_patch(web: httpx.AsyncClient, live: Any) -> None:
    await web.post("/api/flows", json={"workflow_def": live.flow(live.value_task()), "flow_id": "patched"})
    patch = [{"op": "replace", "path": "/stages/0/tasks/0/parameters/data", "value": 7}]
    assert (await web.put("/api/flows/patched", json={"patch": patch})).json()["version"] == 2
    first = (await web.get("/api/flows/patched", params={"version": 1})).json()
    assert first["definition"]["stages"][0]["tasks"][0]["parameters"]["data"] == 42
    await _error(await web.put("/api/flows/patched", json={}), 422, "invalid_arguments")
    await _error(await web.put("/api/flows/other", json={"patch": patch}), 404, "flow_not_found")


async def test_a_definition_is_checked_without_being_saved(web: httpx.AsyncClient, live: Any) -> None:
    fine = (await web.post("/api/check", json={"workflow_def": live.flow(live.value_task())})).json()
    assert (fine["ok"], fine["issues"], fine["plan"]["tasks"]) == (True, [], 1)
    wrong = {"stages": [{"name": "main", "tasks": [{"name": "a", "required_tools": ["data_procesor"]}]}]}
    found = await web.post("/api/check", json={"workflow_def": wrong})
    assert (found.status_code, found.json()["ok"]) == (200, False)
    assert found.json()["issues"][0]["path"] == "/stages/0/tasks/0/required_tools/0"
    text = (await web.post("/api/check", json={"workflow_def": '{"stages": ['})).json()
    assert (text["ok"], bool(text["issues"])) == (False, True)
    assert (await web.get("/api/flows")).json() == {"flows": []}


async def test_a_definition_is_checked_as_a_patch_leaves_it(web: httpx.AsyncClient, live: Any) -> None:
    wrong = {"stages": [{"name": "main", "tasks": [{"name": "a", "required_tools": ["data_procesor"]}]}]}
    found = (await web.post("/api/check", json={"workflow_def": wrong})).json()
    assert "definition" not in found
    patch = found["issues"][0]["patch"]
    for given in (wrong, json.dumps(wrong)):
        mended = (await web.post("/api/check", json={"workflow_def": given, "patch": patch})).json()
        assert mended["definition"]["stages"][0]["tasks"][0]["required_tools"] == ["data_processor"]
        assert found["issues"][0] not in mended["issues"]
    twice = (await web.post("/api/check", json={"workflow_def": '{"stages": [], "stages": []}', "patch": patch})).json()
    assert "definition" not in twice
    assert twice["issues"][0]["code"] == "duplicate_key"
    for given in (wrong, "no JSON"):  # what is no patch is refused, whatever it is for
        await _error(await web.post("/api/check", json={"workflow_def": given, "patch": [1]}), 422, "invalid_arguments")
    astray = [{"op": "remove", "path": "/nowhere"}]
    refused = await web.post("/api/check", json={"workflow_def": wrong, "patch": astray})
    assert (await _error(refused, 422, "invalid_arguments"))["issues"][0]["path"] == "/0"
    to_text = [{"op": "replace", "path": "", "value": "{}"}]
    refused = await web.post("/api/check", json={"workflow_def": wrong, "patch": to_text})
    await _error(refused, 422, "invalid_arguments")


@pytest.mark.parametrize(
    ("asked", "argued"),
    [
        (flows.NewFlow, authoring.CreateFlow),
        (flows.FlowChange, authoring.UpdateFlow),
        (api_triggers.NewTrigger, triggers.CreateTrigger),
        (api_triggers.TriggerChange, triggers.UpdateTrigger),
        (api_triggers.TriggerTry, triggers.TestTrigger),
        (api_notifications.NewNotification, notifications.CreateNotification),
        (api_history.HistoryAsked, history.GetHistory),
    ],
    ids=lambda model: str(model.__name__),
)
def test_the_api_bounds_what_it_is_given_as_the_tools_do(asked: type[Arguments], argued: type[Arguments]) -> None:
    over_http, over_mcp = (input_schema(model)["properties"] for model in (asked, argued))
    words = ("description", "examples")
    for name in over_http.keys() & over_mcp.keys():
        told = [{key: part for key, part in found[name].items() if key not in words} for found in (over_http, over_mcp)]
        assert told[0] == told[1], name


async def test_search_finds_parts_of_names_ids_and_tags_in_any_case(web: httpx.AsyncClient, live: Any) -> None:
    for name, tags in (("Daily Report", ["finance"]), ("100% sure", []), ("cleanup_all", ["Night"])):
        definition = live.flow(live.value_task(), tags=tags)
        flow_id = name.split()[0].lower().strip("%")
        await web.post("/api/flows", json={"workflow_def": definition, "name": name, "flow_id": flow_id})
        await _ended(live, (await web.post("/api/runs", json={"flow_id": flow_id})).json()["run_id"])

    async def found(kind: str, search: str) -> list[str]:
        rows = (await web.get(f"/api/{kind}", params={"search": search})).json()[kind]
        return [row["name"] for row in rows]

    for kind in ("flows", "runs"):
        assert await found(kind, "REPORT") == ["Daily Report"]
        assert await found(kind, "fInAn") == ["Daily Report"]
        assert await found(kind, "night") == ["cleanup_all"]
        assert await found(kind, "%") == ["100% sure"]
        assert await found(kind, "_") != []  # in every id of a run
        assert await found(kind, "\\") == []
        assert await found(kind, "nothing like it") == []
    assert await found("flows", "p_a") == ["cleanup_all"]
    run_id = (await web.get("/api/runs", params={"search": "daily"})).json()["runs"][0]["run_id"]
    assert await found("runs", run_id.upper()) == ["Daily Report"]


async def test_pages_belong_to_their_search(web: httpx.AsyncClient, live: Any) -> None:
    for number in range(3):
        await web.post(
            "/api/flows", json={"workflow_def": live.flow(live.value_task(value=number)), "name": f"f{number}"}
        )
    first = (await web.get("/api/flows", params={"search": "f", "limit": 2})).json()
    rest = await web.get("/api/flows", params={"search": "f", "limit": 2, "page": first["next_page"]})
    assert [flow["name"] for flow in first["flows"] + rest.json()["flows"]] == ["f2", "f1", "f0"]
    other = await web.get("/api/flows", params={"search": "g", "page": first["next_page"]})
    await _error(other, 422, "invalid_arguments")


async def test_the_queue_tells_why_each_run_waits(web: httpx.AsyncClient, live: Any) -> None:
    changed = await web.post("/api/strategy", json={"strategy": "priority", "max_concurrent_flows": 1})
    assert changed.json()["after"] == {"strategy": "priority", "max_concurrent_flows": 1}
    definition = live.flow(live.gate_task())
    with anyio.fail_after(10):
        holder = (await web.post("/api/runs", json={"workflow_def": definition})).json()["run_id"]
        await live.gate.reached.wait()
        low = (await web.post("/api/runs", json={"workflow_def": definition, "priority": 4})).json()["run_id"]
        high = (await web.post("/api/runs", json={"workflow_def": definition, "priority": 0})).json()["run_id"]
        held = (await web.post("/api/runs", json={"workflow_def": definition, "dependencies": [low]})).json()["run_id"]
        queue = (await web.get("/api/queue")).json()
        assert (queue["strategy"], queue["queued"], queue["held"]) == ("priority", 2, 1)
        assert [entry["run"]["run_id"] for entry in queue["runs"]] == [high, low, held]
        reasons = [entry["waiting_for"] for entry in queue["runs"]]
        for found, run_id in zip(reasons, (high, low, held), strict=True):
            assert found == (await live.service.explain(run_id=run_id)).waiting_for
        assert holder in reasons[0][0]
        assert low in reasons[2][0]
        short = (await web.get("/api/queue", params={"limit": 1})).json()
        assert [entry["run"]["run_id"] for entry in short["runs"]] == [high, held]
        live.gate.opened.set()
        await _ended(live, held)


async def test_the_whole_is_told_at_a_glance(web: httpx.AsyncClient, live: Any) -> None:
    run_id = (await web.post("/api/runs", json={"workflow_def": live.flow(live.value_task())})).json()["run_id"]
    await _ended(live, run_id)
    overview = (await web.get("/api/overview")).json()
    assert overview == {"version": program_version(), "read_only": False, "runs": {"completed": 1}}
    agents = (await web.get("/api/agents")).json()["agents"]
    assert {agent["name"] for agent in agents} >= {"gate", "builtin"}
    assert (await web.get("/api/metrics")).json()["flows"]["runs_by_state"] == overview["runs"]
    assert (await web.get("/api/scheduler")).json()["running"] == 0
    forecast = (await web.get("/api/strategy/forecast", params={"slots": 3})).json()
    assert forecast["slots"] == 3
    assert (await web.post("/api/strategy", json={"strategy": "priority", "dry_run": True})).json()["dry_run"] is True


async def test_all_that_is_wrong_in_a_request_is_told_with_its_place(web: httpx.AsyncClient) -> None:
    wrong = await web.post("/api/runs", json={"flow": "x", "priority": True, "timeout_s": -1})
    error = await _error(wrong, 422, "invalid_arguments")
    issues = {issue["path"]: issue for issue in error["issues"]}
    assert issues.keys() == {"/flow", "/priority", "/timeout_s"}
    assert issues["/flow"]["patch"] == [{"op": "move", "from": "/flow", "path": "/flow_id"}]
    wrong = await web.get("/api/runs", params={"limit": "many", "stat": "failed"})
    issues = {issue["path"]: issue for issue in (await _error(wrong, 422, "invalid_arguments"))["issues"]}
    assert issues.keys() == {"/limit", "/stat"}
    assert issues["/stat"]["suggestion"] == "status"
    assert (await _error(await web.get("/api/agents?nam=x"), 422, "invalid_arguments"))["issues"][0]["path"] == "/nam"
    await _error(await web.post("/api/runs", json=[]), 422, "invalid_arguments")
    wrong = await web.post("/api/flows", json={"workflow_def": {"stages": []}})
    assert (await _error(wrong, 422, "invalid_definition"))["issues"][0]["path"].startswith("/stages")


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"flow_id": "a", "flow_id": "b"}',
        b'{"timeout_s": NaN}',
        b'{"flow_id": "\\ud800"}',
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"timeout_s": ' + b"9" * 5000 + b"}",
    ],
    ids=["cut", "twice", "nan", "surrogate", "bytes", "deep", "long number"],
)
async def test_a_body_that_is_not_json_is_refused_as_such(web: httpx.AsyncClient, body: bytes) -> None:
    refused = await web.post("/api/runs", content=body, headers={"Content-Type": "application/json"})
    await _error(refused, 400, "malformed_json")


@pytest.mark.parametrize("path", ["/api/flows", "/api/overview", "/api/events"])
async def test_a_parameter_that_is_given_twice_is_refused(web: httpx.AsyncClient, path: str) -> None:
    error = await _error(await web.get(f"{path}?limit=1&limit=2&x"), 422, "invalid_arguments")
    assert [(issue["path"], issue["code"]) for issue in error["issues"]] == [("/limit", "duplicate_argument")]


async def test_head_tells_what_get_would_without_a_body(web: httpx.AsyncClient) -> None:
    for path in ("/api/flows", "/api/openapi.json", "/api/runs/nothing", "/", "/healthz"):
        asked, got = await web.head(path), await web.get(path)
        assert (asked.status_code, asked.headers["content-type"]) == (got.status_code, got.headers["content-type"])
        assert path == "/" or asked.content == b""
    with anyio.fail_after(10):
        assert (await web.head("/api/events")).headers["content-type"].startswith("text/event-stream")
    assert (await web.head("/api/check")).status_code == 405


async def test_an_error_shows_the_beginning_of_an_id_that_is_too_long(web: httpx.AsyncClient) -> None:
    for path, operations in (await web.get("/api/openapi.json")).json()["paths"].items():
        if "{" in path:
            long = re.sub(r"{\w+}", "x" * 5000, path)
            for method in operations:
                refused = await web.request(method, f"/api{long}", json={"action": "cancel"})
                assert 400 <= refused.status_code < 500, (method, path)
                assert "x" * 201 not in refused.text, (method, path)
    assert "x" * 201 not in (await web.get(f"/api/{'x' * 5000}")).text


async def test_what_is_not_there_is_told_in_the_same_shape(web: httpx.AsyncClient) -> None:
    await _error(await web.get("/api/nothing"), 404, "not_found")
    await _error(await web.get("/api/runs/run_0"), 404, "run_not_found")
    await _error(await web.get("/api/runs/run_0/outputs/x"), 404, "run_not_found")
    await _error(await web.get("/api/runs", params={"flow_id": "none"}), 404, "flow_not_found")
    await _error(await web.post("/api/runs", json={"flow_id": "none"}), 404, "flow_not_found")
    refused = await web.request("PUT", "/api/runs", json={})
    await _error(refused, 405, "method_not_allowed")
    assert "GET" in refused.headers["allow"]


async def test_a_fault_of_ours_tells_nothing_of_itself(
    web: httpx.AsyncClient, live: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> None:
        raise RuntimeError("/home/somebody/secret")

    monkeypatch.setattr(live.service, "metrics", fail)
    answer = await web.get("/api/metrics")
    error = await _error(answer, 500, "internal_error")
    assert "secret" not in answer.text
    fault_id = error["message"].rpartition("id ")[2].rstrip(").")
    assert fault_id in caplog.text


async def test_answers_and_errors_are_what_the_document_says(web: httpx.AsyncClient, live: Any) -> None:
    document = (await web.get("/api/openapi.json")).json()
    assert (document["openapi"][:3], document["servers"]) == ("3.1", [{"url": "/api"}])
    operations = [
        operation
        for methods in document["paths"].values()
        for name, operation in methods.items()
        if name != "parameters"
    ]
    names = [operation["operationId"] for operation in operations]
    assert len(names) == len(set(names))
    for operation in operations:
        assert operation["tags"]
        assert operation["description"]
        assert {"200", "401", "404", "422", "503"} <= operation["responses"].keys()
    await _ended(
        live, (await web.post("/api/runs", json={"workflow_def": live.flow(live.value_task())})).json()["run_id"]
    )

    def validate(answer: httpx.Response, schema: dict[str, Any]) -> None:
        Draft202012Validator({**schema, "components": document["components"]}).validate(answer.json())

    for path in ("/runs", "/flows", "/overview", "/queue", "/agents", "/metrics", "/trigger-kinds"):
        content = document["paths"][path]["get"]["responses"]["200"]["content"]
        validate(await web.get(f"/api{path}"), content["application/json"]["schema"])
    validate(await web.get("/api/runs?limit=0&x=1"), {"$ref": "#/components/schemas/ErrorAnswer"})


async def test_history_is_told_and_exported(web: httpx.AsyncClient, live: Any) -> None:
    run_id = (await web.post("/api/runs", json={"workflow_def": live.flow(live.value_task())})).json()["run_id"]
    await _ended(live, run_id)
    assert (await web.get("/api/history", params={"by": "day"})).json()["rows"][0]["runs"] == 1
    await _error(await web.get("/api/history", params={"by": "hour"}), 422, "invalid_arguments")
    await _error(await web.get("/api/history", params={"since": "yesterday-ish"}), 422, "invalid_arguments")
    runs = await web.get("/api/export/runs.jsonl")
    assert runs.headers["content-type"].startswith("application/jsonl")
    assert [json.loads(line)["run_id"] for line in runs.text.splitlines()] == [run_id]
    events = await web.get("/api/export/events.csv")
    assert events.headers["content-disposition"] == 'attachment; filename="events.csv"'
    assert events.text.splitlines()[0].startswith("seq,at,type")
    await _error(await web.get("/api/export/runs.csv", params={"flow_id": "none"}), 404, "flow_not_found")
    await _error(await web.get("/api/export/runs.xml"), 404, "not_found")


async def test_notifications_are_made_shown_and_removed(web: httpx.AsyncClient) -> None:
    asked = {"kind": "webhook", "url": "https://example.com/hook?token=hidden", "events": ["run.failed"]}
    made = (await web.post("/api/notifications", json=asked)).json()
    assert made["secret"].startswith("whsec_")
    path = f"/api/notifications/{made['notification_id']}"
    shown = await web.get(path)
    assert "secret" not in shown.json()
    assert "hidden" not in shown.text
    assert len((await web.get("/api/notifications")).json()["notifications"]) == 1
    assert (await web.patch(path, json={"enabled": False})).json()["enabled"] is False
    assert (await web.patch(path, json={"enabled": True})).json()["enabled"] is True
    await _error(await web.patch(path, json={}), 422, "invalid_arguments")
    assert (await web.get("/api/dispatches", params={"state": "dead"})).json() == {"dispatches": []}
    assert (await web.delete(path)).status_code == 200
    await _error(await web.get(path), 404, "notification_not_found")
    await _error(await web.post("/api/dispatches/dsp_0/retry", json={}), 404, "dispatch_not_found")
    await _error(await web.post("/api/notifications", json={"kind": "pigeon"}), 422, "invalid_arguments")


async def test_each_kind_of_trigger_is_told_with_the_schema_of_its_config(web: httpx.AsyncClient) -> None:
    kinds = (await web.get("/api/trigger-kinds")).json()
    assert kinds.keys() == set(TriggerKind)
    for schema in kinds.values():
        Draft202012Validator.check_schema(schema)
        assert schema["properties"].keys() >= {"rate", "max_active", "max_pending"}
    assert kinds["cron"]["required"] == ["expression"]
    start_at = kinds["interval"]["properties"]["start_at"]
    assert (start_at["type"], start_at["format"]) == ("string", "date-time")


async def test_a_trigger_may_have_any_id(web: httpx.AsyncClient, live: Any) -> None:
    await web.post("/api/flows", json={"workflow_def": live.flow(live.value_task()), "flow_id": "started"})
    for trigger_id in ("kinds", "trigger-kinds", "test"):
        asked = {"kind": "webhook", "flow_id": "started", "trigger_id": trigger_id}
        assert (await web.post("/api/triggers", json=asked)).is_success
        assert (await web.get(f"/api/triggers/{trigger_id}")).json()["trigger_id"] == trigger_id


async def test_triggers_are_made_tried_changed_and_removed(web: httpx.AsyncClient, live: Any) -> None:
    await web.post("/api/flows", json={"workflow_def": live.flow(live.value_task()), "flow_id": "started"})
    asked = {"kind": "webhook", "flow_id": "started", "filter": "event.payload.amount > 10", "trigger_id": "orders"}
    made = (await web.post("/api/triggers", json=asked)).json()
    assert (made["url"], made["secret"].startswith("whsec_")) == ("/hooks/orders", True)
    assert "secret" not in (await web.get("/api/triggers/orders")).json()
    listed = (await web.get("/api/triggers", params={"kind": "webhook", "flow_id": "started"})).json()["triggers"]
    assert [trigger["trigger_id"] for trigger in listed] == ["orders"]
    small = (await web.post("/api/triggers/orders/test", json={"payload": {"amount": 1}})).json()
    assert small["starts"] is False
    large = await web.post("/api/triggers/orders/test", json={"payload": {"amount": 11}, "start": True})
    delivery_id = large.json()["delivery"]["delivery_id"]
    assert (await web.get(f"/api/deliveries/{delivery_id}")).json()["payload"] == {"amount": 11}
    deliveries = (await web.get("/api/deliveries", params={"trigger_id": "orders"})).json()["deliveries"]
    assert [delivery["delivery_id"] for delivery in deliveries] == [delivery_id]
    assert (await web.post(f"/api/deliveries/{delivery_id}/redeliver", json={})).status_code == 200
    changed = (await web.patch("/api/triggers/orders", json={"enabled": False})).json()
    assert (changed["enabled"], changed["filter"]) == (False, asked["filter"])
    changed = (await web.patch("/api/triggers/orders", json={"inputs": {"a": 1}, "name": None})).json()
    assert (changed["inputs"], changed["filter"], changed["name"]) == ({"a": 1}, asked["filter"], made["name"])
    changed = (await web.patch("/api/triggers/orders", json={"inputs": None, "filter": None})).json()
    assert not {"inputs", "filter"} & {name for name, value in changed.items() if value is not None}
    assert (await web.delete("/api/triggers/orders")).status_code == 200
    await _error(await web.get("/api/triggers/orders"), 404, "trigger_not_found")
    await _error(await web.get("/api/deliveries/dlv_0"), 404, "delivery_not_found")
    wrong = await web.post("/api/triggers", json={"kind": "cron", "flow_id": "started", "config": {"expression": "?"}})
    assert (await _error(wrong, 422, "invalid_arguments"))["issues"][0]["path"].startswith("/config")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/runs", {"flow_id": "f", "framework": None, "on_deadline": None, "on_dependency_failure": None}),
        ("/api/runs", {"flow_id": "f", "inputs": None, "priority": None, "dependencies": None, "deadline": None}),
        ("/api/strategy", {"strategy": "fifo", "dry_run": None}),
        ("/api/triggers/t/test", {"payload": None, "start": None}),
        ("/api/notifications", {"kind": "webhook", "url": "https://example.com/", "events": None}),
    ],
    ids=["run", "run's nothings", "strategy", "trigger", "notification"],
)
async def test_null_is_the_default_of_what_may_be_left_out(
    web: httpx.AsyncClient, live: Any, path: str, body: dict[str, Any]
) -> None:
    await web.post("/api/flows", json={"workflow_def": live.flow(live.value_task()), "flow_id": "f"})
    await web.post("/api/triggers", json={"kind": "webhook", "flow_id": "f", "trigger_id": "t"})
    answer = await web.post(path, json=body)
    assert answer.is_success, answer.text
    document = (await web.get("/api/openapi.json")).json()
    route = next(name for name in document["paths"] if re.fullmatch(re.sub(r"{\w+}", r"\\w+", name), path[4:]))
    told = document["paths"][route]["post"]["requestBody"]["content"]["application/json"]["schema"]
    Draft202012Validator({**told, "components": document["components"]}).validate(body)
    for name in {name for name, value in body.items() if value is not None}:
        refused = await web.post(path, json={**body, name: None})
        assert refused.status_code == 422, name
