"""How an attempt ended, as values."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

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

    def as_json(self, *, task: str, attempt: int) -> str:
        """The error as the state tables and the journal keep it."""
        data: dict[str, Any] = {"kind": self.kind, "message": self.message, "task": task}
        if attempt:
            data["attempt"] = attempt
        if self.details:
            data["details"] = self.details
        return json.dumps(data, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class CutOff:
    """The attempt was ended by us: its run was cancelled or timed out, or the service stops."""


Outcome = Succeeded | Failed | CutOff
