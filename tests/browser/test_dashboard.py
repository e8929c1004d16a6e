"""The dashboard as a person uses it: writing flows, running them, watching, acting, searching."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.actor import PYTHON

from .conftest import LONG, MANY_RUNS, NEEDLE, VALUE, OpenPage, Site, flow, go, serving

if TYPE_CHECKING:
    from playwright.async_api import Locator, Page

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(90)]


def row(page: Page, run_id: str) -> Locator:
    """A run's row in the list of runs."""
    return page.locator(f'tr[data-run="{run_id}"]')


async def test_a_flow_is_written_checked_mended_and_run(page: Page) -> None:
    await page.get_by_role("link", name="New flow").click()
    editor = page.get_by_label("Definition, as JSON")
    await page.get_by_text("It can run: 3 tasks in 2 stages.").wait_for()
    await editor.fill('{"name": "Once", "name": "Twice", "stages": []}')
    await page.locator(".finding").get_by_text("more than once").first.wait_for()
    wrong = flow({**VALUE, "required_tools": ["data_procesor"]}, name="Mended here")
    await editor.fill(json.dumps(wrong))
    await page.get_by_text("1 problem to mend.").wait_for()
    finding = page.locator(".finding")
    assert "/stages/0/tasks/0/required_tools/0" in await finding.inner_text()
    assert await page.get_by_role("button", name="Save and run").is_disabled()
    await finding.get_by_title("Show the place").click()
    selected = await editor.evaluate("field => field.value.slice(field.selectionStart, field.selectionEnd)")
    assert selected == '"data_procesor"'
    await finding.get_by_role("button", name="Apply patch").click()
    await page.get_by_text("It can run: 1 task in 1 stage.").wait_for()
    assert json.loads(await editor.input_value()) == flow(VALUE, name="Mended here")
    await page.get_by_role("button", name="Save and run").click()
    await page.wait_for_url(re.compile("#/runs/run_"))
    await page.get_by_role("heading", name="Mended here").wait_for()
    await page.locator("main [data-state=completed]").first.wait_for()


async def test_a_run_that_anybody_starts_is_watched_live_and_cancelled(site: Site, page: Page) -> None:
    run_id = await site.run(flow(LONG, name="Watched"))
    here = row(page, run_id)
    await here.get_by_text("Waiting").wait_for()
    await here.get_by_role("button", name="Cancel Watched").click()
    await page.get_by_label("Reason (optional)").fill("seen enough")
    await page.get_by_role("button", name="Cancel the run").click()
    await here.get_by_text("Cancelled", exact=True).wait_for()
    await here.get_by_text("seen enough").wait_for()


async def test_a_failed_run_is_retried_from_its_row(site: Site, page: Page) -> None:
    fails = {"name": "fails", "required_tools": ["data_processor"], "parameters": {"data": 1, "query": "keys(@)"}}
    run_id = await site.run(flow(VALUE, fails, name="Fails"))
    await row(page, run_id).get_by_text("Failed", exact=True).wait_for()
    await row(page, run_id).get_by_role("button", name="Retry Fails").click()
    await page.get_by_role("link", name="See it").click()
    await page.wait_for_url(lambda address: "#/runs/run_" in address and run_id not in address)
    await page.locator("main [data-state=failed]").first.wait_for()
    explained = await site.call("GET", f"/runs/{page.url.rpartition('/')[2]}/explanation")
    await page.locator(".cf-callout").get_by_text(explained["summary"]).wait_for()


async def test_a_flow_asks_for_its_inputs_in_fields_or_as_json(site: Site, page: Page) -> None:
    properties = {
        "count": {"type": "integer", "minimum": 1},
        "region": {"enum": ["north", "south"]},
        "words": {"type": "array", "items": {"type": "string"}},
    }
    asks = flow(VALUE, name="Asks", inputs={"type": "object", "properties": properties, "required": ["count"]})
    await site.call("POST", "/flows", {"workflow_def": asks, "flow_id": "asks"})
    await go(page, "flows/asks")
    await page.get_by_role("button", name="Run", exact=True).click()
    dialog = page.get_by_role("dialog", name="Run Asks")
    await dialog.get_by_label("count *").fill("0")
    await dialog.get_by_label("region").select_option("south")
    await dialog.get_by_label("words").fill("one\ntwo")
    await dialog.get_by_role("button", name="Run").click()
    await dialog.get_by_role("alert").get_by_text("/inputs/count", exact=True).wait_for()
    await dialog.get_by_role("button", name="Write it as JSON").click()
    text = dialog.get_by_label("Inputs (JSON)")
    assert json.loads(await text.input_value()) == {"count": 0, "region": "south", "words": ["one", "two"]}
    await text.fill('{"count": 2}')
    await dialog.get_by_role("button", name="Run").click()
    await page.wait_for_url(re.compile("#/runs/run_"))
    run_id = page.url.rpartition("/")[2]
    assert (await site.call("GET", f"/runs/{run_id}?detail=definition"))["inputs"] == {"count": 2}


