"""Runs of the Prefect engine as Prefect shows them: a projection of the journal, behind it by some milliseconds.

The journal is the truth and waits for nobody: an API that is slow or away delays what Prefect shows, never a run. Of
the servers that drive a database one tells Prefect of a run; where it dies another goes on from what Prefect has.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio

from ..actor import Actor
from ..agents.secrets import SecretVault
from ..clock import Clock
from ..errors import FlowError
from ..flows.plans import Plans
from ..live.watching import Change, Watchers
from ..store import Event, Store
from ..store.mirrors import end_mirror, take_mirrors, tell_mirror
from ..store.sql import SQL
from .access import PrefectAccess
from .api import PrefectError
from .connection import Connection
from .projection import RUN_ENDS
from .reflection import ParentNotShown, Reflection, RunFacts, posting

logger = logging.getLogger(__name__)

LOOK_S = 2.0  # between looks for runs that nobody tells Prefect of, besides those that are heard of
GATHER_S = 0.02  # what many runs do in that time is looked for at once
CANCEL_POLL_S = 2.0  # between questions whether somebody cancelled a run in Prefect
MAX_TELLING = 8  # runs that are told of at once: a Prefect server on SQLite takes no more
EVENTS = 200  # of a run's journal at once
FIRST_DELAY_S = 0.5
MAX_DELAY_S = 30.0
PARENT_TRIES = 40  # for a sub-flow's parent task to be shown first

PREFECT = Actor(client="prefect", transport="prefect")
"""Somebody who uses Prefect's pages or API."""


