"""How changes reach a page: all of them, none twice, and what a person is at stays in place."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import anyio
import pytest

from .conftest import LONG, VALUE, OpenPage, Site, flow, go

if TYPE_CHECKING:
    from playwright.async_api import Page, Request, Route

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(90)]


async def test_events_are_read_whole_however_their_stream_is_cut(page: Page) -> None:
    stream = ': ping\r\n\r\nevent: change\r\ndata: {"a":\ndata: 1}\n\nid: 7\ndata: ü\r\revent: none\n\n'
    read = """async ([text, size]) => {
      const { events } = await import("/assets/live.js");
      const bytes = new TextEncoder().encode(text);
      const stream = new ReadableStream({ start(controller) {
        for (let at = 0; at < bytes.length; at += size) controller.enqueue(bytes.slice(at, at + size));
        controller.close();
      }});
      return await Array.fromAsync(events(stream));
    }"""
    whole = [{"event": "ping"}, {"event": "change", "data": '{"a":\n1}'}, {"id": "7", "data": "ü"}]
    for size in (1, 3, 1000):
        assert await page.evaluate(read, [stream, size]) == whole


def held(until: anyio.Event) -> Callable[[Route], Awaitable[None]]:
    """Lets requests through after that event only."""

    async def hold(route: Route) -> None:
        await until.wait()
        await route.continue_()

    return hold


async def look_away(page: Page, *, is_hidden: bool) -> None:
    """As when the tab is left for another one, or come back to."""
    await page.evaluate(
        """isHidden => {
          Object.defineProperty(document, "hidden", { get: () => isHidden, configurable: true });
          document.dispatchEvent(new Event("visibilitychange", { bubbles: true }));
        }""",
        is_hidden,
    )


class Asked:
    """What a page asks of the server from now on."""

    def __init__(self, page: Page) -> None:
        self.urls: list[str] = []
        self._open: set[Request] = set()
        self._settled = anyio.Event()
        page.on("request", self._begin)
        page.on("requestfinished", self._end)
        page.on("requestfailed", self._end)

    def _begin(self, request: Request) -> None:
        self.urls.append(request.url)
        if not request.url.endswith("/api/events"):
            self._open.add(request)

    def _end(self, request: Request) -> None:
        self._open.discard(request)
        self._settled.set()

    async def answered(self) -> None:
        """Returns when nothing is under way but the stream."""
        while self._open:
            self._settled = anyio.Event()
            await self._settled.wait()


async def test_changes_come_by_one_stream_and_nothing_asks_again_and_again(site: Site, open_page: OpenPage) -> None:
    page = await open_page("about:blank")
    await page.clock.install()
    await page.goto(f"{site.base}/#/runs")
    await page.locator(".side [data-connection=live]").wait_for()
    asked = Asked(page)
    run_id = await site.run(flow(VALUE, name="Seen"))
    with anyio.fail_after(20):
        await page.locator(f'tr[data-run="{run_id}"]').get_by_text("Completed").wait_for()
        for _ in range(3):  # what waits to be asked once more is asked
            await page.clock.run_for(4_000)
            await asked.answered()
    assert all(url.startswith(site.base) and "/events" not in url for url in asked.urls)
    assert not any(url.endswith(("/api/metrics", "/api/agents")) for url in asked.urls)  # they cost more than they tell
    asked.urls.clear()
    await page.clock.run_for(30_000)
    assert asked.urls == []


async def test_what_happens_before_the_stream_says_hello_is_shown(site: Site, open_page: OpenPage) -> None:
    page = await open_page("about:blank")
    released = anyio.Event()
    await page.route("**/api/events", held(released))
    await page.goto(f"{site.base}/#/flows")
    await page.locator(".flows[aria-busy=false]").wait_for(state="attached")
    await site.call("POST", "/flows", {"workflow_def": flow(VALUE, name="Made early"), "flow_id": "made-early"})
    released.set()
    await page.get_by_role("link", name="Made early").wait_for()


async def test_a_connection_that_is_never_answered_is_tried_again(site: Site, open_page: OpenPage) -> None:
    page = await open_page("about:blank")
    await page.clock.install()
    await page.route("**/api/events", held(anyio.Event()))
    async with page.expect_request("**/api/events"):
        await page.goto(f"{site.base}/#/runs")
    async with page.expect_request("**/api/events"):
        await page.clock.run_for(50_000)
    await page.close()


async def test_whoever_gave_no_token_is_not_asked_again_for_coming_back_to_the_tab(
    site: Site, open_page: OpenPage
) -> None:
    page = await open_page("about:blank")
    refusal = {"error": {"code": "unauthorized", "message": "A bearer token is needed."}}
    await page.route("**/api/events", lambda route: route.fulfill(status=401, json=refusal))
    await page.goto(f"{site.base}/#/runs")
    await page.get_by_role("dialog", name="Sign in").wait_for()
    await page.keyboard.press("Escape")
    await page.locator(".side [data-connection=reconnecting]").wait_for()
    asked = Asked(page)
    await look_away(page, is_hidden=False)
    await page.evaluate("fetch('/api/overview')")
    assert not [url for url in asked.urls if url.endswith("/events")]
    await page.locator(".side .connection").click()
    await page.get_by_role("dialog", name="Sign in").wait_for()


async def test_a_hidden_page_is_told_of_all_changes_at_once_when_it_is_seen_again(page: Page) -> None:
    stream = "event: hello\ndata: {}\n\n" + 3 * 'event: change\ndata: {"run_id": "run_1"}\n\n'
    await page.route("**/api/events", lambda route: route.fulfill(body=stream, content_type="text/event-stream"))
    await look_away(page, is_hidden=True)
    hear = """async () => {
      const { Live } = await import("/assets/live.js");
      const live = new Live();
      window.heard = [];
      await new Promise((resolve) => {
        live.listen(({ type, state }) => {
          heard.push(type);
          if (state === "reconnecting") resolve();
        });
        live.run();
      });
      return heard.splice(0);
    }"""
    assert await page.evaluate(hear) == ["state", "state"]  # live, and at its end no more
    await page.unroute("**/api/events")
    await page.route("**/api/events", held(anyio.Event()))
    await look_away(page, is_hidden=False)
    assert await page.evaluate("heard") == ["refetch"]
    await page.close()


async def test_of_answers_that_overlap_the_newest_is_shown(page: Page) -> None:
    overlap = """async () => {
      const { latest } = await import("/assets/ui/reading.js");
      const place = document.createElement("div");
      const waiting = [];
      const page = new AbortController();
      const load = latest(place, {
        ask: () => new Promise((answer, refuse) => waiting.push({ answer, refuse })),
        show: (text) => { place.textContent = text; },
        signal: page.signal,
      });
      const told = [];
      const tell = () => told.push(`${place.textContent} ${place.getAttribute("aria-busy")}`);
      const older = load();
      const newer = load();
      waiting[1].answer("newer");
      await newer;
      tell();
      waiting[0].answer("older");
      await older;
      tell();
      const refused = load();
      waiting[2].refuse({ code: "unreachable", message: "away" });
      await refused;
      tell();
      const wrong = load();
      waiting[3].refuse({ code: "no_flow", message: "gone" });
      await wrong;
      tell();
      const left = load();
      page.abort();
      waiting[4].answer("too late");
      await left;
      tell();
      return told;
    }"""
    assert await page.evaluate(overlap) == ["newer false", "newer false", "newer false", "gone false", "gone false"]


async def test_what_is_typed_into_a_search_changes_no_other_pages_address(page: Page) -> None:
    await page.clock.install()
    await page.clock.pause_at(datetime.now(UTC) + timedelta(hours=1))
    for place, search in (("runs", "Search runs"), ("flows", "Search flows")):
        await go(page, place)
        await page.get_by_label(search).fill("left behind")
        await go(page, "queue")
        await page.clock.run_for(1_000)
        assert page.url.endswith("#/queue")


async def test_the_graph_and_its_panel_are_left_in_place_while_the_run_changes(site: Site, page: Page) -> None:
    run_id = await site.run(flow(LONG, name="Looked at"))
    asked = Asked(page)
    await go(page, f"runs/{run_id}")
    node = page.locator(".cf-node[data-task=long]")
    await node.evaluate("node => { node.isKept = true; }")
    await node.click()
    logs = page.locator(".cf-panel").get_by_role("button", name="Logs")
    await logs.focus()
    await site.call("POST", f"/runs/{run_id}/actions", {"action": "cancel"})
    await page.locator(".cf-panel .cf-state[data-state=cancelled]").wait_for()
    assert await node.evaluate("node => node.isKept")
    assert await logs.evaluate("button => button === document.activeElement")
    assert len([url for url in asked.urls if "detail=graph" in url]) == 1


async def test_the_head_of_a_trigger_follows_and_what_a_person_is_at_stays(site: Site, page: Page) -> None:
    await site.call("POST", "/flows", {"workflow_def": flow(VALUE, name="Greeted"), "flow_id": "greeted"})
    config = {"types": [f"greeting.number_{number}" for number in range(40)]}
    given = {"kind": "webhook", "flow_id": "greeted", "trigger_id": "greet", "name": "Greet", "config": config}
    await site.call("POST", "/triggers", given)
    await go(page, "triggers/greet")
    shown = page.locator("main .facts")
    await shown.get_by_text("On", exact=True).wait_for()
    text = page.get_by_role("region", name="Config")
    await text.evaluate("element => { element.isKept = true; }")
    switch = page.get_by_role("button", name="Switch off")
    await switch.focus()
    await page.evaluate("scrollTo(0, 120)")
    scrolled = await page.evaluate("scrollY")
    await site.call("PATCH", "/triggers/greet", {"enabled": False})
    await shown.get_by_text("Off", exact=True).wait_for()
    assert await page.evaluate("document.activeElement.innerText") == "Switch on"
    assert await page.evaluate("scrollY") == scrolled

    await page.get_by_role("button", name="Test").click()
    payload = page.get_by_label("Payload (JSON)")
    await payload.fill('{"half": ')
    await site.call("PATCH", "/triggers/greet", {"name": "Greet all", "filter": "event.payload.half == 1"})
    await page.get_by_role("region", name="Filter").wait_for()
    await page.get_by_role("heading", name="Greet all", include_hidden=True).wait_for()
    assert await payload.input_value() == '{"half": '
    assert await payload.evaluate("field => field === document.activeElement")
    assert await text.evaluate("element => element.isKept")
    await page.keyboard.press("Escape")
    await site.call("DELETE", "/triggers/greet")
    await page.get_by_role("heading", name="There is no such trigger").wait_for()


async def test_the_page_of_a_flow_shows_its_next_version_and_leaves_the_rest_in_place(site: Site, page: Page) -> None:
    definition = flow(VALUE, name="Grows")
    await site.call("POST", "/flows", {"workflow_def": definition, "flow_id": "grows"})
    await go(page, "flows/grows")
    facts = page.locator("main .facts").first
    await facts.get_by_text("0 runs").wait_for()
    text = page.get_by_role("region", name="The flow's definition")
    await text.evaluate("element => { element.isKept = true; }")
    edit = page.get_by_role("link", name="Edit")
    await edit.focus()
    await site.call("POST", "/runs", {"flow_id": "grows"})
    await facts.get_by_text("1 run", exact=True).wait_for()
    assert await text.evaluate("element => element.isKept")
    assert await edit.evaluate("link => link === document.activeElement")
    after = {**VALUE, "name": "after"}
    await site.call("PUT", "/flows/grows", {"workflow_def": flow(VALUE, after, name="Grows")})
    await text.get_by_text('"after"').wait_for()
    assert await page.get_by_label("Version").input_value() == "2"
    await page.get_by_text("2 tasks in 1 stage", exact=True).wait_for()
    assert await edit.evaluate("link => link === document.activeElement")


async def test_a_dialog_goes_with_its_page_but_the_question_for_a_token_stays(page: Page) -> None:
    await go(page, "queue")
    await page.get_by_role("button", name="Change strategy").click()
    await page.get_by_role("dialog", name="Strategy and limit").wait_for()
    await page.go_back()
    await page.get_by_role("heading", name="Runs", level=1).wait_for()
    await page.get_by_role("dialog").wait_for(state="detached")
    await page.evaluate("import('/assets/ui/dialogs.js').then(({ askToken }) => { askToken(''); })")
    await go(page, "flows")
    assert await page.get_by_role("dialog", name="Sign in").is_visible()


async def test_what_goes_wrong_again_and_again_is_told_once(page: Page) -> None:
    fail = "text => import('/assets/ui/dialogs.js').then(({ failed }) => failed({ message: text }))"
    for text in ("no space", "no space", "no time", "no space"):
        await page.evaluate(fail, text)
    assert await page.locator(".message").all_inner_texts() == ["no time", "no space"]


async def test_where_nothing_can_be_copied_the_text_is_selected(site: Site, page: Page) -> None:
    await site.call("POST", "/flows", {"workflow_def": flow(VALUE, name="Copied"), "flow_id": "copied"})
    await go(page, "flows/copied")
    await page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")  # as over plain HTTP
    await page.get_by_role("button", name="Copy flow id").click()
    await page.get_by_text("flow id selected").wait_for()
    assert await page.evaluate("getSelection().toString()") == "copied"
