"""Traces of runs that have ended: OpenTelemetry spans with true times, made from the journal.

A run is told when it has ended, by the process that ended it, so that a restart or another server loses nothing of its
story. Its trace goes on where it was submitted: under the request of an MCP client, or under a span of a program.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import FlowError, NotFound
from ..flows.plans import Plans
from ..store import Event, Store
from ..store.sql import SQL
from ..trace_context import is_given
from .story import Budget, End, Piece, Story

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Tracer

logger = logging.getLogger(__name__)

MOST_WAITING = 1000  # runs that have ended and are not told yet; further ones are not told
MOST_PIECES = 2000  # of one run with its sub-flows: as many as exporters keep in their queues
MOST_EVENTS = 20_000  # of one run, the first
FINISH_S = 1.0  # for what has ended to be told when the service closes

_NAME = "contexten.extensions.flow"
_ENDS = frozenset({"run.completed", "run.failed", "run.cancelled"})


class Tracing:
    """Tells ended runs to the program's provider of tracers. Used on the event loop only; spans are made on a
    thread."""

    def __init__(self, store: Store, plans: Plans) -> None:
        self._store = store
        self._plans = plans
        self._ended: deque[str] = deque()
        self._news = asyncio.Event()
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._dropped = 0

    def heard(self, events: Sequence[Event]) -> None:
        """This process committed these entries."""
        for event in events:
            if event.type in _ENDS and event.run_id is not None:
                self._enter(event.run_id)

    def _enter(self, run_id: str) -> None:
        if len(self._ended) >= MOST_WAITING:
            if not self._dropped:
                logger.warning("more runs end than traces can be made of; some are left out")
            self._dropped += 1
            return
        self._ended.append(run_id)
        self._is_idle.clear()
        self._news.set()

    async def run(self) -> None:
        """Tell what has ended, until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._ended:
                run_id = self._ended.popleft()
                try:
                    await self._tell(run_id)
                except FlowError as error:
                    logger.warning("no trace of run %s: %s", run_id, error, extra={"run_id": run_id})
                except Exception:  # whatever an exporter does, the next run is told
                    logger.exception("no trace of run %s", run_id, extra={"run_id": run_id})
            self._dropped = 0
            self._is_idle.set()

    async def finish(self) -> None:
        """Until all that has ended is told, for FINISH_S at most."""
        try:
            async with asyncio.timeout(FINISH_S):
                await self._is_idle.wait()
        except TimeoutError:
            logger.warning("%d runs have ended without a trace", len(self._ended))

    async def _tell(self, run_id: str) -> None:
        from opentelemetry import trace

        provider = trace.get_tracer_provider()
        if not is_given(provider):
            return
        row = await self._store.row(SQL["story_run"], (run_id,))
        if row is None:  # pruned, or a sub-flow's, which is told with its root
            return
        budget = Budget(MOST_PIECES)
        story = await self._story(row, budget)
        if budget.dropped:
            story.run.attributes["contexten.dropped_spans"] = budget.dropped
        await asyncio.to_thread(_emit, provider.get_tracer(_NAME), story.run, _parent(story.trace))

    async def _story(self, run: sqlite3.Row, budget: Budget) -> Story:
        run_id = run["run_id"]
        rows = await self._store.survey(SQL["story_events"], (run_id, MOST_EVENTS))
        tasks = await self._store.survey(SQL["story_agents"], (run_id,))
        try:
            plan, _ = await self._plans.plan_of(run["flow_id"], run["version"])
        except NotFound:
            plan = None
        agents = {(row["task"], row["item"]): row["agent"] for row in tasks}
        end = End(run["state"], run["ended_at"], run["kind"])
        story = Story([Event(*row) for row in rows], end, plan, agents, budget)
        for child in await self._store.rows(SQL["story_children"], (run_id,)):
            if not budget.take():
                break
            told = await self._story(child, budget)
            item = -1 if child["parent_item"] is None else child["parent_item"]
            story.add_sub_flow((child["parent_task"], item), told.run)
        return story


def _parent(traceparent: str | None) -> Context:
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier = {} if traceparent is None else {"traceparent": traceparent}
    return TraceContextTextMapPropagator().extract(carrier, Context())


def _emit(tracer: Tracer, piece: Piece, parent: Context) -> None:
    from opentelemetry.trace import Status, StatusCode, set_span_in_context

    end = max(piece.start, piece.end if piece.end is not None else piece.start)
    span = tracer.start_span(piece.name, parent, attributes=piece.attributes, start_time=_ns(piece.start))
    if span.is_recording():  # else the trace is not sampled, and what is below neither
        for name, at, attributes in piece.remarks:
            span.add_event(name, attributes, timestamp=_ns(at))
        if piece.error is not None:
            span.set_attribute("error.type", piece.error)
            span.set_status(Status(StatusCode.ERROR))
        below = set_span_in_context(span, parent)
        for child in piece.children:
            _emit(tracer, child, below)
    span.end(_ns(end))


def _ns(at: float) -> int:
    return int(at * 1_000_000) * 1000
