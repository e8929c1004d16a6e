"""A process that is there to be killed: it opens the service on a database, runs flows, and dies where it is told to.

Started once, it forks a life for each JSON line on standard input, so that a life does not pay for the imports. A life
speaks JSON lines on standard output: what was acknowledged to it, and at the end what it found. It runs a program, a
list of steps; and it dies at a point of its own (`kill`), or when its parent says so.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import anyio

from contexten.extensions.flow.actor import PYTHON
from contexten.extensions.flow.agents.protocol import AttemptContext, TaskCall
from contexten.extensions.flow.errors import IllegalMove, StoreBusy
from contexten.extensions.flow.service import FlowService
from contexten.extensions.flow.settings import FlowSettings
from contexten.extensions.flow.triggers.model import Trigger, TriggerEvent, TriggerKind

PATIENCE_S = 30.0  # a life that takes longer has lost a wake-up
ENDED = ("completed", "failed", "cancelled")
LOAD = 4  # runs that a life under load has under way


def die() -> NoReturn:
    """End at once, as by the kernel's hand: nothing is flushed, closed or told."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def say(**line: Any) -> None:
    """Tell the parent; one write, so that a kill leaves a whole line or none."""
    os.write(1, (json.dumps(line) + "\n").encode())


@dataclass
class Kill:
    """Where to die: before or after the commit, effect, result or recording number `number` (from 1) of this life."""

    at: str = ""
    number: int = 0
    side: str = "before"
    counts: dict[str, int] = field(default_factory=dict)

    def around(self, what: str, act: Callable[[], Any]) -> Any:
        """Do it, and die if this is the place."""
        count = self.counts[what] = self.counts.get(what, 0) + 1
        is_here = what == self.at and count == self.number
        if is_here and self.side == "before":
            die()
        result = act()
        if is_here:
            die()
        return result


def watch_commits(kill: Kill) -> None:
    """Count every COMMIT that goes to SQLite in this process, and die at the one chosen."""
    connect = sqlite3.connect

    class Cursor(sqlite3.Cursor):
        def execute(self, sql: str, *arguments: Any) -> Any:
            act = super().execute
            if sql.lstrip().upper().startswith("COMMIT"):
                return kill.around("commit", lambda: act(sql, *arguments))
            return act(sql, *arguments)

    class Connection(sqlite3.Connection):
        def execute(self, sql: str, *arguments: Any) -> Any:
            act = super().execute
            if sql.lstrip().upper().startswith("COMMIT"):
                return kill.around("commit", lambda: act(sql, *arguments))
            return act(sql, *arguments)

        def executescript(self, sql: str) -> Any:
            act = super().executescript
            if "COMMIT" in sql:
                return kill.around("commit", lambda: act(sql))
            return act(sql)

        def commit(self) -> Any:
            act = super().commit
            return kill.around("commit", act)

        def cursor(self, factory: Any = None) -> Any:
            return super().cursor(factory or Cursor)

    def watched(*arguments: Any, **options: Any) -> Any:
        options.setdefault("factory", Connection)
        return connect(*arguments, **options)

    sqlite3.connect = watched


class Stumble(Exception):
    """A failure of a kind of its own, which speaks against no agent: it opens no circuit."""


class Ledger:
    """The agent: each of its effects is a line in a file, on the disk before the attempt goes on."""

    name = "ledger"
    agent_type = "test"
    tools = ("work",)

    def __init__(self, path: Path, kill: Kill, capacity: int, held: list[str]) -> None:
        self.capacity = capacity
        self._held = frozenset(held)  # tasks that do not end in this life
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._kill = kill
        self._changed = anyio.Event()
        self.begun: list[str] = []

    async def until_begun(self, task: str) -> None:
        """Wait until an attempt of the task has had its effect in this life."""
        while task not in self.begun:
            await self._changed.wait()

    def _write(self, line: dict[str, Any]) -> None:
        os.write(self._file, f"\n{json.dumps(line)}\n".encode())  # whatever a kill left of the line before
        os.fsync(self._file)

    async def run(self, task: TaskCall, context: AttemptContext) -> Any:
        does = task.parameters
        item = -1 if context.item_index is None else context.item_index
        line = {
            "run": context.run_id,
            "task": context.task,
            "item": item,
            "attempt": context.attempt,
            "id": context.attempt_id,
            "pid": os.getpid(),
            "at": time.time(),
        }
        self._kill.around("effect", lambda: self._write(line))
        self.begun.append(context.task)
        self._changed.set()
        self._changed = anyio.Event()
        if does.get("die"):
            die()
        if does.get("cling"):
            with suppress(asyncio.CancelledError):
                await anyio.sleep_forever()
            await anyio.sleep_forever()
        if context.task in self._held and item in does.get("held_items", [item]):
            await anyio.sleep_forever()
        await anyio.sleep(does.get("lasts_s", 0))
        if context.attempt <= does.get("failures", 0):
            raise Stumble(f"try {context.attempt} fails")
        return {"task": context.task, "item": context.item_index, "value": does.get("value")}