@pytest.mark.usefixtures("many_runs")
async def test_one_run_is_found_among_ten_thousand_and_lists_are_paged(page: Page) -> None:
    await page.locator("tr[data-run]").nth(49).wait_for()
    assert await page.locator("tr[data-run]").count() == 50
    await page.get_by_role("button", name="Older").click()
    await page.wait_for_url(re.compile("page="))
    await page.get_by_role("button", name="Newer").click()
    await page.wait_for_url(lambda address: "page=" not in address)
    await page.get_by_label("Search runs").fill("needle in the")
    await page.locator("tr[data-run]").get_by_text(NEEDLE).wait_for()
    await page.wait_for_url(re.compile("search=needle"))
    assert await page.locator("tr[data-run]").count() == 1
    await page.get_by_label("Search runs").fill("run_hay07777")
    await row(page, "run_hay07777").wait_for()
    await page.get_by_label("State").get_by_role("button", name="Failed").click()
    await page.get_by_role("heading", name="No run matches").wait_for()
    await page.locator("main .empty").get_by_role("button", name="Clear filters").click()
    await page.locator("tr[data-run]").nth(49).wait_for()
    assert await page.get_by_label("Search runs").input_value() == ""


async def test_the_queue_tells_why_runs_wait_and_the_strategy_is_changed(site: Site, page: Page) -> None:
    held = await site.run(flow(LONG, name="Holds"))
    waits = await site.run(flow(VALUE, name="Waits for it"), dependencies=[held])
    await go(page, "queue")
    await page.get_by_role("row").filter(has_text="Waits for it").get_by_text(held).wait_for()
    slots = page.get_by_label("Runs at once")
    await slots.fill("0")
    await page.get_by_role("button", name="Compare strategies").click()
    assert await slots.evaluate("field => field === document.activeElement && !field.validity.valid")
    assert await page.get_by_role("status").filter(has_text="Replaying").count() == 0
    await slots.fill("")
    await page.get_by_role("button", name="Compare strategies").click()
    await page.get_by_role("table", name="What each strategy would do").get_by_role("row").nth(5).wait_for()
    verdict = await page.locator(".card").filter(has_text="What if").locator("p").nth(0).inner_text()
    assert verdict.startswith("“First in, first out”: ")
    assert re.search("fifo|_aware|load_balanced", verdict) is None
    await page.get_by_role("button", name="Change strategy").click()
    await page.get_by_label("Strategy", exact=True).select_option("priority")
    await page.get_by_role("button", name="Set", exact=True).click()
    await page.locator(".figure").filter(has_text="Priority, with aging").wait_for()
    assert (await site.call("GET", "/scheduler"))["strategy"] == "priority"
    await site.call("POST", f"/runs/{held}/actions", {"action": "cancel"})
    await page.get_by_role("row").filter(has_text="Waits for it").wait_for(state="detached")
    assert (await site.call("GET", f"/runs/{waits}"))["state"] in ("failed", "cancelled")


async def test_a_trigger_is_made_tried_and_switched_off(site: Site, page: Page) -> None:
    await site.call("POST", "/flows", {"workflow_def": flow(VALUE, name="Triggered"), "flow_id": "triggered"})
    await go(page, "triggers")
    await page.get_by_role("button", name="New trigger").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Flow *").fill("triggered")
    for kind, field in (("interval", "Start at"), ("file", "Changes"), ("slack", "Max active")):
        await dialog.get_by_label("Kind").select_option(kind)
        await dialog.get_by_label(field).wait_for()
    await dialog.get_by_label("Kind").select_option("webhook")
    await dialog.get_by_label("types").fill("invoice.paid")
    await dialog.get_by_role("button", name="Create").click()
    await page.get_by_text(re.compile("whsec_")).wait_for()
    await page.get_by_role("button", name="Done").click()
    await page.wait_for_url(re.compile("#/triggers/trg_"))
    await page.get_by_role("button", name="Test").click()
    await page.get_by_label("Payload (JSON)").fill('{"type": "invoice.paid"}')
    await page.get_by_label("Deliver it really").check()
    await page.get_by_role("dialog").get_by_role("button", name="Test").click()
    await page.get_by_role("dialog", name="It was delivered").get_by_role("button", name="Done").click()
    deliveries = page.get_by_role("table", name="Deliveries")
    await deliveries.get_by_text("Started").wait_for()
    first = await deliveries.get_by_role("link", name=re.compile("run_")).inner_text()
    await deliveries.get_by_role("button", name="Redeliver").click()
    asked = page.get_by_role("dialog", name="Deliver it again?")
    await asked.get_by_text(first).wait_for()
    await asked.get_by_role("button", name="Cancel").click()
    assert (await site.call("GET", "/deliveries"))["deliveries"][0]["redeliveries"] == 0
    await deliveries.get_by_role("button", name="Redeliver").click()
    await asked.get_by_role("button", name="Start another run").click()
    await deliveries.get_by_text("Before:").get_by_role("link", name=first).wait_for()
    await deliveries.get_by_role("link", name=re.compile("run_")).nth(1).wait_for()
    await page.get_by_role("button", name="Switch off").click()
    await page.get_by_role("button", name="Switch on").wait_for()
    await page.get_by_role("button", name="Delete").click()
    await page.get_by_role("button", name="Delete the trigger").click()
    await page.wait_for_url(re.compile("#/triggers$"))
    assert (await site.call("GET", "/triggers"))["triggers"] == []


