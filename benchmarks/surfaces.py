"""What people and other systems feel over HTTP: the page of runs, a change on the screen, hooks, scrapes."""

from __future__ import annotations

import json
import shutil
import statistics
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import httpx
from playwright.async_api import Page, async_playwright
from standardwebhooks import Webhook

from benchmarks.report import Row
from benchmarks.server_process import serving
from contexten.extensions.flow import FlowService, FlowSettings

RUNS = 10_000
LOADS = 7
CHANGES = 30
SENDERS = 50
HOOKS = 3_000
ALONE = 100
SCRAPES = 30
NO_OP = {"stages": [{"name": "work", "tasks": [{"name": "nothing", "parameters": {"ok": True}}]}]}
FLOW = "measured"

# What the page's own clock says when the row of a run shows a state: one machine's clock tells both ends.
_SEEN = """
([run, state]) => new Promise(resolve => {
  const look = () => {
    const row = [...document.querySelectorAll('[data-run]')].find(each => each.dataset.run === run);
    if (row && row.textContent.toLowerCase().includes(state)) { watcher.disconnect(); resolve(Date.now()); }
  };
  const watcher = new MutationObserver(look);
  watcher.observe(document.body, {subtree: true, childList: true, characterData: true, attributes: true});
  look();
})
"""
_BROWSER = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


async def surface_rows(folder: Path) -> list[Row]:
    """One server on a database with RUNS finished runs, asked by a browser, by senders of hooks and by a scraper."""
    database = folder / "surfaces.sqlite3"
    await _fill(database)
    async with serving(database) as base, httpx.AsyncClient(base_url=base, trust_env=False, timeout=60) as client:
        return [*await _pages(base, client), *await _scrapes(client), *await _hooks(client)]


async def _fill(database: Path) -> None:
    async with FlowService(FlowSettings(database=database, max_concurrent_flows=100)) as service:
        await service.create_flow(workflow_def=NO_OP, flow_id=FLOW)
        run_ids = [(await service.execute_flow(flow_id=FLOW)).run_id for _ in range(RUNS)]
        for run_id in run_ids:
            await service.wait(run_id)


async def _pages(base: str, client: httpx.AsyncClient) -> list[Row]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        raise RuntimeError("Chromium is needed to measure pages.")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=list(_BROWSER))
        try:
            loads = []
            for _ in range(LOADS):
                page = await browser.new_page()
                start = time.perf_counter()
                await page.goto(f"{base}/#/runs")
                await page.wait_for_selector("[data-run]")
                loads.append(time.perf_counter() - start)
                await page.close()
            page = await browser.new_page()
            await page.goto(f"{base}/#/runs")
            await page.wait_for_selector("[data-run]")
            delays = [await _delay_s(page, client) for _ in range(CHANGES)]
        finally:
            await browser.close()
    return [
        Row(
            name=f"page of runs, {RUNS:,} in the database, until its rows are there", ours=_median_ms(loads), unit="ms"
        ),
        Row(name="a run's end to the screen, p50", ours=_median_ms(delays), unit="ms"),
    ]


async def _delay_s(page: Page, client: httpx.AsyncClient) -> float:
    run_id = (await _posted(client, "/api/runs", {"flow_id": FLOW}))["run_id"]
    seen_ms = await page.evaluate(_SEEN, [run_id, "completed"])
    run = (await client.get(f"/api/runs/{run_id}")).raise_for_status().json()
    return float(seen_ms) / 1000 - datetime.fromisoformat(run["ended_at"]).timestamp()


async def _scrapes(client: httpx.AsyncClient) -> list[Row]:
    taken = []
    for _ in range(SCRAPES):
        start = time.perf_counter()
        (await client.get("/metrics")).raise_for_status()
        taken.append(time.perf_counter() - start)
        await _posted(client, "/api/runs", {"flow_id": FLOW})  # something is new for the next one
    return [Row(name=f"a scrape of /metrics, {RUNS:,} runs, p50", ours=_median_ms(taken), unit="ms")]


async def _hooks(client: httpx.AsyncClient) -> list[Row]:
    made = await _posted(
        client, "/api/triggers", {"flow_id": FLOW, "kind": "webhook", "config": {}, "name": "measured"}
    )
    path, webhook = f"/hooks/{made['trigger_id']}", Webhook(made["secret"])

    async def send() -> float:
        start = time.perf_counter()
        answer = await client.post(path, **_signed(webhook))
        if answer.status_code != 202:
            raise RuntimeError(f"a hook was answered {answer.status_code}: {answer.text}")
        return time.perf_counter() - start

    alone = [await send() for _ in range(ALONE)]
    left = iter(range(HOOKS))

    async def sender() -> None:
        for _ in left:
            await send()

    start = time.perf_counter()
    async with anyio.create_task_group() as group:
        for _ in range(SENDERS):
            group.start_soon(sender)
    per_s = HOOKS / (time.perf_counter() - start)
    alone.sort()
    return [
        Row(name=f"signed hooks accepted and journaled, {SENDERS} senders", ours=per_s, unit="/s"),
        Row(name="a signed hook's answer, one sender, p50", ours=_median_ms(alone), unit="ms"),
        Row(name="a signed hook's answer, one sender, p99", ours=alone[int(ALONE * 0.99) - 1] * 1000, unit="ms"),
    ]


def _signed(webhook: Webhook) -> dict[str, Any]:
    """A request as Standard Webhooks has it."""
    body = json.dumps({"type": "measured", "data": {"n": 1}})
    delivery, now = f"msg_{uuid.uuid4().hex}", datetime.now(UTC)
    return {
        "content": body,
        "headers": {
            "content-type": "application/json",
            "webhook-id": delivery,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": webhook.sign(delivery, now, body),
        },
    }


async def _posted(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = await client.post(path, json=body)
    if answer.is_error:
        raise RuntimeError(f"{path} answered {answer.status_code}: {answer.text}")
    found: dict[str, Any] = answer.json()
    return found


def _median_ms(seconds: list[float]) -> float:
    return statistics.median(seconds) * 1000
