"""How an attempt ended, as values."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ..recovery.recovering import Recovery
from ..recovery.retry import RetryDecision
from ..store import StoredText


@dataclass(frozen=True, slots=True, kw_only=True)
class Succeeded:
    """The attempt's output, as JSON text as the store keeps it."""

    text: StoredText


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """Why the attempt failed; `kind` decides what recovery does."""

    kind: str
    message: str
    details: dict[str, Any] | None = None
    tool: str | None = None
    """The tool that was at work, where the agent told."""
    decision: RetryDecision | None = None
    """Whether it is tried again, where that was decided already."""
    recovery: Recovery | None = None
    """What recovery did about it, where it was asked."""

    def as_json(self, *, task: str, attempt: int, **more: Any) -> str:
        """The error as the state tables and the journal keep it."""
        data: dict[str, Any] = {"kind": self.kind, "message": self.message, "task": task, **more}
        if attempt:
            data["attempt"] = attempt
        if self.details:
            data["details"] = self.details
        return json.dumps(data, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class CutOff:
    """The attempt was ended by us: its run was cancelled or timed out, or the service stops."""


Outcome = Succeeded | Failed | CutOff