class Mirror:
    """Tells Prefect of the runs that ask for it; it costs next to nothing while there are none. Used on the event loop
    only."""

    def __init__(
        self,
        *,
        store: Store,
        plans: Plans,
        clock: Clock,
        vault: SecretVault,
        watchers: Watchers,
        access: PrefectAccess,
        server_id: Callable[[], str],
        control: Callable[..., Awaitable[Any]],
    ) -> None:
        """`server_id` answers under which id this process drives runs, `control` cancels them."""
        self._store = store
        self._plans = plans
        self._clock = clock
        self._vault = vault
        self._watchers = watchers
        self._access = access
        self._server_id = server_id
        self._control = control
        self._wake = asyncio.Event()
        self._news: dict[str, asyncio.Event] = {}
        """The runs that this process tells of; set when their journal has more."""
        self._flow_runs: dict[str, Reflection] = {}
        """Those of them that Prefect shows and that have not ended."""
        self._are_shown = asyncio.Event()
        """Set when there are some."""
        self._life: asyncio.Task[None] | None = None
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[None]] = set()
        self._turns = asyncio.Semaphore(MAX_TELLING)
        self._connecting = asyncio.Lock()
        self._connection: Connection | None = None
        self._is_away = False
        """Whether it was said that the API does not answer."""

    # Its life
    def start(self, group: asyncio.TaskGroup) -> None:
        """Take runs and tell of them, in a task of the group, until `aclose`."""
        self._life = group.create_task(self._live(), name="mirror")

    async def aclose(self, grace_s: float) -> None:
        """End. Prefect is told first of the ends of runs, at most so long; what remains is the next server's."""
        await self._catch_up(max(grace_s, 0))
        if self._life is not None:
            self._life.cancel()
            await asyncio.wait([self._life])
            self._life = None

    async def _live(self) -> None:
        stop = self._watchers.subscribe(self._heard)
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                group.create_task(self._watch_for_cancellations(), name="cancellations in Prefect")
                while True:
                    await self._take()
                    with anyio.move_on_after(LOOK_S):
                        await self._wake.wait()
                        await self._clock.sleep(GATHER_S)
                    self._wake.clear()
        finally:
            stop()
            with anyio.CancelScope(shield=True):
                if self._connection is not None:
                    await self._connection.__aexit__(None, None, None)
                    self._connection = None

    async def _catch_up(self, grace_s: float) -> None:
        """Wait until Prefect was told all of the runs that have ended, at most so long."""
        with anyio.move_on_after(grace_s):
            while not self._is_away:
                await self._take()
                try:
                    ended = {row[0] for row in await self._store.rows(SQL["ended_mirrors"], (self._server_id(),))}
                except FlowError as error:
                    logger.warning("runs to show in Prefect could not be read: %s", error)
                    return
                ending = [task for task in self._tasks if task.get_name() in ended]
                if not ending:
                    return
                await asyncio.wait(ending)

    def _heard(self, change: Change) -> None:
        news = self._news.get(change.run_id or "")
        if news is not None:
            news.set()
        elif "run.scheduled" in change.types:
            self._wake.set()

    async def _take(self) -> None:
        """Begin to tell of the runs that nobody tells of."""
        server_id = self._server_id()
        try:
            if await self._store.row(SQL["free_mirrors"], (server_id, 1)) is None:
                return
            taken = await self._store.write(lambda tx: take_mirrors(tx, server_id))
        except FlowError as error:
            logger.warning("runs to show in Prefect could not be read: %s", error)
            return
        for run_id in taken:
            self._news[run_id] = asyncio.Event()
            task = self._group.create_task(self._tell(run_id, server_id), name=run_id)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    # One run
    async def _tell(self, run_id: str, server_id: str) -> None:
        delay_s, patience = FIRST_DELAY_S, PARENT_TRIES
        try:
            while True:
                try:
                    await self._tell_or_give_up(run_id, server_id, needs_parent=patience > 0)
                    return
                except ParentNotShown:
                    patience -= 1
                    pause_s = FIRST_DELAY_S / 2
                except PrefectError as error:
                    if not self._is_away:
                        delay_s = FIRST_DELAY_S
                    self._say_away(error)
                    pause_s = error.retry_after_s or delay_s * (0.75 + self._clock.random() / 2)
                    delay_s = min(delay_s * 2, MAX_DELAY_S)
                except Exception:
                    logger.exception(
                        "run %s cannot be shown in Prefect now; it will be tried again",
                        run_id,
                        extra={"run_id": run_id},
                    )
                    pause_s = MAX_DELAY_S
                finally:
                    self._flow_runs.pop(run_id, None)
                await self._clock.sleep(pause_s)
        finally:
            self._news.pop(run_id, None)

    def _say_away(self, error: PrefectError) -> None:
        if not self._is_away:
            self._is_away = True
            logger.warning(
                "Prefect cannot be told of runs now; they go on, and it will be told later: %s %s",
                error.message,
                error.next,
                extra={"action": "mirror_away"},
            )

    async def _tell_or_give_up(self, run_id: str, server_id: str, *, needs_parent: bool) -> None:
        """Tell all, or nothing more where Prefect will not hear of this run, such as when somebody deleted its flow run
        there. Raises PrefectError, ParentNotShown, FlowError."""
        try:
            await self._tell_all(run_id, server_id, needs_parent=needs_parent)
        except PrefectError as error:
            if error.status in (None, 401, 403) or not error.is_lasting:
                raise
            logger.warning("run %s is shown in Prefect no more: %s", run_id, error.message, extra={"run_id": run_id})
            await self._store.write(lambda tx: end_mirror(tx, run_id, server_id))

    async def _tell_all(self, run_id: str, server_id: str, *, needs_parent: bool) -> None:
        """Tell Prefect of a run to its end, or until another server does. Raises PrefectError, ParentNotShown."""
        row = await self._store.row(SQL["mirrored_run"], (run_id,))
        events = await self._read(run_id, 0)
        if row is None or not events:  # pruned
            return
        async with self._turns:
            connection = await self._connect()
            reflection = Reflection(connection, await self._facts(row))
            await _translated(reflection.begin(events[0], needs_parent=needs_parent))
        if not row["is_told"]:
            flow_id, at = row["flow_id"], self._clock.timestamp()
            url = reflection.address.flow_run_page(reflection.flow_run_id)
            link = {"url": url, "flow_run_id": str(reflection.flow_run_id)}
            await self._store.write(lambda tx: tell_mirror(tx, run_id, flow_id, at, link))
        self._flow_runs[run_id] = reflection
        self._are_shown.set()
        while True:
            async with self._turns:
                if await self._store.row(SQL["is_mirrored_by"], (run_id, server_id)) is None:
                    return  # this server's lease has lapsed
                if any(event.type in RUN_ENDS for event in events):
                    self._flow_runs.pop(run_id, None)
                await _translated(reflection.show(events))
            if self._is_away:
                self._is_away = False
                logger.info("Prefect answers again", extra={"action": "mirror_back"})
            if any(event.type in RUN_ENDS for event in events):
                await self._store.write(lambda tx: end_mirror(tx, run_id, server_id))
                return
            events = await self._next(run_id, events[-1].seq)

    async def _next(self, run_id: str, place: int) -> list[Event]:
        """The next entries of the run's journal, once there are any."""
        news = self._news[run_id]
        while True:
            news.clear()
            events = await self._read(run_id, place)
            if events:
                return events
            await news.wait()

    async def _read(self, run_id: str, place: int) -> list[Event]:
        return [Event(*row) for row in await self._store.rows(SQL["read_run_events"], (run_id, place, EVENTS))]

    async def _facts(self, row: Any) -> RunFacts:
        plan, _ = await self._plans.plan_of(row["flow_id"], row["version"])
        parent = (row["parent_run_id"], row["parent_task"], row["parent_item"]) if row["parent_run_id"] else None
        return RunFacts(
            run_id=row["run_id"],
            flow_id=row["flow_id"],
            version=row["version"],
            name=row["name"],
            tags=tuple(json.loads(row["tags"])),
            inputs=self._vault.mask(json.loads(row["inputs"])),
            plan=plan,
            rerun_of=row["rerun_of"],
            parent=parent,
        )

    async def _connect(self) -> Connection:
        """A connection to the API as it is configured now. Raises PrefectError."""
        async with self._connecting:
            api = await self._access.api()
            if self._connection is not None and self._connection.api.address != api.address:
                await self._connection.__aexit__(None, None, None)
                self._connection = None
            if self._connection is None:
                connection = Connection(api, self._clock)
                await connection.__aenter__()
                self._connection = connection
            return self._connection

    # Cancelled in Prefect
    async def _watch_for_cancellations(self) -> None:
        is_said = False
        while True:
            if not self._flow_runs:
                self._are_shown.clear()
                await self._are_shown.wait()
            await self._clock.sleep(CANCEL_POLL_S)
            shown = {str(reflection.flow_run_id): run_id for run_id, reflection in self._flow_runs.items()}
            if not shown or self._connection is None:
                continue
            try:
                for flow_run_id in await self._cancelled(self._connection, list(shown)):
                    await self._obey(shown[flow_run_id])
                is_said = False
            except FlowError as error:
                logger.debug("Prefect could not be asked for cancellations: %s", error)
            except Exception:
                if not is_said:
                    logger.exception("Prefect could not be asked for cancellations; it is asked again")
                is_said = True

    @staticmethod
    async def _cancelled(connection: Connection, flow_run_ids: list[str]) -> list[str]:
        found: list[str] = []
        for begin in range(0, len(flow_run_ids), EVENTS):
            of_state = {"type": {"any_": ["CANCELLING", "CANCELLED"]}}
            body = {"flow_runs": {"id": {"any_": flow_run_ids[begin : begin + EVENTS]}, "state": of_state}}
            response = await connection.once(posting("/flow_runs/filter", body))
            found += [flow_run["id"] for flow_run in response.json()]
        return found

    async def _obey(self, run_id: str) -> None:
        with suppress(FlowError):  # it has ended meanwhile, or the database is busy and the next look finds it again
            await self._control(run_id, "cancel", task=None, version=None, reason="cancelled in Prefect", actor=PREFECT)


async def _translated(work: Awaitable[None]) -> None:
    """Prefect's own name for a flow run that is not there, as the refusal that it is. Raises PrefectError."""
    from prefect.exceptions import ObjectNotFound

    try:
        await work
    except ObjectNotFound as error:
        raise PrefectError("Prefect has no such flow run any more.", status=404, is_lasting=True) from error
