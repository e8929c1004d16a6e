"""The page of a run, and its row in the list: what they say and offer in each state of a run."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from .conftest import LONG, VALUE, Site, flow, go

if TYPE_CHECKING:
    from playwright.async_api import Locator, Page, Route

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(90)]

FAILS = {"name": "fails", "required_tools": ["data_processor"], "parameters": {"data": 1, "query": "keys(@)"}}


def offered(page: Page) -> Locator:
    """What the page's head offers to do."""
    return page.locator(".cf-head .cf-buttons > *")


async def test_a_pause_is_taken_back_while_tasks_in_flight_end(site: Site, page: Page) -> None:
    busy = {"name": "busy", "required_tools": ["wait"], "parameters": {"seconds": 3600}}
    run_id = await site.run(flow(busy, name="Busy"))
    await go(page, f"runs/{run_id}")
    state = page.locator(".cf-title .cf-state")
    await state.get_by_text("Running").wait_for()
    await page.get_by_role("button", name="Pause", exact=True).click()
    await state.get_by_text("Pausing").wait_for()
    assert await offered(page).all_inner_texts() == ["Don't pause", "Cancel"]
    await page.get_by_role("button", name="Don't pause").click()
    await state.get_by_text("Running").wait_for()
    assert await offered(page).all_inner_texts() == ["Pause", "Cancel"]
    assert (await site.call("GET", f"/runs/{run_id}")).get("note") is None
    await site.call("POST", f"/runs/{run_id}/actions", {"action": "cancel"})
    await state.get_by_text("Cancelled").wait_for()


async def test_an_ended_run_leads_on(site: Site, page: Page) -> None:
    inputs = {"type": "object", "properties": {"region": {"type": "string"}}, "required": ["region"]}
    run_id = await site.run(flow(VALUE, name="Done before", inputs=inputs), inputs={"region": "north"})
    await go(page, f"runs/{run_id}")
    await page.locator(".cf-title").get_by_text("Completed").wait_for()
    assert await offered(page).all_inner_texts() == ["Run again", "Open flow"]
    await page.get_by_role("button", name="Run again", exact=True).click()
    dialog = page.get_by_role("dialog", name="Run Done before")
    region = dialog.get_by_label("region *")
    assert await region.input_value() == "north"
    await region.fill("")
    await dialog.get_by_role("button", name="Run", exact=True).click()
    await dialog.get_by_role("alert").get_by_text("region").first.wait_for()  # nothing is not an empty text
    await region.fill("south")
    await dialog.get_by_role("button", name="Run", exact=True).click()
    await page.wait_for_url(lambda address: "#/runs/run_" in address and run_id not in address)

    failed_id = await site.run(flow(FAILS, name="Fails as it is"))
    await go(page, f"runs/{failed_id}")
    await page.locator(".cf-title").get_by_text("Failed").wait_for()
    assert await offered(page).all_inner_texts() == ["Edit flow", "Retry"]
    await page.get_by_role("link", name="Edit flow").click()
    await page.get_by_role("heading", name="Edit fails-as-it-is").wait_for()


async def test_a_failed_run_offers_what_may_mend_it_without_a_call(site: Site, page: Page) -> None:
    definition = flow(VALUE, FAILS, name="To be mended")
    await site.call("POST", "/flows", {"workflow_def": definition, "flow_id": "to-be-mended"})
    run_id = (await site.call("POST", "/runs", {"flow_id": "to-be-mended"}))["run_id"]
    await go(page, f"runs/{run_id}")
    ways = page.locator(".cf-callout .cf-ways li")
    await ways.first.wait_for()
    told = await page.locator(".cf-callout").inner_text()
    assert re.search(r"control_flow|update_flow|get_flow_status|run_id=", told) is None
    assert await ways.count() == len((await site.call("GET", f"/runs/{run_id}/explanation"))["next"])
    await ways.get_by_role("button", name="See its events").click()
    await page.get_by_role("tab", name="Events", selected=True).wait_for()
    assert await page.get_by_role("combobox", name="Task").input_value() == "fails"
    await ways.get_by_role("link", name="Edit the flow").click()
    editor = page.get_by_label("Definition, as JSON")
    selected = "field => field.value.slice(field.selectionStart, field.selectionEnd)"
    await page.get_by_text("It can run").wait_for()
    assert json.loads(await editor.evaluate(selected)) == FAILS["parameters"]

    mended = flow(VALUE, {**FAILS, "parameters": {"data": 1, "query": "@"}}, name="To be mended")
    await site.call("PUT", "/flows/to-be-mended", {"workflow_def": mended})
    await go(page, f"runs/{run_id}")
    await ways.get_by_role("button", name="Retry with version 2").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_text("version 2").wait_for()
    await dialog.get_by_role("button", name="Retry").click()
    await page.locator(".cf-title").get_by_text("Completed").wait_for()
    retried = await site.call("GET", f"/runs/{page.url.rpartition('/')[2]}")
    assert (retried["rerun_of"], retried["version"]) == (run_id, 2)


