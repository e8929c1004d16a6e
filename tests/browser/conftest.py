"""A real browser at a real server process: one of each for all tests here, and a page of its own for each test."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest

from ..protocol.conftest import assert_nothing_ignored, server_environment

if TYPE_CHECKING:
    from anyio.abc import Process
    from playwright.async_api import Browser, BrowserContext, Page

BROWSER_ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
"""Of a Chromium that runs as any user and asks nothing of the network but what a page asks."""

PATIENCE_MS = 10_000  # of one step of a test, on a machine that others load
MANY_RUNS = 10_000
NEEDLE = "The needle in the haystack"
"""The name of one of many runs; the others are called something else."""

VALUE = {"name": "value", "required_tools": ["data_processor"], "parameters": {"data": 42, "query": "@"}}
"""A task that completes at once."""
LONG = {"name": "long", "type": "wait", "parameters": {"seconds": 3600}}
"""A task that does not end while a test lasts."""

_LISTENING = re.compile(rb"listening on (http://[^/ ]+):(\d+)/mcp")


def chromium() -> str:
    """The browser's program. Skips the test where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    pytest.skip("needs Chromium: install the program `chromium`")


def axe() -> str:
    """The accessibility checker's source. Skips the test where it is not installed."""
    path = Path(__file__).parents[1] / "protocol" / "node" / "node_modules" / "axe-core" / "axe.min.js"
    if not path.exists():
        pytest.skip("needs axe-core under tests/protocol/node: run `make node-tools`")
    return path.read_text()


