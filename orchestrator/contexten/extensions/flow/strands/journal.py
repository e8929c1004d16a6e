"""One attempt in the journal: what models were asked, what they said and cost; and the limits it keeps within."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..agents.protocol import AttemptContext, Json
from ..clock import Clock
from ..errors import AttemptError
from ..models.usage import PriceOf, Usage
from ..recovery.kinds import AGENT_FAILURE, INVALID, TIMEOUT

if TYPE_CHECKING:
    from strands.hooks import AfterModelCallEvent, BeforeModelCallEvent, HookRegistry

LINE_EVERY_S = 2.0  # how often a model that is still talking is told of
MAX_LINE = 500  # characters


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How far an attempt may go; None: no bound."""

    turns: int | None = None
    tokens: int | None = None
    call_s: float | None = None
    """Seconds for one call of a model."""


class AttemptJournal:
    """A provider of hooks for every agent that works in the attempt, several at once too."""

    def __init__(
        self,
        context: AttemptContext,
        clock: Clock,
        *,
        bounds: Bounds,
        model_of: Callable[[Any], str],
        price_of: PriceOf = lambda model: None,
    ) -> None:
        """`model_of` names the model of an agent of Strands, as the journal shows it."""
        self._context = context
        self._clock = clock
        self._bounds = bounds
        self._model_of = model_of
        self._price_of = price_of
        self._usage = Usage()
        self._open: dict[int, tuple[Any, float, float]] = {}  # by agent: it, since when (clock), until when (loop)
        self._timeout: asyncio.Timeout | None = None
        self._words: dict[int, list[str]] = {}
        self._told_at = 0.0
        self.arguments: dict[str, str] = {}
        """What models wrote as arguments of tool calls, by the call's id, before Strands read it."""

    # While the attempt lasts

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Keeps calls within their time, and tells at the end what was used. Raises AttemptError (timeout)."""
        late: str | None = None
        try:
            async with asyncio.timeout(None) as timeout:
                self._timeout = timeout
                yield
        except TimeoutError:
            if not timeout.expired():
                raise
            late = TIMEOUT
            raise AttemptError(
                f"The model did not answer within {self._bounds.call_s:g} s (CONTEXTEN_FLOW_MODEL_TIMEOUT_S).",
                kind=TIMEOUT,
                details={"model_timeout_s": self._bounds.call_s},
            ) from None
        finally:
            self._timeout = None
            for agent, since, _ in list(self._open.values()):
                self._tell_call(agent, since, error=late or "cancelled")
            self._open.clear()
            self._usage.tell(self._context, self._price_of)

    def note(self, message: str) -> None:
        """Write a line into the journal."""
        self._context.log("info", message)

    def tell_tool(self, tool: str, *, ok: bool, ms: float) -> None:
        """A tool of an agent's own was called."""
        self._context.record("task.tool_called", {"tool": tool, "ok": ok, "ms": round(ms, 1)})

    # Hooks

    def register_hooks(self, registry: HookRegistry, **_: Any) -> None:
        """Hear of an agent's model calls."""
        from strands.hooks import AfterModelCallEvent, BeforeModelCallEvent

        registry.add_callback(BeforeModelCallEvent, self.model_begins)
        registry.add_callback(AfterModelCallEvent, self.model_ended)

    def model_begins(self, event: BeforeModelCallEvent) -> None:
        """A model is about to be called. Raises AttemptError where the attempt has gone as far as it may."""
        bounds, tokens = self._bounds, self._usage.tokens
        if bounds.turns is not None and self._usage.calls >= bounds.turns:
            raise AttemptError(
                f"The model came to no end within {bounds.turns} turns (max_turns).",
                kind=AGENT_FAILURE,
                details={"max_turns": bounds.turns},
            )
        if bounds.tokens is not None and tokens >= bounds.tokens:
            raise AttemptError(
                f"The model used {tokens} tokens and came to no end; the task may use {bounds.tokens} (max_tokens).",
                kind=INVALID,  # another try would spend as much again
                details={"max_tokens": bounds.tokens, "tokens": tokens},
            )
        self._usage.called(self._model_of(event.agent))
        until = float("inf") if bounds.call_s is None else asyncio.get_running_loop().time() + bounds.call_s
        self._open[id(event.agent)] = event.agent, self._clock.monotonic(), until
        self._told_at = self._clock.monotonic()
        self._set_alarm()

    def model_ended(self, event: AfterModelCallEvent) -> None:
        """A model answered, or failed to."""
        call = self._open.pop(id(event.agent), None)
        self._set_alarm()
        self._flush(event.agent)
        if call is None:
            return
        if event.stop_response is None:
            self._tell_call(event.agent, call[1], error=type(event.exception).__name__)
            return
        metadata: Any = event.stop_response.message.get("metadata") or {}
        usage = metadata.get("usage") or {}
        tokens = {"input_tokens": usage.get("inputTokens", 0), "output_tokens": usage.get("outputTokens", 0)}
        self._usage.spent(self._model_of(event.agent), **tokens)
        self._tell_call(event.agent, call[1], stop_reason=event.stop_response.stop_reason, **tokens)

    def _tell_call(self, agent: Any, since: float, **told: Json) -> None:
        ms = round((self._clock.monotonic() - since) * 1000, 1)
        self._context.record(
            "task.model_called", {"model": self._model_of(agent), "agent": str(agent.name), "ms": ms, **told}
        )

    def _set_alarm(self) -> None:
        if self._timeout is not None and not self._timeout.expired():
            until = min((until for *_, until in self._open.values()), default=float("inf"))
            self._timeout.reschedule(None if until == float("inf") else until)

    # Words

    def hear(self, agent: Any, event: dict[str, Any]) -> None:
        """What Strands tells of an agent as it happens: words go to the journal in lines, now and then."""
        tool_use = event.get("current_tool_use")
        if tool_use is not None and isinstance(tool_use.get("input"), str):
            self.arguments[str(tool_use.get("toolUseId"))] = tool_use["input"]
        words = event.get("data")
        if isinstance(words, str):
            self._words.setdefault(id(agent), []).append(words)
            if self._clock.monotonic() - self._told_at >= LINE_EVERY_S:
                self._flush(agent)

    def _flush(self, agent: Any) -> None:
        text = "".join(self._words.pop(id(agent), ())).strip()
        self._told_at = self._clock.monotonic()
        if text:
            cut = f" [{len(text) - MAX_LINE} more characters]" if len(text) > MAX_LINE else ""
            self._context.log("info", f"{agent.name}: {text[:MAX_LINE]}{cut}")


CURRENT: ContextVar[AttemptJournal | None] = ContextVar("current_attempt_journal", default=None)
"""The journal of the attempt in which a given agent works: its hooks stay with it for longer than that."""
