"""One attempt on a work pool, from its submission to its verdict: followed, explained, and given up for dead."""

from __future__ import annotations

import json
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from ..agents.protocol import AttemptContext, Json
from ..errors import AttemptError
from ..recovery.kinds import AGENT_FAILURE, INTERRUPTED, INVALID
from ..store.moves import USAGE
from .connection import Connection, attempt_error
from .following import Watched
from .lifeline import LEVELS, LOG, RECORD
from .payload import Verdict
from .pieces import VERDICT, fetch_of
from .publication import pool_state

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import Log, State

START_TTL_S = 60.0  # a worker of Prefect's starts a process and imports everything, and says nothing meanwhile
NOTICE_S = 5.0  # until a run that waits for a worker says so
NOTICE_AGAIN_S = 30.0
_LINES_AT_ONCE = 200
_LEVEL_NAMES = {number: name for name, number in LEVELS.items()}


class Tracking:
    """Follows one flow run of an attempt."""

    def __init__(
        self,
        connection: Connection,
        pool: str,
        flow_run_id: UUID,
        watched: Watched,
        context: AttemptContext,
        *,
        lease_ttl_s: float,
    ) -> None:
        """A worker that says nothing for `lease_ttl_s` is dead."""
        self._connection = connection
        self._pool = pool
        self._lease_ttl_s = lease_ttl_s
        self._flow_run_id = flow_run_id
        self._watched = watched
        self._context = context
        self._clock = connection.clock
        self._seen: set[UUID] = set()  # lines of the log
        self._seen_until: Any = None
        self._lines = 0
        self._notice = ""
        self._notice_at = self._clock.monotonic() + NOTICE_S
        self._is_away = False

    async def outcome(self) -> Json:
        """The attempt's output. Raises AttemptError."""
        while True:
            await self._watched.look(NOTICE_S)
            self._check_sight()
            state = self._watched.run.state if self._watched.run is not None else None
            if self._watched.lines > self._lines:
                await self._pass_on_lines(self._watched.lines)
            if state is None:
                continue
            if state.is_final():
                return await self._end(state)
            if state.is_scheduled():
                await self._tell_why_it_waits()
            elif not state.is_paused():
                await self._check_worker(state)

    def _check_sight(self) -> None:
        watched, log = self._watched, self._context.log
        if watched.is_gone:
            raise AttemptError("The flow run of the attempt was deleted in Prefect.", kind=INVALID)
        trouble = watched.trouble
        if trouble is not None and (trouble.is_lasting or watched.troubled_s > self._connection.patience_s):
            raise attempt_error(trouble)
        if trouble is not None and not self._is_away:
            log("warning", f"{trouble.message} Following the attempt goes on when it answers again.")
        elif trouble is None and self._is_away:
            log("info", "Prefect's API answers again.")
        self._is_away = trouble is not None

    async def _tell_why_it_waits(self) -> None:
        if self._clock.monotonic() < self._notice_at:
            return
        self._notice_at = self._clock.monotonic() + NOTICE_AGAIN_S
        pool = self._pool
        state = await pool_state(self._connection, pool)
        if state.is_paused:
            notice = f"the work pool {pool} is paused: prefect work-pool resume {pool}"
        elif not state.workers_online:
            notice = f"no worker of the work pool {pool} is online; start one: contexten-flow worker --pool {pool}"
        else:
            notice = f"all workers of the work pool {pool} are busy ({', '.join(state.workers_online[:5])})"
        if notice != self._notice:
            self._notice = notice
            self._context.log("warning", f"waiting for a worker: {notice}")

    async def _check_worker(self, state: State[Any]) -> None:
        """Give the attempt up where its worker died."""
        from prefect.states import Cancelled, Crashed

        limit_s = max(START_TTL_S, self._lease_ttl_s) if state.is_pending() else self._lease_ttl_s
        silent_s = self._watched.silent_s()
        if self._watched.trouble is not None or silent_s <= limit_s:
            return
        message = f"Its worker gave no sign of life for {silent_s:.0f} s."
        end: State[Any] = Cancelled(message=message) if state.is_cancelling() else Crashed(message=message)
        result = await self._connection.propose(self._flow_run_id, end)
        if result.state is not None and result.state.type == end.type:
            raise AttemptError(f"The attempt was cut off on the work pool. {message}", kind=INTERRUPTED)
        # It ended in this moment, which the next look shows.

    async def _end(self, state: State[Any]) -> Json:
        if state.is_cancelled():
            raise AttemptError("The flow run of the attempt was cancelled in Prefect.", kind=INVALID)
        if state.is_crashed():
            told = state.message or "Prefect does not say why."
            raise AttemptError(f"The attempt was cut off on the work pool: {told}", kind=INTERRUPTED)
        text = await fetch_of(self._connection, self._flow_run_id, VERDICT)
        if text is None:
            told = state.message or f"the flow run ended as {state.name}"
            raise AttemptError(
                f"The worker did not make the attempt: {told}. See that contexten-flow[prefect] is installed where the "
                "worker runs, in the same version.",
                kind=AGENT_FAILURE,
            )
        try:
            verdict = Verdict.parse(text)
        except (ValueError, KeyError, TypeError):
            raise AttemptError("The worker's verdict cannot be read.", kind=AGENT_FAILURE) from None
        if verdict.lines > self._lines:
            await self._pass_on_lines(verdict.lines)
        for used in verdict.usage:
            self._record(USAGE, used)
        if verdict.failure is not None:
            self._context.tool = verdict.tool
            raise verdict.failure
        return verdict.output

    async def _pass_on_lines(self, until: int) -> None:
        """Bring the log up to that many lines."""
        while self._lines < until:
            page = await self._connection.ask(partial(_read_lines, self._flow_run_id, self._seen_until))
            fresh = [line for line in page if line.id not in self._seen]
            for line in fresh:
                self._seen.add(line.id)
                self._seen_until = line.timestamp
                if line.name == LOG:
                    self._context.log(_LEVEL_NAMES.get(line.level, "info"), line.message)
                elif line.name == RECORD:
                    self._record_line(line.message)
                self._lines += line.name in (LOG, RECORD)
            if not fresh:  # not there yet, or pruned
                return

    def _record_line(self, text: str) -> None:
        with suppress(ValueError, TypeError):  # whoever can write to Prefect can write such a line
            event, data = json.loads(text)
            self._record(event, data)

    def _record(self, event: Any, data: Any) -> None:
        if isinstance(data, dict):
            with suppress(ValueError, TypeError):  # what the journal does not take, such as from another version
                self._context.record(event, data)


async def _read_lines(flow_run_id: UUID, since: Any, client: PrefectClient) -> list[Log]:
    from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId, LogFilterTimestamp

    wanted = LogFilter(
        flow_run_id=LogFilterFlowRunId(any_=[flow_run_id]),
        timestamp=LogFilterTimestamp(after_=since) if since is not None else None,
    )
    return await client.read_logs(wanted, limit=_LINES_AT_ONCE)