def flow(*tasks: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A definition with one stage of those tasks."""
    return {"stages": [{"name": "main", "tasks": list(tasks)}], **more}


@dataclass
class Site:
    """A server process, which can be stopped and started again at the same address."""

    database: Path
    settings: dict[str, str]
    port: int = 0
    process: Process | None = None

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Answers when it listens."""
        arguments = ["serve", "--transport", "http", "--port", str(self.port)]
        self.process = await anyio.open_process(
            [sys.executable, "-m", "contexten_server", *arguments],
            env=server_environment(self.database, DURABILITY="process", **self.settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        assert self.process.stderr is not None
        said = b""
        try:
            while (found := _LISTENING.search(said)) is None:
                said += await self.process.stderr.receive()
        except anyio.EndOfStream:
            await self.process.aclose()
            raise AssertionError(f"the server did not start: {said.decode()}") from None
        self.port = int(found[2])

    async def stop(self) -> None:
        """Orderly, as by an operator."""
        assert self.process is not None
        process, self.process = self.process, None
        process.terminate()
        assert process.stderr is not None
        with anyio.fail_after(20):
            told = b"".join([part async for part in process.stderr])
            await process.wait()
        await process.aclose()
        assert_nothing_ignored(told.decode(errors="replace"))

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """The API's answer to a request that must succeed."""
        token = self.settings.get("TOKENS")
        async with httpx.AsyncClient(base_url=f"{self.base}/api", trust_env=False, timeout=20) as http:
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            answer = await http.request(method, path, headers=headers, json=body if method != "GET" else None)
        assert answer.is_success, answer.text
        return answer.json()

    async def run(self, definition: dict[str, Any], **more: Any) -> str:
        """Start a run; answers its id."""
        run = await self.call("POST", "/runs", {"workflow_def": definition, **more})
        return str(run["run_id"])

    async def reaches(self, run_id: str, *states: str) -> None:
        """Returns when the run is in one of these states: the server tells of changes, nobody asks again and again."""
        async with (
            httpx.AsyncClient(base_url=f"{self.base}/api", trust_env=False, timeout=20) as http,
            http.stream("GET", "/events") as changes,
        ):
            async for line in changes.aiter_lines():
                if line.startswith("data:"):
                    change = json.loads(line.removeprefix("data:"))
                    if "run_id" not in change and (await self.call("GET", f"/runs/{run_id}"))["state"] in states:
                        return
                    if change.get("run_id") == run_id and change.get("state") in states:
                        return


@asynccontextmanager
async def serving(database: Path, **settings: str) -> AsyncIterator[Site]:
    """A server of its own."""
    site = Site(database, settings)
    await site.start()
    try:
        yield site
    finally:
        if site.process is not None:
            await site.stop()


@pytest.fixture(scope="session")
async def site(anyio_backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """The server that tests share; what one of them makes, others see."""
    async with serving(tmp_path_factory.mktemp("site") / "flow.sqlite3") as started:
        await started.reaches(await started.run(flow(VALUE, name="The first")), "completed")
        yield started


@pytest.fixture(scope="session")
async def many_runs(site: Site) -> None:
    """Gives the shared server many runs: two that really ran, and copies of one of them."""
    for name in (NEEDLE, "Haystack"):
        await site.reaches(await site.run(flow(VALUE, name=name, tags=["hay"])), "completed")
    with closing(sqlite3.connect(site.database)) as connection, connection:
        names = [row[1] for row in connection.execute("PRAGMA table_info(runs)")]
        copied = ", ".join(name for name in names if name not in ("seq", "run_id"))
        connection.execute(
            f"INSERT INTO runs (run_id, {copied})"
            " WITH hay (number) AS (SELECT 0 UNION ALL SELECT number + 1 FROM hay WHERE number + 1 < ?)"
            f" SELECT printf('run_hay%05d', number), {copied} FROM hay, (SELECT * FROM runs WHERE name = 'Haystack')",
            (MANY_RUNS,),
        )


@pytest.fixture(scope="session")
async def browser(anyio_backend: str) -> AsyncIterator[Browser]:
    """A Chromium without a screen."""
    api = pytest.importorskip("playwright.async_api", reason="needs Playwright: install the package `playwright`")
    program = chromium()
    async with api.async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=program, args=list(BROWSER_ARGUMENTS))
        yield launched
        await launched.close()


async def go(page: Page, place: str) -> None:
    """Another page, by its address; returns when it has read what it shows."""
    await page.evaluate("place => { location.hash = place; }", f"#/{place}")
    await page.locator(f'main[data-address="#/{place}"] h1').first.wait_for()
    await page.locator("main [aria-busy=true]").first.wait_for(state="detached")


_WATCH = """
addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) => {
  console.error(`policy: ${violatedDirective} ${blockedURI}`);
});
"""

OpenPage = Callable[..., Awaitable["Page"]]


@pytest.fixture
async def open_page(browser: Browser) -> AsyncIterator[OpenPage]:
    """Opens pages, each in a profile of its own, and fails the test where a script fails on one, the policy is
    violated, or a dialog of a script that is not ours pops up. `offline=True` allows that the server cannot be reached.
    """
    failures: list[str] = []
    async with AsyncExitStack() as stack:

        async def open_(address: str, *, offline: bool = False, **options: Any) -> Page:
            context: BrowserContext = await browser.new_context(**options)
            stack.push_async_callback(context.close)
            context.set_default_timeout(PATIENCE_MS)
            await context.add_init_script(_WATCH)
            page = await context.new_page()

            def heard(message: Any) -> None:
                is_expected = "Failed to load resource" in message.text and (offline or "status of 4" in message.text)
                if message.type in ("error", "warning") and not is_expected:
                    failures.append(message.text)

            page.on("console", heard)
            page.on("pageerror", lambda error: failures.append(str(error)))
            page.on("dialog", lambda dialog: failures.append(f"a dialog: {dialog.message}"))
            await page.goto(address)
            return page

        yield open_
    assert failures == []


@pytest.fixture
async def page(site: Site, open_page: OpenPage) -> Page:
    """The list of runs of the shared server, live."""
    page = await open_page(f"{site.base}/#/runs")
    await page.locator(".side [data-connection=live]").wait_for()
    return page
