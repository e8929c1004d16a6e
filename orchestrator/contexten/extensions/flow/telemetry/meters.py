"""Measures and readings as OpenTelemetry metrics, for the program's own provider of meters."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from .measures import Names
from .readings import Readings

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Meter, Observation

NAME = "contexten.extensions.flow"
_MOST_FLOWS, _MOST_OTHERS = 50, 100


class Meters:
    """The instruments. Names and units follow OpenTelemetry's conventions; what language models use, those for
    generative AI."""

    def __init__(self, meter: Meter) -> None:
        self.latest: Readings | None = None
        """What gauges tell when they are asked."""
        self._flows = Names(_MOST_FLOWS)
        self._others = Names(_MOST_OTHERS)
        self._submitted = meter.create_counter("contexten.flow.runs.submitted", "{run}", "Runs recorded")
        self._runs = meter.create_counter("contexten.flow.runs", "{run}", "Runs that ended")
        self._waits = meter.create_histogram("contexten.flow.run.wait", "s", "From submission to start")
        self._durations = meter.create_histogram("contexten.flow.run.duration", "s", "From start to end")
        self._attempts = meter.create_histogram("contexten.flow.task.attempt.duration", "s", "Tries of tasks")
        self._retries = meter.create_counter("contexten.flow.task.retries", "{task}", "Tasks tried again")
        self._tokens = meter.create_histogram("gen_ai.client.token.usage", "{token}", "Tokens of language models")
        self._calls = meter.create_counter("contexten.flow.model.calls", "{call}", "Calls of language models")
        self._cost = meter.create_counter("contexten.flow.model.cost", "{USD}", "Cost of language models")
        self._deliveries = meter.create_counter("contexten.flow.trigger.deliveries", "{delivery}", "Of triggers")
        for name, unit, read in _GAUGES:
            meter.create_observable_gauge(name, [self._told(read)], unit)

    def _told(self, read: Callable[[Readings], list[_Value]]) -> Callable[[CallbackOptions], Iterable[Observation]]:
        from opentelemetry.metrics import Observation

        def observe(_: CallbackOptions) -> Iterable[Observation]:
            now = self.latest
            return [] if now is None else [Observation(value, labels) for value, labels in read(now)]

        return observe

    # Measures
    def run_submitted(self, flow_id: str) -> None:
        self._submitted.add(1, {"contexten.flow.id": self._flows.label(flow_id)})

    def run_ended(
        self, flow_id: str, state: str, kind: str | None, wait_s: float | None, duration_s: float | None
    ) -> None:
        about = {"contexten.flow.id": self._flows.label(flow_id), "contexten.run.state": state, **self._error(kind)}
        self._runs.add(1, about)
        if wait_s is not None:
            self._waits.record(wait_s)
        if duration_s is not None:
            self._durations.record(duration_s, about)

    def attempt_ended(self, agent: str, outcome: str, kind: str | None, duration_s: float) -> None:
        name = self._others.label(agent)
        self._attempts.record(
            duration_s, {"contexten.agent.name": name, "contexten.task.state": outcome, **self._error(kind)}
        )

    def task_retried(self, kind: str) -> None:
        self._retries.add(1, self._error(kind))

    def model_used(self, model: str, calls: int, input_tokens: int, output_tokens: int, cost_usd: float | None) -> None:
        about = {"gen_ai.request.model": self._others.label(model)}
        self._calls.add(calls, about)
        self._tokens.record(input_tokens, {**about, "gen_ai.token.type": "input"})
        self._tokens.record(output_tokens, {**about, "gen_ai.token.type": "output"})
        if cost_usd is not None:
            self._cost.add(cost_usd, about)

    def trigger_delivered(self, outcome: str) -> None:
        self._deliveries.add(1, {"contexten.delivery.outcome": outcome})

    def _error(self, kind: str | None) -> dict[str, str]:
        return {} if kind is None else {"error.type": self._others.label(kind)}


_Value = tuple[float, dict[str, str]]


def _unfinished(now: Readings) -> list[_Value]:
    return [(number, {"contexten.run.state": state}) for state, number in now.runs.items()]


def _loads(now: Readings) -> list[_Value]:
    return [(agent.load, {"contexten.agent.name": agent.name}) for agent in now.agents[:_MOST_OTHERS]]


_GAUGES: tuple[tuple[str, str, Callable[[Readings], list[_Value]]], ...] = (
    ("contexten.flow.runs.unfinished", "{run}", _unfinished),
    ("contexten.flow.slots", "{run}", lambda now: [(now.slots, {})]),
    ("contexten.flow.queue.age", "s", lambda now: [(now.oldest_queued_s, {})]),
    ("contexten.flow.store.size", "By", lambda now: [(now.store_bytes, {})]),
    ("contexten.flow.agent.load", "1", _loads),
)
