"""The toolsets `triggers` and `notifications`, by a real client in memory and over standard input and output."""

from __future__ import annotations

import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import jsonschema
import pytest
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters

from contexten.extensions.flow.live.watching import Change
from contexten.extensions.flow.service import FlowService
from contexten.extensions.flow.settings import FlowSettings
from contexten_resources import LiveUpdates
from contexten_server.assembly import build_server
from contexten_tools import App

pytestmark = pytest.mark.anyio

TRIGGERS = [
    "create_trigger",
    "update_trigger",
    "list_triggers",
    "delete_trigger",
    "test_trigger",
    "list_deliveries",
    "redeliver",
]
NOTIFICATIONS = [
    "create_notification",
    "update_notification",
    "list_notifications",
    "delete_notification",
    "test_notification",
    "list_dispatches",
    "retry_dispatch",
]
FLOW = {
    "stages": [
        {
            "name": "main",
            "tasks": [
                {
                    "name": "value",
                    "required_tools": ["data_processor"],
                    "parameters": {"data": "{{ inputs.ref }}", "query": "@"},
                }
            ],
        }
    ],
    "inputs": {"type": "object", "required": ["ref"], "properties": {"ref": {"type": "string"}}},
}


class Caller:
    """A client that checks each answer against the tool's schema."""

    def __init__(self, client: Client, schemas: dict[str, Any]) -> None:
        self._client = client
        self._schemas = schemas

    async def __call__(self, tool: str, **arguments: Any) -> dict[str, Any]:
        result = await self._client.call_tool(tool, arguments)
        assert not result.is_error, result.structured_content
        return self._checked(tool, result)

    async def refused(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """The error of a call that is refused."""
        result = await self._client.call_tool(tool, arguments)
        assert result.is_error, result.structured_content
        error: dict[str, Any] = self._checked(tool, result)["error"]
        return error

    def _checked(self, tool: str, result: Any) -> dict[str, Any]:
        found: dict[str, Any] = result.structured_content
        jsonschema.validate(found, self._schemas[tool])
        return found


async def caller(client: Client) -> Caller:
    return Caller(client, {tool.name: tool.output_schema for tool in (await client.list_tools()).tools})


class Served:
    """An open service, clients of a server with these toolsets over it, and what its journal says meanwhile."""

    def __init__(self, service: FlowService, updates: LiveUpdates) -> None:
        self._service = service
        self._updates = updates
        self._heard: list[str] = []
        self._news = anyio.Event()
        service.subscribe(self._hear)

    def client(self, era: str, *, read_only: bool = False) -> Client:
        app = App(
            service=self._service,
            settings=self._service.settings,
            transport="memory",
            toolsets=("default", "triggers", "notifications"),
            read_only=read_only,
        )
        return Client(build_server(app, updates=self._updates), mode="legacy" if era == "legacy" else "auto")

    def _hear(self, change: Change) -> None:
        self._heard.extend(change.types)
        self._news.set()

    async def has_heard(self, type_: str, number: int) -> None:
        """Wait until the journal had so many entries of that type."""
        with anyio.fail_after(30):
            while self._heard.count(type_) < number:
                self._news = anyio.Event()
                await self._news.wait()


@pytest.fixture
async def served(settings: FlowSettings) -> AsyncIterator[Served]:
    """Messages may go to this machine."""
    settings = settings.model_copy(update={"allow_hosts": ("127.0.0.1",)})
    async with FlowService(settings) as service, LiveUpdates() as updates:
        await service.create_flow(flow_id="deploy", workflow_def=FLOW)
        yield Served(service, updates)


@pytest.fixture
def unused_url() -> Iterator[str]:
    """An address of this machine at which nobody listens."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{reserved.getsockname()[1]}"


async def test_the_tools_are_listed_after_the_default_ones_and_say_what_they_do(served: Served, era: str) -> None:
    async with served.client(era) as client:
        tools = (await client.list_tools()).tools
    assert [tool.name for tool in tools[-14:]] == [*TRIGGERS, *NOTIFICATIONS]
    for tool in tools[-14:]:
        assert 80 < len((tool.description or "").encode()) < 2048, tool.name
        assert (tool.output_schema or {})["type"] == "object"
        assert tool.annotations is not None


async def test_a_read_only_server_offers_only_the_lists(served: Served, era: str) -> None:
    async with served.client(era, read_only=True) as client:
        names = [tool.name for tool in (await client.list_tools()).tools]
        refused = await client.call_tool("create_trigger", {"flow_id": "deploy", "kind": "webhook"})
    assert names[-4:] == ["list_triggers", "list_deliveries", "list_notifications", "list_dispatches"]
    assert refused.structured_content["error"]["code"] == "read_only"


async def test_a_trigger_is_made_tested_delivered_and_deleted(served: Served, era: str) -> None:
    async with served.client(era) as client:
        call = await caller(client)
        made = await call(
            "create_trigger",
            flow_id="deploy",
            kind="webhook",
            filter="event.payload.ref != ''",
            inputs={"ref": "{{ event.payload.ref }}"},
            trigger_id="on-push",
        )
        assert (made["trigger_id"], made["url"]) == ("on-push", "/hooks/on-push")
        assert made["secret"].startswith("whsec_")
        would = await call("test_trigger", trigger_id="on-push", payload={"ref": "main"}, type="push")
        assert (would["starts"], would["inputs"]) == (True, {"ref": "main"})
        would_not = await call("test_trigger", trigger_id="on-push", payload={"ref": ""})
        assert would_not["starts"] is False
        assert (await call("list_deliveries"))["deliveries"] == []
        started = await call("test_trigger", trigger_id="on-push", payload={"ref": "main"}, start=True)
        delivery_id = started["delivery"]["delivery_id"]
        run = await run_of(call, served, 1)
        assert (await call("get_flow_status", run_id=run, detail="output"))["output"] == {"value": "main"}
        again = await call("redeliver", delivery_id=delivery_id)
        assert again["redeliveries"] == 1
        assert await run_of(call, served, 2) != run
        assert (await call("list_deliveries"))["deliveries"][0]["earlier_run_ids"] == [run]
        kept = await call("update_trigger", trigger_id="on-push", name="Kept", inputs=None, filter=None)
        assert (kept.get("inputs"), kept.get("filter")) == (made.get("inputs"), made.get("filter"))
        changed = await call("update_trigger", trigger_id="on-push", name="On push", enabled=False, inputs={})
        assert [warning["code"] for warning in changed["warnings"]] == ["missing_input"]
        [listed] = (await call("list_triggers", flow_id="deploy", kind="webhook"))["triggers"]
        assert (listed["name"], listed["enabled"]) == ("On push", False)
        assert "secret" not in listed
        gone = await call("delete_trigger", trigger_id="on-push")
        assert gone["trigger_id"] == "on-push"
        assert (await call.refused("delete_trigger", trigger_id="on-push"))["code"] == "trigger_not_found"


async def run_of(call: Caller, served: Served, number: int) -> str:
    """Wait for a delivery to start its run, the so many-th, and for the run's end; answers the run's id."""
    await served.has_heard("trigger.started", number)
    [found] = (await call("list_deliveries", trigger_id="on-push"))["deliveries"]
    await call("wait_for_flow", run_id=found["run_id"], timeout_s=20)
    return str(found["run_id"])


async def test_what_is_wrong_with_a_trigger_is_told_at_its_place(served: Served, era: str) -> None:
    async with served.client(era) as client:
        call = await caller(client)
        kind = await call.refused("create_trigger", flow_id="deploy", kind="webhok")
        config = await call.refused("create_trigger", flow_id="deploy", kind="cron", config={"expresion": "* * * * *"})
        condition = await call.refused("create_trigger", flow_id="deploy", kind="webhook", filter="evnt.payload")
        flow = await call.refused("create_trigger", flow_id="none", kind="webhook")
        lost = await call.refused("redeliver", delivery_id="dlv_none")
        unknown = await call.refused("list_deliveries", state="strated")
    assert (kind["issues"][0]["path"], kind["issues"][0]["suggestion"]) == ("/kind", "webhook")
    assert all(issue["path"].startswith("/config") for issue in config["issues"])
    assert condition["issues"][0]["path"].startswith("/filter")
    assert (flow["code"], lost["code"]) == ("flow_not_found", "delivery_not_found")
    assert unknown["code"] == "invalid_arguments"


async def test_a_receiver_is_made_tested_listed_and_deleted(served: Served, era: str, unused_url: str) -> None:
    async with served.client(era) as client:
        call = await caller(client)
        made = await call("create_notification", kind="webhook", url=unused_url, events=["run.completed"], tag="x")
        assert made["secret"].startswith("whsec_")
        tried = await call("test_notification", notification_id=made["notification_id"])
        assert tried["ok"] is False
        assert tried["error"].startswith("not reached")
        off = await call("update_notification", notification_id=made["notification_id"], enabled=False)
        assert (off["enabled"], off["disabled"]) == (False, "on request")
        on = await call("update_notification", notification_id=made["notification_id"], enabled=True)
        assert (on["enabled"], "disabled" in on) == (True, False)
        [listed] = (await call("list_notifications"))["notifications"]
        assert "secret" not in listed
        assert (await call("list_dispatches", notification_id=made["notification_id"]))["dispatches"] == []
        wrong = await call.refused("create_notification", kind="webhook", url=unused_url, events=["run.complete"])
        assert wrong["issues"][0]["suggestion"] == "run.completed"
        assert (await call.refused("retry_dispatch", dispatch_id="dsp_none"))["code"] == "dispatch_not_found"
        gone = await call("delete_notification", notification_id=made["notification_id"])
        assert gone["notification_id"] == made["notification_id"]


async def test_a_message_that_waits_is_listed_and_sent_again_at_once(served: Served, era: str, unused_url: str) -> None:
    async with served.client(era) as client:
        call = await caller(client)
        await call("create_notification", kind="webhook", url=unused_url, events=["run.completed"])
        run = await call("execute_flow", flow_id="deploy", inputs={"ref": "main"}, wait_s=20)
        await served.has_heard("notification.retrying", 1)
        [waiting] = (await call("list_dispatches", state="pending"))["dispatches"]
        assert (waiting["run_id"], waiting["type"]) == (run["run_id"], "run.completed")
        again = await call("retry_dispatch", dispatch_id=waiting["dispatch_id"])
        assert again["next_attempt_at"] < waiting["next_attempt_at"]


async def test_a_call_that_comes_before_the_database_is_open_waits_for_it_over_stdio(
    environment: Callable[..., dict[str, str]],
) -> None:
    command = ["-m", "contexten_server", "serve", "--toolsets", "default,triggers,notifications"]
    parameters = StdioServerParameters(command=sys.executable, args=command, env=environment())
    with anyio.fail_after(60):
        async with Client(parameters) as client:
            empty = await client.call_tool("list_triggers", {})  # the first call: nothing is open yet
            assert empty.structured_content == {"triggers": []}
            call = await caller(client)
            await call("create_flow", flow_id="deploy", workflow_def=FLOW)
            made = await call("create_trigger", flow_id="deploy", kind="cron", config={"expression": "0 9 * * *"})
            assert made["next_at"]
            assert (await call("list_notifications"))["notifications"] == []
