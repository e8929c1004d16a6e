"""The demonstration, act by act. Every line that it shows comes out of the server or the source while it happens."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from mcp import MCPError
from rich.console import Console
from rich.markdown import Markdown
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from contexten_server.cli.demo.served import DemoFailed, Served, served
from contexten_server.cli.demo.source import Source
from contexten_server.cli.screen import STATE_MARKS, STATE_STYLES, plain_table

DELAY_S = 0.5
"""How long the source takes for an answer: long enough to watch."""

LAST_BEFORE_THE_CRASH = "/quarters/2014-4.json"


async def tell(console: Console, folder: Path) -> dict[str, Any]:
    """Play all acts; answers what was proved, as JSON data. Raises DemoFailed where the promise was not kept."""
    source = Source(delay_s=DELAY_S, holds=LAST_BEFORE_THE_CRASH)
    with source.serving() as address:
        async with served(folder, address) as server:
            report = await _compose_and_run(console, folder, address, server)
        crash = await _crash_and_resume(console, folder, address, source)
    check = await _verify(console, folder)
    console.print()
    return {"report": report, "crash": crash, "verify": check}


async def _compose_and_run(console: Console, folder: Path, address: str, server: Served) -> dict[str, Any]:
    console.print(Rule("1  An agent composes a flow and runs it", align="left", style="cyan"))
    tools = [tool.name for tool in (await server.client.list_tools()).tools]
    _say(console, "server", f"over stdio, MCP {server.client.protocol_version}, {len(tools)} tools: {', '.join(tools)}")
    definition = _definition("weather-report")
    saved = await server.call("create_flow", {"name": definition["name"], "workflow_def": definition})
    _say(console, "create_flow", f"{saved['flow_id']} version {saved['version']}, {saved['plan']['tasks']} tasks")
    report = folder / "report.md"
    inputs = {"source": f"http://{address}", "years": [2012, 2013, 2014, 2015], "report": str(report)}
    run = await server.call("execute_flow", {"flow_id": saved["flow_id"], "inputs": inputs})
    _say(console, "execute_flow", f"{run['run_id']} recorded, {run['state']}; it answers at once")
    ended = await _watch(console, server, run)
    if ended["state"] != "completed":
        raise DemoFailed(f"the run ended as {ended['state']}: {ended.get('error')}")
    full = await server.call("get_flow_status", {"run_id": run["run_id"], "detail": "output"})
    _say(console, "output", json.dumps(full["output"]["overall"], ensure_ascii=False))
    _say(console, "report.md", "written by the flow:")
    console.print(Padding(Markdown(report.read_text(encoding="utf-8")), (0, 0, 0, 4)))
    return {"run_id": run["run_id"], "state": ended["state"], "output": full["output"]}


async def _watch(console: Console, server: Served, run: dict[str, Any]) -> dict[str, Any]:
    """Follow a run live: a resource subscription says that it changed, the cursor fetches only what is new."""
    uri = f"flow://runs/{run['run_id']}"
    cursor = run["cursor"]
    ended: dict[str, Any] = {}

    async def show_news() -> None:
        nonlocal cursor
        question = {"run_id": run["run_id"], "detail": "events", "since": cursor}
        news = await server.call("get_flow_status", question)
        for event in news.get("events", []):
            _show_event(console, event)
        cursor = news["cursor"]

    shown = -1

    async def show_progress(progress: float, total: float | None, message: str | None) -> None:
        nonlocal shown
        if int(progress) != shown:
            shown = int(progress)
            _show_progress(console, shown, int(total or progress), message)

    async with anyio.create_task_group() as group, server.client.listen(resource_subscriptions=[uri]) as changes:
        _say(console, "subscribe", f"{uri}: each change is pushed")

        async def wait() -> None:
            while ended.get("state") not in {"completed", "failed", "cancelled"}:
                ended.update(
                    await server.call("wait_for_flow", {"run_id": run["run_id"], "timeout_s": 20}, show_progress)
                )
            group.cancel_scope.cancel()

        group.start_soon(wait)
        async for _change in changes:
            with anyio.CancelScope(shield=True):
                await show_news()
    await show_news()
    return ended


async def _crash_and_resume(console: Console, folder: Path, address: str, source: Source) -> dict[str, Any]:
    console.print()
    console.print(Rule("2  The server is killed in mid-run", align="left", style="cyan"))
    definition = _definition("rain-by-quarter")
    before: dict[str, Any] = {}
    # The session ends with the server: how the client puts that is no concern of the story.
    with suppress(MCPError, OSError, anyio.ClosedResourceError, anyio.BrokenResourceError):
        async with served(folder, address) as server:
            request = {"workflow_def": definition, "inputs": {"source": f"http://{address}"}}
            run_id = (await server.call("execute_flow", request))["run_id"]
            _say(console, "execute_flow", f"{run_id}: 8 requests to a slow service, one after the other")
            asked = await anyio.to_thread.run_sync(source.tally.await_request, LAST_BEFORE_THE_CRASH, 60.0)
            if not asked:
                raise DemoFailed("the flow did not reach the task in which the server is killed")
            before = await server.call("get_flow_status", {"run_id": run_id})
            server.kill()
            source.let_go.set()
            done = before["progress"]
            fate = f"process {server.process.pid} is gone at {done['completed']}/{done['total']} tasks, one in flight"
            _say(console, "kill -9", fate, "red")
    console.print()
    console.print(Rule("3  Another server opens the database: the run goes on by itself", align="left", style="cyan"))
    async with served(folder, address) as server:
        _say(console, "server", f"started again as process {server.process.pid}; nobody has to ask for the run")
        ended = await _watch(console, server, before)
        tasks = (await server.call("get_flow_status", {"run_id": ended["run_id"], "detail": "tasks"}))["tasks"]
    return _judge(console, ended, tasks, source)


def _judge(console: Console, ended: dict[str, Any], tasks: list[dict[str, Any]], source: Source) -> dict[str, Any]:
    """Compare what the journal says with what the source saw. Raises DemoFailed where a finished task was redone."""
    table = plain_table("task", "state", "tries", "requests", "")
    rows = []
    crashed_at = LAST_BEFORE_THE_CRASH.removesuffix(".json").rpartition("/")[2].replace("-", "_")
    for task in tasks:
        quarter = task["name"].removeprefix("q")
        requests = source.tally.requests[f"/quarters/{quarter.replace('_', '-')}.json"]
        in_flight = quarter == crashed_at
        rows.append({"task": task["name"], "state": task["state"], "attempts": task["attempts"], "requests": requests})
        remark = "in flight when the server died" if in_flight else ""
        table.add_row(
            task["name"],
            Text(f"{STATE_MARKS[task['state']]} {task['state']}", style=STATE_STYLES[task["state"]]),
            str(task["attempts"]),
            str(requests),
            Text(remark, style="yellow"),
        )
        if (requests, task["attempts"]) != ((2, 2) if in_flight else (1, 1)):
            raise DemoFailed(f"task {task['name']} was tried {task['attempts']} times and asked {requests} times")
    console.print(Padding(table, (1, 0, 1, 4)))
    if ended["state"] != "completed":
        raise DemoFailed(f"the resumed run ended as {ended['state']}")
    _say(console, "result", "completed; nothing that was finished was done again, as journal and source agree", "green")
    return {"run_id": ended["run_id"], "state": ended["state"], "tasks": rows}


async def _verify(console: Console, folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "contexten_server", "verify", "--json", "--db", str(folder / "flow.sqlite3")]
    done = await anyio.run_process(command, check=False, stderr=subprocess.DEVNULL)
    report: dict[str, Any] = json.loads(done.stdout)
    if not report.get("ok"):
        raise DemoFailed(f"the journal and the state tables disagree: {report}")
    _say(console, "verify", f"{report['events']} events folded: journal, state tables and file agree", "green")
    return report


def _definition(name: str) -> dict[str, Any]:
    text = files(__package__).joinpath(f"{name}.json").read_text(encoding="utf-8")
    definition: dict[str, Any] = json.loads(text)
    return definition


def _say(console: Console, who: str, what: str, style: str = "bold") -> None:
    line = Table.grid(padding=(0, 1))
    line.add_column(width=15)
    line.add_column()
    line.add_row(Text(f"  {who}", style=style), what)
    console.print(line)


def _show_event(console: Console, event: dict[str, Any]) -> None:
    state = event["type"].rpartition(".")[2]
    place = event.get("task") or ""
    if "item" in event:
        place += f"[{event['item']}]"
    mark = f"{STATE_MARKS.get(state, ' ')} {event['type']:<18}"
    console.print(
        Text.assemble("    ", (event["at"][11:23], "bright_black"), "  ", (mark, STATE_STYLES.get(state, "")), place)
    )


def _show_progress(console: Console, done: int, of: int, message: str | None) -> None:
    bar = Text.assemble("    ", ("━" * 2 * done, "green"), ("━" * 2 * (of - done), "bright_black"))
    console.print(Text.assemble(bar, f" {done}/{of}  ", (message or "", "bright_black")))