async def test_what_may_mend_a_run_is_worded_for_people(page: Page) -> None:
    patch = "{'op': 'add', 'path': '/stages/0/retry', 'value': {'max_attempts': 6}}"
    calls = [
        "explain_flow(run_id='run_child')",
        f"update_flow(flow_id='f', patch=[{patch}])  # warning: after a crash the task may run twice",
        "control_flow(run_id='run_1', action='retry', version=3)",
        "control_flow(run_id='run_1', action='retry', timeout_s=120.0)",
        "something_new(run_id='run_1')",
    ]
    read = """async ([calls, canAct]) => {
      const { remedies } = await import("/assets/ui/remedies.js");
      const view = { act: (...given) => window.acted = given, showEvents: () => {} };
      const ways = remedies(calls, view, { canAct });
      for (const button of ways.flat().filter((one) => one.tagName === "BUTTON")) button.click();
      return ways.map((way) => way.map((one) => one?.textContent ?? one ?? "").join(""));
    }"""
    assert await page.evaluate(read, [calls, True]) == [
        "See the run that failed within it",
        'Edit the flow at /stages/0/retry, such as {"max_attempts": 6}; after a crash the task may run twice',
        "When that is saved, come back and retry with the new version.",
        "Retry with a time limit of 2 min",
    ]
    assert await page.evaluate("acted") == ["retry", {"timeout_s": 120}]
    assert await page.evaluate(read, [calls, False]) == ["See the run that failed within it"]


async def test_the_tab_and_the_task_of_a_run_are_in_its_address(site: Site, page: Page) -> None:
    run_id = await site.run(flow(VALUE, FAILS, name="Linked to"))
    await site.reaches(run_id, "failed")
    await go(page, f"runs/{run_id}")
    base = page.url
    await page.locator(".cf-node[data-task=fails]").click()
    assert page.url == f"{base}?task=fails"
    await page.locator(".cf-panel").get_by_role("button", name="Logs").click()
    assert page.url == f"{base}?tab=logs&task=fails"
    await page.reload()
    await page.get_by_role("tab", name="Logs", selected=True).wait_for()
    await page.locator(".cf-panel").get_by_role("heading", name="fails").wait_for()
    assert await page.get_by_role("combobox", name="Task").input_value() == "fails"
    assert page.url == f"{base}?tab=logs&task=fails"
    await page.get_by_role("tab", name="Timeline").click()
    assert page.url == f"{base}?tab=timeline&task=fails"
    await page.locator(".cf-panel").get_by_role("button", name="Close").click()
    await page.get_by_role("tab", name="Graph").click()
    assert page.url == base
    await page.go_back()  # past all of the tabs
    await page.get_by_role("heading", name="Runs", level=1).wait_for()
    await go(page, f"runs/{run_id}?tab=__proto__&task=nobody")
    await page.get_by_role("tab", name="Graph", selected=True).wait_for()
    await page.wait_for_url(base)
    assert await page.locator(".cf-panel").is_hidden()


async def test_a_run_that_is_not_there_says_so_when_the_page_opens_and_when_it_goes(site: Site, page: Page) -> None:
    await go(page, "runs/run_nope")
    await page.get_by_role("heading", name="There is no such run").wait_for()
    await page.get_by_role("link", name="See all runs").wait_for()
    assert await page.locator(".cf-run").count() == 0

    run_id = await site.run(flow(LONG, name="Pruned meanwhile"))
    await go(page, f"runs/{run_id}")
    await page.get_by_role("heading", name="Pruned meanwhile").wait_for()
    gone = {"error": {"code": "run_not_found", "message": f"There is no run '{run_id}'."}}
    answer = {"status": 404, "content_type": "application/json", "body": json.dumps(gone)}
    await page.route(f"**/api/runs/{run_id}?*", lambda route: route.fulfill(**answer))
    await site.call("POST", f"/runs/{run_id}/actions", {"action": "cancel"})
    await page.get_by_role("heading", name="There is no such run").wait_for()


async def test_a_row_of_the_list_changes_as_a_whole(site: Site, page: Page) -> None:
    run_id = await site.run(flow(LONG, name="One row"))
    row = page.locator(f'tr[data-run="{run_id}"]')
    await row.get_by_text("Waiting").wait_for()
    asked, answered = anyio.Event(), anyio.Event()

    async def hold(route: Route) -> None:
        asked.set()
        await answered.wait()
        await route.continue_()

    await page.route("**/api/runs?*", hold)
    await site.call("POST", f"/runs/{run_id}/actions", {"action": "cancel"})
    with anyio.fail_after(10):
        await asked.wait()  # it has heard of the change
    assert await row.get_by_text("Waiting").count() == 1
    assert await row.get_by_role("button", name="Cancel One row").count() == 1
    answered.set()
    await row.get_by_text("Cancelled", exact=True).wait_for()
    assert await row.get_by_role("button", name="Retry One row").count() == 1


async def test_what_is_not_seen_in_a_text_is_written_out_and_turns_nothing_around(site: Site, page: Page) -> None:
    parameters = {"data": "a\u202eb\u0085", "query": "@"}
    definition: dict[str, Any] = flow({**VALUE, "parameters": parameters}, name="Turned \u202eround")
    run_id = await site.run(definition)
    await page.locator(f'tr[data-run="{run_id}"]').get_by_text("Completed").wait_for()
    link = page.locator(f'tr[data-run="{run_id}"] .row-link')
    assert await link.evaluate("link => getComputedStyle(link).unicodeBidi") == "isolate"
    await go(page, f"runs/{run_id}")
    await page.get_by_role("tab", name="Data").click()
    await page.get_by_text("Definition", exact=True).click()
    await page.get_by_text('"data": "a\\u202eb\\u0085"').wait_for()
