"""The MCP App in a host: in a sandbox, under the strict policy that hosts give, over a real server in this process."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from mcp.client import Client

from contexten.extensions.flow.service import FlowService
from contexten.extensions.flow.settings import FlowSettings
from contexten_server.apps import RUN_PAGE
from contexten_server.assembly import build_server
from contexten_tools import App

from ..protocol.conftest import Gate, Live
from .conftest import OpenPage, axe

if TYPE_CHECKING:
    from playwright.async_api import FrameLocator, Page

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(90)]

POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; media-src 'self' data:; connect-src 'none'"
)
"""What hosts must apply to a page that asks for no domains."""


@dataclass
class Shown:
    """The page of a tool's result in a host, and what the host was asked."""

    page: Page
    client: Client
    gate: Gate
    service: FlowService
    called: list[str] = field(default_factory=list)
    refused: str | None = None
    """Why the host passes no call on, where it does not."""

    @property
    def app(self) -> FrameLocator:
        return self.page.frame_locator("#view")

    async def pass_on(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        self.called.append(name)
        if self.refused is not None:
            return {"refused": self.refused}
        result = await self.client.call_tool(name, arguments)
        return result.model_dump(mode="json", by_alias=True, exclude_none=True)

    async def show(self, result: dict[str, Any], *, calls_tools: bool = True) -> None:
        """As after a call of a tool that is bound to the page."""
        setup = {
            "capabilities": {"serverTools": {}} if calls_tools else {},
            "context": {
                "theme": "light",
                "displayMode": "inline",
                "availableDisplayModes": ["inline", "fullscreen"],
            },
            "input": {},
            "result": result,
        }
        await self.page.evaluate("setup => { window.setup = setup; view.src = '/app.html'; }", setup)

    async def run(self, definition: dict[str, Any], **options: Any) -> str:
        """Start a run as an agent does, and show it; answers its id."""
        result = await self.client.call_tool("execute_flow", {"workflow_def": definition})
        assert not result.is_error, result.content
        await self.show(result.model_dump(mode="json", by_alias=True, exclude_none=True), **options)
        assert result.structured_content is not None
        return str(result.structured_content["run_id"])

    async def heard(self, method: str) -> list[dict[str, Any]]:
        """What the page told the host."""
        told: list[dict[str, Any]] = await self.page.evaluate(
            "method => heard.filter(message => message.method === method).map(({ params }) => params)", method
        )
        return told


@pytest.fixture
def serve_pages() -> Iterator[Callable[[str], str]]:
    """Serves the host's page, and a page in it under the host's policy; answers the address of the first."""
    pages: dict[str, tuple[bytes, dict[str, str]]] = {"/": (Path(__file__).with_name("app_host.html").read_bytes(), {})}

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body, headers = pages.get(self.path, (b"", {}))
            self.send_response(200 if body else 204)
            for name, value in ({"Content-Type": "text/html; charset=utf-8"} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()

        def serve(html: str) -> str:
            pages["/app.html"] = (html.encode(), {"Content-Security-Policy": POLICY})
            return f"http://127.0.0.1:{server.server_port}/"

        yield serve
        server.shutdown()
        thread.join()


@pytest.fixture
async def host(open_page: OpenPage, serve_pages: Callable[[str], str], tmp_path: Path) -> AsyncIterator[Any]:
    """Opens hosts; `read_only` is the server's, the rest is the browser's."""
    settings = FlowSettings(database=tmp_path / "flow.sqlite3", durability="process", stop_grace_s=0.1)
    gate = Gate(saying="<b>not bold</b>")
    async with FlowService(settings, agents=[gate]) as service:

        @asynccontextmanager
        async def open_(*, read_only: bool = False, **options: Any) -> AsyncIterator[Shown]:
            server = build_server(App(service=service, settings=settings, transport="memory", read_only=read_only))
            async with Client(server) as client:
                read = (await client.read_resource(RUN_PAGE)).contents[0]
                page = await open_page(serve_pages(getattr(read, "text", "")), **options)
                shown = Shown(page=page, client=client, gate=gate, service=service)
                await page.expose_function("passOn", shown.pass_on)
                yield shown
                await page.goto("about:blank")  # the page's wait ends before the client does

        yield open_


HELD = Live.flow(Live.gate_task("held"), Live.value_task("after"), name="Held back")


async def test_a_run_is_shown_live_with_its_timeline_and_logs(host: Any) -> None:
    async with host() as shown:
        await shown.run(HELD)
        app = shown.app
        await app.locator(".cf-node[data-task=held][data-state=running]").wait_for()
        await app.locator(".cf-node[data-task=after][data-state=pending]").wait_for()
        shown.gate.opened.set()
        await app.locator(".cf-node[data-task=after][data-state=completed]").wait_for()
        await app.locator(".cf-title").get_by_text("Completed").wait_for()
        assert await app.get_by_role("progressbar").get_attribute("aria-valuenow") == "2"
        await app.get_by_role("tab", name="Timeline").click()
        await app.locator(".cf-row .cf-bar[data-outcome=completed]").nth(1).wait_for()
        await app.get_by_role("tab", name="Logs").click()
        await app.get_by_text("<b>not bold</b>").wait_for()
        await app.get_by_role("tab", name="Data").click()
        await app.get_by_text("Output", exact=True).click()
        await app.get_by_text('"value": 42').or_(app.get_by_text("42")).first.wait_for()
        assert shown.page.frames[1].url.endswith("/app.html")
        assert await shown.page.frames[1].evaluate("location.hash") == ""
        assert "wait_for_flow" in shown.called
        assert shown.called.count("get_flow_status") < 30
        (hello,) = await shown.heard("ui/initialize")
        assert (hello["protocolVersion"], hello["appInfo"]["name"]) == ("2026-01-26", "contexten-flow-run")
        assert (await shown.heard("ui/notifications/size-changed"))[-1]["height"] > 100


async def test_a_run_is_cancelled_with_a_reason_and_retried(host: Any) -> None:
    async with host() as shown:
        run_id = await shown.run(HELD)
        app = shown.app
        await app.get_by_role("button", name="Cancel", exact=True).click()
        await app.get_by_role("button", name="Leave it").click()
        await app.get_by_role("button", name="Cancel", exact=True).click()
        await app.get_by_label("Reason").fill("a mistake")
        await app.get_by_label("Reason").press("Enter")
        await app.get_by_text("Why: a mistake").wait_for()
        assert (await shown.service.get_run(run_id)).state == "cancelled"
        await app.get_by_role("button", name="Retry").click()
        await app.get_by_role("dialog").get_by_role("button", name="Retry").click()
        await app.get_by_text(f"Repeats {run_id}.").wait_for()
        await app.locator(".cf-node[data-task=held][data-state=running]").wait_for()
        await app.get_by_role("button", name="Pause").click()
        await app.get_by_text("it pauses when the tasks in flight have ended").wait_for()
        shown.gate.opened.set()
        await app.get_by_role("button", name="Resume").click()
        await app.locator(".cf-title").get_by_text("Completed").wait_for()


HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script></script>${alert(3)}"


async def test_hostile_names_outputs_logs_and_errors_run_no_script(host: Any) -> None:
    broken = {
        "name": "broken",
        "required_tools": ["data_processor"],
        "description": HOSTILE,
        "parameters": {"data": HOSTILE, "query": "abs(@)"},
    }
    definition = Live.flow(Live.value_task("value", HOSTILE), broken, name=HOSTILE)
    async with host() as shown:
        await shown.run(definition)
        app = shown.app
        await app.get_by_role("heading", name=HOSTILE).wait_for()
        await app.locator(".cf-callout .cf-ways").get_by_text("update_flow").wait_for()
        await app.locator(".cf-node[data-task=value]").click()
        await app.locator(".cf-panel summary").click()
        await app.locator(".cf-panel .cf-code").get_by_text("onerror").wait_for()
        await app.locator(".cf-node[data-task=broken]").click()
        await app.locator(".cf-panel").get_by_text(HOSTILE).first.wait_for()
        await app.get_by_role("tab", name="Events").click()
        await app.locator(".cf-lines").get_by_text("run.failed").wait_for()
        assert await app.locator("img").count() == 0
        assert await app.locator("script").count() == 1


async def test_where_the_host_refuses_calls_the_tools_answer_is_shown_without_actions(host: Any) -> None:
    async with host() as shown:
        shown.refused = "this host passes nothing on"
        await shown.run(HELD)
        await shown.app.get_by_text("no more.").wait_for()
        await shown.app.get_by_role("heading", name="Held back").wait_for()
        assert await shown.app.get_by_role("button", name="Cancel").count() == 0
        asked = len(shown.called)
        shown.gate.opened.set()
    async with host() as shown:
        await shown.run(HELD, calls_tools=False)
        await shown.app.get_by_role("heading", name="Held back").wait_for()
        assert (asked, shown.called) == (1, [])


async def test_a_read_only_server_offers_no_actions(host: Any) -> None:
    async with host(read_only=True) as shown:
        run = await shown.service.execute_flow(workflow_def=HELD)
        result = await shown.client.call_tool("get_flow_status", {"run_id": run.run_id})
        await shown.show(result.model_dump(mode="json", by_alias=True, exclude_none=True))
        await shown.app.locator(".cf-node[data-task=held][data-state=running]").wait_for()
        assert await shown.app.get_by_role("button", name="Cancel").count() == 0
        shown.gate.opened.set()


@pytest.mark.parametrize(
    ("tool", "arguments", "told"),
    [
        ("get_flow_status", {"run_id": "run_none"}, "There is no run"),
        ("create_flow", {"workflow_def": HELD, "flow_id": "fresh"}, "This flow never ran."),
        ("list_agents", {}, "There is no run to show"),
    ],
)
async def test_a_result_without_a_run_says_so(host: Any, tool: str, arguments: dict[str, Any], told: str) -> None:
    async with host() as shown:
        result = await shown.client.call_tool(tool, arguments)
        await shown.show(result.model_dump(mode="json", by_alias=True, exclude_none=True))
        await shown.app.get_by_text(told).first.wait_for()


async def test_the_page_takes_the_hosts_theme_answers_it_and_stops_when_it_is_torn_down(host: Any) -> None:
    async with host() as shown:
        await shown.run(HELD)
        await shown.app.locator(".cf-node[data-task=held][data-state=running]").wait_for()
        dark = {"theme": "dark", "styles": {"variables": {"--font-sans": "serif", "color": "red"}}}
        await shown.page.evaluate("context => tell('ui/notifications/host-context-changed', context)", dark)
        await shown.app.locator("html[data-theme=dark]").wait_for()
        assert await shown.app.locator("html").evaluate("page => page.style.color") == ""
        await shown.app.get_by_role("button", name="Full screen").click()
        await shown.app.get_by_role("button", name="Back to the chat").wait_for()
        await shown.page.evaluate("request('sampling/createMessage', {}); request('ui/resource-teardown', {})")
        await shown.page.wait_for_function("heard.some(message => message.id === 'host-2')")
        refused, gone = await shown.page.evaluate("heard.filter(message => String(message.id).startsWith('host-'))")
        assert (refused["error"]["code"], gone["result"]) == (-32601, {})
        shown.gate.opened.set()
        with anyio.fail_after(10):
            run = (await shown.service.list_runs()).runs[0]
            await shown.service.wait(run.run_id)
        assert await shown.app.locator("[data-task=held][data-state=running]").count() == 1


async def test_a_thousand_tasks_are_shown_whole_and_the_timeline_draws_what_is_in_sight(host: Any) -> None:
    wide = [{**Live.value_task(f"load_{number}"), "depends_on": ["held"]} for number in range(996)]
    stages = [
        {"name": "first", "tasks": [Live.gate_task("held")]},
        {"name": "wide", "execution_mode": "parallel", "tasks": wide},
        {"name": "last", "tasks": [Live.value_task("done")]},
    ]
    async with host() as shown:
        await shown.run({"name": "Nearly a thousand", "stages": stages})
        app = shown.app
        await app.locator(".cf-node[data-task=held][data-state=running]").wait_for()
        assert await app.locator(".cf-node").count() == 998
        await app.locator(".cf-box-label").get_by_text("wide · 0 of 996 tasks").wait_for()
        await app.locator(".cf-meta").get_by_text("started").wait_for()
        shown.gate.opened.set()
        await app.locator(".cf-box-label").get_by_text("wide · 996 of 996 tasks").wait_for()
        await app.locator(".cf-title").get_by_text("Completed").wait_for()
        await app.get_by_role("tab", name="Timeline").click()
        await app.locator(".cf-row").first.wait_for()
        assert await app.locator(".cf-row").count() < 60
        await app.locator(".cf-time-pane").evaluate("pane => { pane.scrollTop = pane.scrollHeight; }")
        await app.locator(".cf-row-name[data-task=done]").wait_for()


async def test_the_page_is_used_by_keyboard_on_a_phone_and_axe_finds_nothing(host: Any) -> None:
    checker = axe()
    async with host(viewport={"width": 320, "height": 700}, reduced_motion="reduce") as shown:
        await shown.run(HELD)
        app = shown.app
        held = app.locator(".cf-node[data-task=held]")
        await held.focus()
        await held.press("ArrowDown")
        await held.press("ArrowRight")
        after = app.locator(".cf-node[data-task=after]")
        await after.press("Enter")
        await app.get_by_role("complementary", name="Task").get_by_text("Pending").wait_for()
        frame = shown.page.frames[1]
        for theme in ("light", "dark"):
            await shown.page.evaluate("theme => tell('ui/notifications/host-context-changed', { theme })", theme)
            await app.locator(f"html[data-theme={theme}]").wait_for()
            await frame.evaluate(checker)
            found = await frame.evaluate("axe.run(document, { resultTypes: ['violations'] })")
            assert [
                (rule["id"], rule["nodes"][0]["failureSummary"], rule["nodes"][0]["html"])
                for rule in found["violations"]
            ] == []
        assert await frame.evaluate("document.documentElement.scrollWidth") <= 320
        await after.press("Escape")
        await app.get_by_role("complementary", name="Task").wait_for(state="hidden")
        await app.get_by_role("tab", name="Graph").press("ArrowRight")
        await app.locator(".cf-row").first.wait_for()
        shown.gate.opened.set()
