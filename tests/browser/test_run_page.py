"""The page of a run, and its row in the list: what they say and offer in each state of a run."""

from __future__ import annotations

import json
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
