"""A run's story as a tree of pieces, each with its true times, told from its entries in the journal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ..definition import Plan
from ..store import Event
from .folding import UNKNOWN

Attribute = str | int | float | bool
Key = tuple[str, int]
"""A task and its item, -1 for the task itself."""

_ENDS = ("run.completed", "run.failed", "run.cancelled")
_IDLE = {"run.scheduled": "queued", "run.waiting": "waiting", "run.paused": "paused"}
_USAGE = {
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "cost_usd": "contexten.usage.cost_usd",
}
_INTERRUPTIONS = ("run.lease_taken", "run.released")


@dataclass(slots=True)
class Piece:
    """Something that took time. Times are seconds since the epoch."""

    name: str
    start: float
    end: float | None = None
    attributes: dict[str, Attribute] = field(default_factory=dict)
    error: str | None = None
    """The kind of error with which it failed."""
    remarks: list[tuple[str, float, dict[str, Attribute]]] = field(default_factory=list)
    """What happened meanwhile: name, time, attributes."""
    children: list[Piece] = field(default_factory=list)

    def close(self, at: float, error: str | None = None) -> None:
        """It ended."""
        self.end = at
        self.error = error


class End(NamedTuple):
    """How a run ended."""

    state: str
    at: float
    kind: str | None
    """Of the error with which it failed."""


class Budget:
    """How many pieces may still be told."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.dropped = 0

    def take(self) -> bool:
        """Whether one more may be."""
        if self.left <= 0:
            self.dropped += 1
            return False
        self.left -= 1
        return True


class Story:
    """The run's own piece with those of its stages, tasks, items and tries below it.

    Neither inputs nor outputs nor messages are told: what stands in an attribute is a name, a number or a kind.
    """

    def __init__(
        self, events: Sequence[Event], end: End, plan: Plan | None, agents: Mapping[Key, str | None], budget: Budget
    ) -> None:
        """`events` are the run's own, in order, at least one, perhaps not all; `agents` tried the tasks last. Tasks are
        told without their stages where there is no `plan`."""
        self._plan = plan
        self._agents = agents
        self._budget = budget
        self._units: dict[Key, Piece] = {}
        self._tries: dict[Key, Piece] = {}
        self._idle: Piece | None = None
        self.trace: str | None = None
        """The `traceparent` under which it was submitted."""
        self.run = Piece(f"flow {events[0].flow_id}", events[0].at)
        for event in events:
            self._take(event)
        self.run.close(end.at, end.kind)
        self.run.attributes["contexten.run.state"] = end.state
        for piece in (*self._units.values(), *self._tries.values()):
            if piece.end is None:
                piece.close(end.at)
        self._put_into_stages()

    def add_sub_flow(self, key: Key, child: Piece) -> None:
        """Tell a sub-flow's run below the task that started it."""
        self._units.get(key, self.run).children.append(child)

    def _take(self, event: Event) -> None:
        if event.task is not None:
            self._take_task(event, (event.task, -1 if event.item is None else event.item))
            return
        if self._idle is not None and event.type in ("run.running", *_IDLE, *_ENDS):
            self._idle.close(event.at)
            self._idle = None
        if event.type in _IDLE and self._budget.take():
            self._idle = Piece(_IDLE[event.type], event.at)
            self.run.children.append(self._idle)
        if event.type in _INTERRUPTIONS:
            for piece in self._tries.values():
                piece.close(event.at, "interrupted")
            self._tries.clear()
            self.run.remarks.append((event.type, event.at, {}))
        elif event.type == "run.scheduled" and not self.run.attributes:
            self._take_submission(event)

    def _take_submission(self, event: Event) -> None:
        data = json.loads(event.data or "{}")
        self.trace = data.get("traceparent")
        told = {name: data[name] for name in ("version", "priority", "framework", "rerun_of") if name in data}
        self.run.attributes = {"contexten.flow.id": event.flow_id or "", "contexten.run.id": event.run_id or ""}
        self.run.attributes |= {f"contexten.run.{name}": value for name, value in told.items()}

    def _take_task(self, event: Event, key: Key) -> None:
        what = event.type.removeprefix("task.")
        if what == "skipped" or '"taken_over_from"' in (event.data or ""):
            return  # it took no time here
        if what in ("usage", "tool_called", "model_called"):
            self._remark(event, key, what)
            return
        unit = self._unit(event, key)
        data = json.loads(event.data) if event.data and what in ("retrying", "failed") else {}
        error = str(data.get("kind") or UNKNOWN) if what in ("retrying", "failed") else None
        attempt = self._tries.pop(key, None)
        if attempt is not None:
            attempt.close(event.at, error)
            agent = data.get("agent") or (self._agents.get(key) if what == "completed" else None)
            if agent is not None:
                attempt.attributes["contexten.agent.name"] = str(agent)
        if what == "running" and event.attempt is not None and unit is not None and self._budget.take():
            self._tries[key] = Piece("attempt", event.at, attributes={"contexten.task.attempt": event.attempt})
            unit.children.append(self._tries[key])
        elif what in ("completed", "failed", "cancelled") and unit is not None:
            unit.close(event.at, error)
            unit.attributes["contexten.task.state"] = what

    def _unit(self, event: Event, key: Key) -> Piece | None:
        unit = self._units.get(key)
        if unit is None and self._budget.take():
            unit = self._units[key] = Piece(f"task {event.task}", event.at)
            unit.attributes["contexten.task.name"] = event.task or ""
            if event.item is not None:
                unit.attributes["contexten.task.item"] = event.item
        return unit

    def _remark(self, event: Event, key: Key, what: str) -> None:
        attempt = self._tries.get(key) or self._units.get(key)
        if attempt is None:
            return
        data = json.loads(event.data or "{}")
        told: dict[str, Attribute] = {}
        if what == "usage":
            told["gen_ai.request.model"] = str(data.get("model") or UNKNOWN)
            attempt.attributes.setdefault("gen_ai.request.model", told["gen_ai.request.model"])
            for name, attribute in _USAGE.items():
                if isinstance(number := data.get(name), int | float):
                    told[attribute] = number
                    before = attempt.attributes.get(attribute, 0)
                    attempt.attributes[attribute] = number + (before if isinstance(before, int | float) else 0)
        elif isinstance(data.get("tool"), str):
            told["gen_ai.tool.name"] = data["tool"]
        attempt.remarks.append((event.type, event.at, told))

    def _put_into_stages(self) -> None:
        stages: dict[str, Piece] = {}
        for (task, item), unit in self._units.items():
            if item >= 0:
                self._units.get((task, -1), self.run).children.append(unit)
                continue
            node = self._plan.tasks.get(task) if self._plan is not None else None
            if node is None:
                self.run.children.append(unit)
                continue
            unit.attributes["contexten.task.type"] = node.task.type
            name = node.stage or "on_failure"
            stage = stages.get(name)
            if stage is None:
                stage = stages[name] = Piece(f"stage {name}", unit.start, unit.end)
                stage.attributes["contexten.stage.name"] = name
                self.run.children.append(stage)
            stage.start = min(stage.start, unit.start)
            stage.end = max(stage.end or stage.start, unit.end or unit.start)
            stage.children.append(unit)
