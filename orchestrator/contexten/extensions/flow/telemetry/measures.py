"""What is measured of runs and tasks: the seam between the journal and whatever keeps figures."""

from __future__ import annotations

from typing import Protocol


class Measures(Protocol):
    """Hears of each thing once, in the process that recorded it. Quick, and never raises. Times are seconds."""

    def run_submitted(self, flow_id: str) -> None:
        """A run was recorded; no sub-flow's."""
        ...

    def run_ended(
        self, flow_id: str, state: str, kind: str | None, wait_s: float | None, duration_s: float | None
    ) -> None:
        """A run ended, no sub-flow's, failed for an error of `kind`. `wait_s` from its submission to its start and
        `duration_s` from there to its end are None where it never started."""
        ...

    def attempt_ended(self, agent: str, outcome: str, kind: str | None, duration_s: float) -> None:
        """A try of a task, or of an item of its for_each, ended: completed, failed or cancelled."""
        ...

    def task_retried(self, kind: str) -> None:
        """A task is tried again after an error of that kind."""
        ...

    def model_used(self, model: str, calls: int, input_tokens: int, output_tokens: int, cost_usd: float | None) -> None:
        """An attempt told what it used of a language model."""
        ...

    def trigger_delivered(self, outcome: str) -> None:
        """A trigger's delivery was recorded (delivered), or what became of it: started, filtered, failed."""
        ...


class Names:
    """Names that become labels: past a number of different ones, all others are told as `other`, so that what keeps
    figures does not grow with what people and programs make up."""

    OTHER = "other"

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: dict[str, str] = {}

    def label(self, name: str) -> str:
        """The name, or OTHER."""
        known = self._known.get(name)
        if known is None:
            if len(self._known) >= self._most:
                return self.OTHER
            known = self._known[name] = name
        return known
