"""What an execution is told, by itself or by others."""

from __future__ import annotations

from dataclasses import dataclass

from ..definition import Plan
from ..states import RunState
from ..store import StoredText
from .outcome import Outcome
from .unit import Unit


@dataclass(frozen=True, slots=True)
class AttemptEnded:
    """An attempt is over."""

    unit: Unit
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class AlarmRang:
    """The time came for which a retrying or waiting unit waited."""

    unit: Unit


@dataclass(frozen=True, slots=True)
class SubflowReady:
    """A sub-flow's definition was read, or could not be (`plan` is None, and `problem` says why)."""

    unit: Unit
    flow_id: str
    plan: Plan | None
    version: int = 0
    inputs: str = "{}"
    problem: str = ""


@dataclass(frozen=True, slots=True)
class ChildEnded:
    """A sub-flow's run ended."""

    unit: Unit
    state: RunState
    output: StoredText | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Asked:
    """Somebody asked to cancel, pause or resume the run."""

    action: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class TimeIsUp:
    """The run's own time limit is over."""


@dataclass(frozen=True, slots=True)
class GraceIsOver:
    """Attempts that were told to end had their time."""


@dataclass(frozen=True, slots=True)
class Logged:
    """An agent wrote a line about its attempt."""

    unit: Unit
    level: str
    message: str


Message = AttemptEnded | AlarmRang | SubflowReady | ChildEnded | Asked | TimeIsUp | GraceIsOver | Logged
