"""The attempts of one run: begun, told about, given up where they refuse to end, and followed up."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from ..agents.entries import kept_entry
from ..agents.failures import kept_text
from ..agents.protocol import Agent, AttemptContext
from ..recovery.kinds import INTERRUPTED
from ..store.moves import USAGE
from .attempt import Attempt
from .messages import AttemptEnded, Logged
from .next_attempt import NextAttempt
from .outcome import Failed, Outcome, Succeeded
from .unit import Unit

if TYPE_CHECKING:
    from .run import RunExecution

logger = logging.getLogger(__name__)

MAX_LOG_LINES = 1000  # of one attempt: an agent that floods its log must not flood the journal


class Attempts:
    """Makes them. Used by the run's execution only; each works in an asyncio task of its own."""

    def __init__(self, run: RunExecution) -> None:
        self._run = run
        self._host = run.host
        self._tasks = run.tasks

    def begin(self, unit: Unit, agent: Agent) -> None:
        """Let an agent work at a unit; the run hears of the end as AttemptEnded."""
        row, run = unit.row, self._run
        number = row.attempts - row.interruptions
        place = row.task if row.item < 0 else f"{row.task}[{row.item}]"
        lines, is_warned = 0, False

        def enter(event: str, data: dict[str, Any]) -> None:
            nonlocal lines
            lines += 1
            is_heard = lines <= MAX_LOG_LINES or event == USAGE
            if is_heard and not attempt.is_given_up:  # then the unit may be at another attempt
                self._host.call_soon(partial(run.post, Logged(unit, event, data)))

        def log(level: str, message: str) -> None:
            vault = self._host.vault
            enter("task.log", {"level": kept_text(level, vault)[:16], "message": kept_text(message, vault)})

        def record(event: str, data: dict[str, Any]) -> None:
            nonlocal is_warned
            kept, left_out = kept_entry(event, data, self._host.vault)
            if kept is not None:
                enter(event, kept)
            if left_out is not None and not is_warned:
                is_warned = True
                log("warning", f"the agent {agent.name} recorded what the journal cannot hold: {left_out}")

        inputs, given = self._tasks.given()
        context = AttemptContext(
            run_id=run.run_id,
            flow_id=run.flow_id,
            task=row.task,
            attempt=number,
            attempt_id=f"{run.run_id}:{place}:{number}",
            inputs=inputs,
            context=given,
            item_index=None if row.item < 0 else row.item,
            timeout_s=NextAttempt.of(unit).timeout_s if row.error is not None else unit.node.task.timeout_s,
            log_sink=log,
            record_sink=record,
        )
        attempt = unit.attempt = Attempt(unit.node, agent, context)
        logger.debug(
            "attempt %s begins: agent %s, tools %s",
            context.attempt_id,
            agent.name,
            unit.node.task.required_tools,
            extra={"action": "begin_attempt", "run_id": run.run_id, "task": row.task},
        )
        self._host.spawn_attempt(self._work, unit, attempt, name=context.attempt_id)

    async def _work(self, unit: Unit, attempt: Attempt) -> None:
        host = self._host
        outcome: Outcome
        try:
            outcome = await attempt.run(
                self._tasks.scope_of(unit),
                about=partial(self._tasks.about, unit),
                timers=host.timers,
                vault=host.vault,
                kinds=host.rules.kinds,
                max_output_bytes=host.settings.max_output_bytes,
                grace_s=host.settings.cancel_grace_s,
                on_given_up=partial(self._give_up, unit, attempt),
            )
        except asyncio.CancelledError:
            if host.is_stopping:  # the whole service is torn down
                unit.attempt = None
                raise
            _uncancel()
            outcome = Failed(kind="agent_failure", message=f"The agent {attempt.agent.name!r} cancelled itself.")
        finally:
            host.registry.release(attempt.agent, unit.node.task)
        if attempt.is_given_up:
            host.agents_changed()  # what became of it was told long ago
        else:
            await self._conclude(unit, attempt, outcome)

    def _give_up(self, unit: Unit, attempt: Attempt, outcome: Outcome) -> None:
        """Go on without an attempt that refuses to end; its agent's place stays taken until it does."""
        context = attempt.context
        logger.warning(
            "attempt %s went on after its time was up, and is given up: the agent %s swallows that it is cancelled",
            context.attempt_id,
            attempt.agent.name,
            extra={"action": "give_up_attempt", "run_id": context.run_id, "task": context.task},
        )
        self._host.spawn_attempt(self._conclude, unit, attempt, outcome, name=context.attempt_id)

    async def _conclude(self, unit: Unit, attempt: Attempt, outcome: Outcome) -> None:
        """Tell the run what became of an attempt, and what follows."""
        try:
            if isinstance(outcome, Succeeded):
                self._note_circuits(unit, attempt, None)
            else:
                self._note_circuits(unit, attempt, outcome.kind if isinstance(outcome, Failed) else INTERRUPTED)
            if isinstance(outcome, Failed):
                outcome = await self._recover(unit, attempt, outcome)
        finally:
            unit.attempt = None
        self._run.post(AttemptEnded(unit, outcome))
        self._host.agents_changed()  # after its own run has had its turn: that may have taken the place again

    async def _recover(self, unit: Unit, attempt: Attempt, failure: Failed) -> Failed:
        """Decide about the next attempt; the place is given back, so others may have it meanwhile."""
        host = self._host
        if attempt.was_cut_off() or self._run.ending is not None:
            return failure
        host.agents_changed()
        try:
            return await attempt.follow_up(
                host.recoverer.next_attempt(failure, unit, attempt, self._tasks.policy(unit), self._run.staff)
            )
        except asyncio.CancelledError:
            if host.is_stopping and not attempt.was_cut_off():
                raise
            _uncancel()
            return failure

    def _note_circuits(self, unit: Unit, attempt: Attempt, kind: str | None) -> None:
        """Tell the circuits of agent and tools how an attempt ended, and the journal what became of them."""
        admission = self._host.admission
        for change in admission.ended(unit, self._run.staff, attempt.agent, kind, attempt.context.tool):
            data = {change.subject: change.name}
            if change.until is not None:
                data["until"] = admission.wall_time(change.until)
            event = "task.circuit_closed" if change.until is None else "task.circuit_opened"
            self._run.post(Logged(unit, event, data))


def _uncancel() -> None:
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()
