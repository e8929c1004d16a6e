"""What recovery changed about a task's next attempt. It is kept with the task's error, so that a restart finds it."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from ..recovery.recovering import Recovery
from .unit import Unit

_KEY = "next"


class NextAttempt(NamedTuple):
    """How an attempt differs from another of the same task."""

    timeout_s: float | None
    avoid_agents: frozenset[str] = frozenset()

    @classmethod
    def of(cls, unit: Unit) -> NextAttempt:
        """As the failure before it left it; as the task states it where nothing was changed."""
        row, stated_s = unit.row, unit.node.task.timeout_s
        if row.error is None:
            return cls(stated_s)
        changes: dict[str, Any] = json.loads(row.error).get(_KEY, {})
        return cls(changes.get("timeout_s", stated_s), frozenset(changes.get("avoid_agents", ())))


def changes_of(recovery: Recovery, unit: Unit) -> dict[str, Any]:
    """What to keep with the error of a unit that is tried again; empty where all is as the task states it."""
    changes: dict[str, Any] = {}
    if recovery.timeout_s != unit.node.task.timeout_s:
        changes["timeout_s"] = recovery.timeout_s
    if recovery.avoid_agents:
        changes["avoid_agents"] = sorted(recovery.avoid_agents)
    return {_KEY: changes} if changes else {}
