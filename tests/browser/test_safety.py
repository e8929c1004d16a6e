"""What pages withstand, and whom they serve: hostile texts, a strict policy, no mouse, no sight, small screens."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest

from .conftest import VALUE, OpenPage, Site, axe, flow, go

if TYPE_CHECKING:
    from playwright.async_api import Page

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(90)]

HOSTILE = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>{{ 1 }}"


@pytest.fixture
async def places(site: Site) -> list[str]:
    """Every page, with something on it."""
    echo = {"name": "echo", "required_tools": ["data_processor"], "parameters": {"data": HOSTILE, "query": "@"}}
    fails = {"name": "fails", "required_tools": ["json_parser"], "parameters": {"text": HOSTILE}}
    hostile = flow(echo, fails, name=HOSTILE, description=HOSTILE, tags=["hostile", "<b>"])
    hostile["stages"][0]["tasks"][0]["description"] = HOSTILE
    await site.call("POST", "/flows", {"workflow_def": hostile, "flow_id": "hostile"})
    run_id = (await site.call("POST", "/runs", {"flow_id": "hostile"}))["run_id"]
    await site.reaches(run_id, "failed")
    trigger = {"kind": "webhook", "flow_id": "hostile", "name": HOSTILE, "trigger_id": "hostile-hook"}
    await site.call("POST", "/triggers", trigger)
    await site.call("POST", "/triggers/hostile-hook/test", {"payload": {"type": HOSTILE}, "start": True})
    return [
        "runs",
        f"runs/{run_id}",
        "flows",
        "flows/hostile",
        "create",
        "create?flow=hostile",
        "queue",
        "agents",
        "charts",
        "triggers",
        "triggers/hostile-hook",
        "notifications",
        "nowhere",
    ]


async def test_a_hostile_text_is_shown_as_text_and_runs_no_script(page: Page, places: list[str]) -> None:
    shown = 0
    for place in places:
        if place == "nowhere":
            continue
        await go(page, place)
        for tab in await page.get_by_role("tab").all():
            await tab.click()
        for summary in await page.locator("main summary").all():
            await summary.click()
        shown += HOSTILE in json.dumps(await page.locator("main").inner_text()).encode().decode("unicode_escape")
        assert await page.title() != "taken", place
        assert await page.locator("main img, main script").count() == 0, place
    assert shown >= 5  # they are really there to be seen


async def test_every_answer_to_a_browser_carries_a_strict_policy(site: Site) -> None:
    async with httpx.AsyncClient(base_url=site.base, trust_env=False) as http:
        for path in ("/", "/assets/app.js", "/assets/run/runview.css", "/assets/no-such-file.js"):
            answer = await http.get(path)
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
        page = await http.get("/assets/app.js")
        assert page.headers["content-type"] == "text/javascript; charset=utf-8"
        again = await http.get("/assets/app.js", headers={"If-None-Match": f'"other", W/{page.headers["etag"]}'})
        assert (again.status_code, again.content) == (304, b"")


async def test_nothing_but_the_assets_is_given_out_whatever_the_path(site: Site) -> None:
    elsewhere = ("../pages.py", "%2e%2e/pages.py", "/etc/hostname", "run/../../pages.py")
    for path in (*elsewhere, "", "run", "%00.js", 300 * "a"):
        async with await anyio.connect_tcp("127.0.0.1", site.port) as stream:  # a client would resolve the dots first
            await stream.send(f"GET /assets/{path} HTTP/1.1\r\nHost: 127.0.0.1:{site.port}\r\n\r\n".encode())
            assert (await stream.receive()).startswith(b"HTTP/1.1 404 "), path


async def test_all_can_be_done_by_keyboard(site: Site, page: Page) -> None:
    run_id = await site.run(flow(VALUE, name="Reached by keys"))
    await page.locator(f'tr[data-run="{run_id}"]').get_by_text("Completed").wait_for()
    focused: Any = page.locator("*:focus")

    await page.reload()
    await page.locator(f'tr[data-run="{run_id}"]').wait_for()
    await page.evaluate("document.activeElement.blur()")
    await page.keyboard.press("Tab")
    assert await focused.inner_text() == "Skip to the content"
    await page.keyboard.press("Enter")
    assert await focused.get_attribute("id") == "main"

    await page.keyboard.press("/")
    await page.keyboard.type("Reached by")
    await page.wait_for_url("**/*search=Reached*")
    await page.locator("tr[data-run]").nth(1).wait_for(state="detached")
    await page.keyboard.press("Escape")
    await page.keyboard.press("j")
    assert await focused.inner_text() == "Reached by keys"
    await page.keyboard.press("Enter")
    await page.locator(f'main[data-address="#/runs/{run_id}"] h1').wait_for()

    await page.keyboard.press("?")
    await page.get_by_role("dialog", name="Keyboard shortcuts").wait_for()
    for _ in range(4):
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.closest('main, .side') === null")  # what lies behind it
    await page.keyboard.press("Escape")
    await page.get_by_role("dialog").wait_for(state="detached")

    for key, title in (("f", "Flows"), ("q", "Queue"), ("t", "Triggers"), ("r", "Runs")):
        await page.keyboard.press("g")
        await page.keyboard.press(key)
        await page.get_by_role("heading", name=title, exact=True, level=1).wait_for()
    await page.keyboard.press("d")
    assert await page.evaluate("document.documentElement.dataset.theme") == "dark"
    await page.reload()
    assert await page.evaluate("document.documentElement.dataset.theme") == "dark"


async def test_no_page_has_a_serious_finding_of_the_accessibility_checker(page: Page, places: list[str]) -> None:
    await page.evaluate(axe())
    await page.emulate_media(reduced_motion="reduce")  # what fades in has less contrast for a moment
    found: list[str] = []

    async def check(where: str, *rules: str) -> None:
        options = {"resultTypes": ["violations"], **({"runOnly": rules} if rules else {})}
        answer = await page.evaluate("options => axe.run(document, options)", options)
        for violation in answer["violations"]:
            if violation["impact"] in ("serious", "critical"):
                nodes = [node["html"][:160] for node in violation["nodes"][:3]]
                found.append(f"{where}: {violation['id']} ({violation['help']}): {nodes}")

    for place in places:
        await page.evaluate("document.documentElement.dataset.theme = 'light'")
        await go(page, place)
        await check(f"{place} in light")
        await page.evaluate("document.documentElement.dataset.theme = 'dark'")
        await check(f"{place} in dark", "color-contrast")
    await go(page, "triggers")
    await page.get_by_role("button", name="New trigger").click()
    await page.get_by_role("dialog").wait_for()
    await check("a dialog")
    assert not found, "\n".join(found)


async def test_pages_fit_a_phone_and_its_menu_opens(site: Site, open_page: OpenPage, places: list[str]) -> None:
    page = await open_page(f"{site.base}/", viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    await page.locator("tr[data-run]").first.wait_for()
    for place in places:
        await go(page, place)
        wider = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wider <= 0, f"{place} is {wider} pixels wider than the screen"
    await page.get_by_role("button", name="Open the menu").click()
    await page.get_by_role("dialog", name="Menu").get_by_role("link", name="Agents").click()
    await page.get_by_role("heading", name="Agents", level=1).wait_for()
    await page.get_by_role("dialog", name="Menu").wait_for(state="hidden")