class Life:
    """One life: the service open on the database, and the program's steps."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        self.kill = Kill(**job.get("kill", {}))
        self.ledger = Ledger(Path(job["ledger"]), self.kill, job.get("capacity", 100), job.get("held", []))
        self.settings = FlowSettings(
            database=Path(job["database"]),
            retry_delay_s=0.01,
            stop_grace_s=job.get("stop_grace_s", 0.2),
            cancel_grace_s=job.get("cancel_grace_s", 1.0),
            max_interruptions=job.get("max_interruptions", 5),
            max_concurrent_flows=job.get("max_concurrent_flows", 100),
            lease_ttl_s=job.get("lease_ttl_s", 15.0),
        )
        self.patience_s: float = job.get("patience_s", PATIENCE_S)

    async def live(self) -> None:
        """Open, do the steps, close in order."""
        watch_commits(self.kill)
        say(opening=True)
        with anyio.fail_after(self.patience_s):
            async with FlowService(self.settings, agents=[self.ledger]) as self.service:
                for verb, *arguments in self.job["program"]:
                    await getattr(self, verb)(*arguments)
        say(closed=True, counts=self.kill.counts)

    # Steps
    async def create(self, flow_id: str, definition: dict[str, Any]) -> None:
        await self.service.create_flow(flow_id=flow_id, workflow_def=definition)

    async def execute(self, flow_id: str, key: str | None = None) -> None:
        run = await self.service.execute_flow(flow_id=flow_id, idempotency_key=key)
        say(run=run.run_id, flow=flow_id)

    async def trigger(self, flow_id: str, kind: str = "webhook", config: dict[str, Any] | None = None) -> None:
        """A trigger of that flow, by the same name."""
        await self.service.triggers.create(flow_id=flow_id, kind=kind, config=config, trigger_id=flow_id, actor=PYTHON)

    async def be_late(self, trigger_id: str, seconds: float) -> None:
        """Let a schedule that has not fired yet be late by so much, as if no server had run."""
        at = time.time()
        late = (
            "UPDATE triggers SET next_at = ? WHERE trigger_id = ? AND next_at > ?"
            " AND NOT EXISTS (SELECT 1 FROM deliveries WHERE deliveries.trigger_id = triggers.trigger_id)"
        )
        if await self.service._store.write(lambda tx: tx.execute(late, (at - seconds, trigger_id, at)).rowcount):
            await self.service.triggers.update(trigger_id, enabled=True, actor=PYTHON)  # which wakes who fires it

    async def fired(self, trigger_id: str, times: int) -> None:
        """Until a schedule has fired so often."""
        news = anyio.Event()
        stop = self.service.subscribe(lambda _: news.set())
        while len((await self.service.triggers.deliveries(trigger_id)).deliveries) < times:
            await news.wait()
            news = anyio.Event()
        stop()

    async def deliver(self, trigger_id: str, *event_ids: str) -> None:
        """Deliver events, all at once."""
        view = await self.service.triggers.get(trigger_id)
        trigger = Trigger(trigger_id=trigger_id, name=view.name, kind=TriggerKind(view.kind), config=view.config)
        async with anyio.create_task_group() as group:
            for event_id in event_ids:
                group.start_soon(self._deliver, trigger, event_id)

    async def _deliver(self, trigger: Trigger, event_id: str) -> None:
        event = TriggerEvent(kind=trigger.kind, type="test", id=event_id, payload=None, received_at="")
        await self.service.triggers.deliver(trigger, event)
        say(delivered=event_id)

    async def delivered(self) -> None:
        """Until something has become of every delivery."""
        news = anyio.Event()
        stop = self.service.subscribe(lambda _: news.set())
        while (await self.service.triggers.deliveries(state="accepted", limit=1)).deliveries:
            await news.wait()
            news = anyio.Event()
        stop()

    async def control(self, flow_id: str, action: str) -> None:
        with suppress(IllegalMove):
            answer = await self.service.control(await self._latest(flow_id), action)  # type: ignore[arg-type]  # a literal of the job
            say(controlled=action, run=answer.run_id)

    async def begun(self, task: str) -> None:
        await self.ledger.until_begun(task)
        say(begun=task)

    async def state(self, flow_id: str, *wanted: str) -> None:
        run_id = await self._latest(flow_id)
        view = await self.service.get_run(run_id)
        while view.state not in wanted:
            view = await self.service.wait(run_id, until="change", since=view.cursor)

    async def task_state(self, flow_id: str, task: str, wanted: str) -> None:
        run_id = await self._latest(flow_id)
        while True:
            view = await self.service.get_run(run_id, detail="tasks", task=task)
            if view.tasks and view.tasks[0].state == wanted:
                return
            await self.service.wait(run_id, until="change", since=view.cursor)

    async def item_state(self, flow_id: str, task: str, item: int, wanted: str) -> None:
        run_id = await self._latest(flow_id)
        since = None
        while True:
            view = await self.service.wait(run_id, until="change", since=since)
            since = view.cursor
            for event in await self.service.events(run_id):
                if (event.type, event.task, event.item) == (f"task.{wanted}", task, item):
                    return

    async def finish(self) -> None:
        """Until every run that is not paused has ended."""
        for run_id, state in await self._runs():
            if state != "paused":
                await self.service.wait(run_id)

    async def verify(self) -> None:
        report = await self.service.verify()
        say(verified=report.ok, problems=report.problems, integrity=report.integrity)

    async def load(self, flow_id: str, prefix: str, seconds: float) -> None:
        """Run a flow again and again, several at a time, for so long."""
        numbers = itertools.count()
        end = time.monotonic() + seconds

        async def client() -> None:
            while time.monotonic() < end:
                key = f"{prefix}-{next(numbers)}"
                run_id = await self._submit(flow_id, key)
                say(run=run_id, flow=flow_id)
                await self.service.wait(run_id)

        with anyio.move_on_after(seconds + 1):
            async with anyio.create_task_group() as group:
                for _ in range(LOAD):
                    group.start_soon(client)

    async def _submit(self, flow_id: str, key: str) -> str:
        while True:
            try:
                return (await self.service.execute_flow(flow_id=flow_id, idempotency_key=key)).run_id
            except StoreBusy:  # a server was stopped in the middle of a write
                await anyio.sleep(0.1)

    async def reachable(self) -> None:
        """The service is open."""
        say(reachable=True)

    async def reborn(self) -> None:
        """Until the server has noticed that its lease had lapsed, and begun anew."""
        conductor = self.service._driver.conductor
        assert conductor is not None
        before = conductor.owner
        say(settled=True)
        while conductor.owner == before:  # noqa: ASYNC110 - nothing in the product tells of it but the owner's name
            await anyio.sleep(0.01)
        say(reborn=True)

    async def stay(self) -> None:
        await anyio.sleep_forever()

    async def die(self) -> None:
        die()

    async def _runs(self) -> list[tuple[str, str]]:
        found, page = [], None
        while True:
            answer = await self.service.list_runs(limit=200, page=page)
            found += [(run.run_id, str(run.state)) for run in answer.runs]
            page = answer.next_page
            if page is None:
                return found

    async def _latest(self, flow_id: str) -> str:
        """The newest run of the flow, a sub-flow's too; it is waited for."""
        while True:
            page = await self.service.list_runs(flow_id=flow_id, limit=1)
            if page.runs:
                return page.runs[0].run_id
            parent = (await self.service.list_runs(limit=1)).runs[0]
            await self.service.wait(parent.run_id, until="change", since=parent.cursor, timeout_s=1)


def _live(job: dict[str, Any]) -> NoReturn:
    os.dup2(os.open(job["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT), 2)
    status = 1
    try:
        asyncio.run(Life(job).live())
        status = 0
    except BaseException:  # noqa: BLE001 - it is told, and the process ends
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(status)


def main() -> None:
    """Fork a life a line, and say how each ended."""
    for text in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _live(json.loads(text))
        say(pid=pid)
        _, status = os.waitpid(pid, 0)
        say(ended=os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