async def test_what_may_not_be_meant_with_a_new_trigger_is_told_when_it_is_made(site: Site, page: Page) -> None:
    schema = {"type": "object", "required": ["title"], "properties": {"title": {"type": "string"}}}
    await site.call("POST", "/flows", {"workflow_def": flow(VALUE, inputs=schema), "flow_id": "titled"})
    await go(page, "triggers")
    await page.get_by_role("button", name="New trigger").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Flow *").fill("titled")
    await dialog.get_by_label("Kind").select_option("interval")
    await dialog.get_by_label("Every").fill("3600")
    await dialog.get_by_role("button", name="Create").click()
    told = page.get_by_role("dialog", name="The trigger is there")
    await told.get_by_role("list", name="Warnings").get_by_text("The flow requires the input 'title'").wait_for()
    assert await told.get_by_text("test_trigger").count() == 0
    await told.get_by_role("button", name="Done").click()
    await page.wait_for_url(re.compile("#/triggers/trg_"))
    await site.call("DELETE", f"/triggers/{page.url.rpartition('/')[2]}")


async def test_a_trigger_that_no_program_handles_says_so(site: Site, page: Page) -> None:
    async with FlowService(FlowSettings(database=site.database), drive=False) as flows:
        await flows.triggers.create(
            kind="webhook", handler="app.decide", name="Asks app", trigger_id="asks", actor=PYTHON
        )
    await go(page, "triggers")
    await page.get_by_role("row").filter(has_text="Asks app").get_by_text("Nobody handles it").wait_for()
    await go(page, "triggers/asks")
    shown = page.locator("main .facts")
    await shown.get_by_text("Nobody handles it").wait_for()
    await shown.get_by_text("Nothing fires or starts until one has its function.").wait_for()
    await page.get_by_role("button", name="Test").click()
    await page.get_by_role("dialog").get_by_role("button", name="Test").click()
    told = page.get_by_role("dialog", name="Its function decides")
    await told.get_by_text("only the function app.decide decides").wait_for()
    await told.get_by_role("button", name="Done").click()
    await site.call("PATCH", "/triggers/asks", {"enabled": False})
    await shown.get_by_text("Off", exact=True).wait_for()
    await site.call("DELETE", "/triggers/asks")


async def test_a_notification_is_made_and_what_it_could_not_deliver_is_told(site: Site, page: Page) -> None:
    await go(page, "notifications")
    await page.get_by_role("button", name="Create a notification").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Address").fill("http://127.0.0.1:9/hook")
    await dialog.get_by_role("button", name="Create").click()
    await dialog.get_by_role("alert").get_by_text("/url").wait_for()
    await dialog.get_by_label("Address").fill("https://receiver.invalid/hook")
    await dialog.get_by_label("Cancelled").check()
    await dialog.get_by_role("button", name="Create").click()
    await page.get_by_text(re.compile("whsec_")).wait_for()
    await page.get_by_role("button", name="Done").click()
    here = page.get_by_role("table", name="Notifications").get_by_role("row").nth(1)
    await here.get_by_text("run.cancelled").wait_for()
    await here.get_by_role("button", name="Test").click()
    await page.get_by_role("alert").get_by_text("The receiver did not take the message.").wait_for()
    await here.get_by_role("button", name="Switch off").click()
    await here.get_by_text("Off", exact=True).wait_for()
    await here.get_by_role("button", name="Switch on").click()
    await here.get_by_text("On", exact=True).wait_for()
    await page.get_by_role("button", name="Dismiss").click()
    await here.get_by_role("button", name=re.compile("Delete")).click()
    await page.get_by_role("button", name="Delete the notification").click()
    await page.get_by_role("heading", name="Nobody is told yet").wait_for()


