"""What a client feels: start to first tools/list, execute_flow's answer, a change to its notification."""

from __future__ import annotations

import statistics
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import anyio
from mcp.client import Client
from mcp.shared.subscriptions import ResourceUpdated

from benchmarks.ceiling import open_ceiling
from benchmarks.report import Row
from benchmarks.server_process import BARE, http, ours, stdio

STARTS = 7
CALLS = 100  # in blocks of 10, ours and the bare one in turns
BLOCK = 10
WAITS = 40
WAIT_S = 0.25  # longer than the 100 ms to which notifications of one resource are coalesced
QUIET_S = 0.15  # events closer than this belong to one burst

NO_OP = {"stages": [{"name": "work", "tasks": [{"name": "nothing", "parameters": {"ok": True}}]}]}


async def _first_list_s(arguments: tuple[str, ...]) -> float:
    start = time.perf_counter()
    async with stdio(arguments) as client:
        await client.list_tools()
        return time.perf_counter() - start


async def start_row(folder: Path) -> Row:
    """Process start to the first tools/list over stdio, medians of STARTS turns after one to warm the caches."""
    commands = {"ours": ours(folder / "start.sqlite3"), "bare": BARE}
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(STARTS + 1):
        for name, arguments in commands.items():
            seconds = await _first_list_s(arguments)
            if turn > 0:
                taken[name].append(seconds)
    return Row(
        name="stdio: start to first tools/list",
        ours=statistics.median(taken["ours"]) * 1000,
        unit="ms",
        against=statistics.median(taken["bare"]) * 1000,
        against_name="bare MCPServer",
        bar=1.25,
        bar_is_floor=False,
    )


async def _call(client: Client, tool: str, arguments: dict[str, Any]) -> tuple[float, dict[str, Any]]:
    start = time.perf_counter()
    result = await client.call_tool(tool, arguments)
    seconds = time.perf_counter() - start
    if result.is_error or result.structured_content is None:
        raise RuntimeError(f"{tool} answered {result.content}")
    return seconds, result.structured_content


async def _commit_s(folder: Path, commits: int) -> list[float]:
    taken = []
    async with open_ceiling(folder) as run_flow:
        for _ in range(commits):
            start = time.perf_counter()
            await run_flow(1)
            taken.append(time.perf_counter() - start)
    return taken


async def answer_row(folder: Path) -> Row:
    """execute_flow's answer over stdio, against a no-op tool's of the bare server plus two durable commits."""
    executes: list[float] = []
    no_ops: list[float] = []
    commits: list[float] = []
    async with stdio(ours(folder / "answer.sqlite3")) as client, stdio(BARE) as bare:
        _, created = await _call(client, "create_flow", {"name": "no-op", "workflow_def": NO_OP})
        for block in range(CALLS // BLOCK):
            for _ in range(BLOCK):
                seconds, run = await _call(client, "execute_flow", {"flow_id": created["flow_id"]})
                executes.append(seconds)
                # Not timed: the run itself must not disturb the next answer.
                await _completed(client, run["run_id"])
            for _ in range(BLOCK):
                seconds, _ = await _call(bare, "noop", {})
                no_ops.append(seconds)
            place = folder / f"commits-{block}"
            place.mkdir()
            commits += await _commit_s(place, BLOCK)
    return Row(
        name="stdio: execute_flow's answer",
        ours=statistics.median(executes) * 1000,
        unit="ms",
        against=(statistics.median(no_ops) + 2 * statistics.median(commits)) * 1000,
        against_name="no-op tool and two commits",
        bar=1.0,
        bar_is_floor=False,
    )


def _bursts(times: list[float]) -> list[float]:
    """The first instant of each group of instants that lie closer together than QUIET_S."""
    starts: list[float] = []
    last = float("-inf")
    for at in sorted(times):
        if at - last > QUIET_S:
            starts.append(at)
        last = at
    return starts


def notification_delays(changes: list[float], notified: list[float]) -> list[float]:
    """Seconds from the first change of each burst to the first notification at or after it."""
    delays = []
    for change in _bursts(changes):
        heard = [at for at in notified if at >= change]
        if heard:
            delays.append(min(heard) - change)
    return delays


async def notification_row(folder: Path) -> Row:
    """Change to notification over streamable HTTP: a run of timers, its resource listened to by a client.

    A change's instant is the journal's (`at`), a notification's is its arrival at the client, one machine's clock.
    """
    tasks = [{"name": f"pause_{n}", "type": "wait", "parameters": {"seconds": WAIT_S}} for n in range(WAITS)]
    definition = {"stages": [{"name": "timers", "tasks": tasks}]}
    notified: list[float] = []
    async with http(folder / "notify.sqlite3") as client:
        _, run = await _call(client, "execute_flow", {"workflow_def": definition})
        uri = f"flow://runs/{run['run_id']}"
        listening_since = time.time()
        async with client.listen(resource_subscriptions=[uri]) as events, anyio.create_task_group() as group:

            async def collect() -> None:
                async for event in events:
                    if isinstance(event, ResourceUpdated):
                        notified.append(time.time())  # noqa: PERF401 - stamped when it arrives

            group.start_soon(collect)
            await _completed(client, run["run_id"])
            group.cancel_scope.cancel()
        changes = [at for at in await _change_times(client, run["run_id"]) if at > listening_since]
    delays = notification_delays(changes, notified)
    if len(delays) < WAITS // 2:
        raise RuntimeError(f"{len(delays)} of {WAITS} changes were notified")
    return Row(
        name="change to notification, one process, p50",
        ours=statistics.median(delays) * 1000,
        unit="ms",
        against=None,
        against_name="",
        bar=20,
        bar_is_floor=False,
    )


async def _completed(client: Client, run_id: str) -> None:
    state = ""
    while state != "completed":
        _, run = await _call(client, "wait_for_flow", {"run_id": run_id})
        state = run["state"]
        if state in {"failed", "cancelled", "paused"}:
            raise RuntimeError(f"the run ended as {run}")


async def _change_times(client: Client, run_id: str) -> list[float]:
    times: list[float] = []
    since: dict[str, str] = {}
    while True:
        arguments = {"run_id": run_id, "detail": "events", "max_chars": 90_000, **since}
        _, page = await _call(client, "get_flow_status", arguments)
        events = page.get("events") or []
        times += [datetime.fromisoformat(event["at"]).timestamp() for event in events]
        if not events or not page.get("more_events"):
            return times
        since = {"since": events[-1]["cursor"]}
