"""What an execution is told, by itself or by others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..definition import Plan
from ..states import RunState
from ..store import CachedOutput, StoredText
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
class CacheRead:
    """A recorded output that can serve a unit was looked for; None: there is none."""

    unit: Unit
    key: str
    found: CachedOutput | None


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
    """Something about a unit's attempt is to be entered in the journal: an agent's line, a circuit's change."""

    unit: Unit
    event: str
    data: dict[str, Any]


Message = AttemptEnded | AlarmRang | SubflowReady | CacheRead | ChildEnded | Asked | TimeIsUp | GraceIsOver | Logged