async def test_a_token_is_asked_for_and_a_lost_connection_comes_back(tmp_path: Path, open_page: OpenPage) -> None:
    token = "a-token-of-the-operator"
    async with serving(tmp_path / "flow.sqlite3", TOKENS=token) as site:
        page = await open_page(f"{site.base}/", offline=True)
        await page.get_by_label("Token").fill("wrong")
        await page.get_by_role("button", name="Continue").click()
        await page.get_by_text("This bearer token is not accepted").wait_for()
        await page.get_by_label("Token").fill(token)
        await page.get_by_role("button", name="Continue").click()
        await page.get_by_role("heading", name="No runs yet").wait_for()
        live = page.locator(".side .connection")
        await live.and_(page.locator("[data-connection=live]")).wait_for()

        await site.stop()
        await live.get_by_text("Reconnecting").wait_for()
        await site.start()
        run_id = await site.run(flow(VALUE, name="Made meanwhile"))
        await live.click()
        await live.get_by_text("Live").wait_for()
        await row(page, run_id).get_by_text("Completed").wait_for()


async def test_what_the_server_forbids_is_not_offered(site: Site, open_page: OpenPage) -> None:
    page = await open_page("about:blank")

    async def say_read_only(route: object) -> None:
        answer = await route.fetch()  # type: ignore[attr-defined]  # Playwright's Route, imported for types only
        await route.fulfill(response=answer, json={**await answer.json(), "read_only": True})  # type: ignore[attr-defined]  # the same

    await page.route("**/api/overview", say_read_only)
    await page.goto(f"{site.base}/#/runs")
    await page.locator("tr[data-run]").first.wait_for()
    for place in ("runs", "flows", "queue", "triggers", "notifications"):
        await go(page, place)
        assert await page.locator("main .button.primary").count() == 0, place
    await page.get_by_text("read-only").wait_for()


@pytest.mark.usefixtures("many_runs")
async def test_charts_tell_what_ended_and_runs_are_exported(page: Page) -> None:
    await go(page, "charts")
    await page.get_by_role("img", name="Runs that ended, by day").wait_for()
    figure = page.locator(".figure").filter(has_text="Runs that ended")
    assert int((await figure.locator(".figure-value").inner_text()).replace(",", "")) > MANY_RUNS
    async with page.expect_download() as downloading:
        await page.get_by_role("button", name="Export CSV").click()
    lines = (await (await downloading.value).path()).read_text().splitlines()
    assert lines[0].startswith("run_id,")
    assert len(lines) > MANY_RUNS


async def test_a_place_in_a_text_is_found_by_its_pointer(page: Page) -> None:
    text = json.dumps({"a": ["x]", {"b/c": [1, 20]}], "d": {"e": "f"}}, indent=1)
    locate = "async given => (await import('/assets/ui/json_text.js')).locate(...given)"
    for pointer, found in {"/a/0": "x]", "/a/1/b~1c/1": 20, "/d/e": "f", "/d/none": {"e": "f"}}.items():
        start, end = await page.evaluate(locate, [text, pointer])
        assert json.loads(text[start:end]) == found  # of what is not there: what is nearest


@pytest.mark.parametrize(("place", "one"), [("flows", "flow"), ("triggers", "trigger")])
async def test_what_is_not_there_is_told_with_the_way_to_all_that_are(page: Page, place: str, one: str) -> None:
    await go(page, f"{place}/nope")
    await page.get_by_role("heading", name=f"There is no such {one}").wait_for()
    await page.get_by_role("link", name=f"See all {place}").wait_for()
    assert re.search(r"list_\w+|\bcall\b", await page.locator("main").inner_text(), re.IGNORECASE) is None


async def test_a_refusal_tells_a_person_of_no_call(site: Site, page: Page) -> None:
    await site.call("POST", "/flows", {"workflow_def": flow(VALUE, name="Once only"), "flow_id": "once-only"})
    await go(page, "flows/once-only?version=7")
    told = page.get_by_role("alert")
    await told.get_by_text("version 7").wait_for()
    assert await told.locator("p").count() == 0
    read = """async (next) => {
      const { problem } = await import("/assets/ui/elements.js");
      return problem({ message: "It was refused.", next }).innerText;
    }"""
    agents = {"tool": "list_flows", "arguments": {}}
    for following in ("Mend the arguments as the issues say and call again.", "See get_metrics().", agents):
        assert await page.evaluate(read, following) == "It was refused."
    assert "Give a later one" in await page.evaluate(read, "Give a later one, or none.")
    async with httpx.AsyncClient(base_url=f"{site.base}/api", trust_env=False) as http:
        refused = (await http.get("/strategy/forecast", params={"slots": 0})).json()["error"]
    assert refused["message"].startswith("One argument is wrong: The argument 'slots'")
