"""What other processes changed in the database, taken in: what is kept here and made untrue by it is forgotten."""

from __future__ import annotations

from collections.abc import Callable

from .flows.saving import Flows
from .scheduling.in_force import Scheduling
from .store import Event

_RESCHEDULING = frozenset({"scheduler.changed", "server.started"})  # the first server puts its settings in force


class ForeignChanges:
    """Heeds other processes' entries of the journal. Used on the event loop only."""

    def __init__(self, flows: Flows, scheduling: Scheduling, kick: Callable[[], None]) -> None:
        """`kick` is called where another strategy or limit holds: more may start."""
        self._flows = flows
        self._scheduling = scheduling
        self._kick = kick
        self._must_recall = False
        """Whether the strategy or the limit changed and that was not read yet."""

    async def heed(self, events: list[Event]) -> None:
        """Another process wrote these. Raises StoreError where it is to be called again, with what is new since."""
        for event in events:
            if event.type == "flow.updated" and event.flow_id is not None:
                self._flows.forget(event.flow_id)
            elif event.type == "flow.pruned" and event.flow_id is not None:
                self._flows.gone([event.flow_id])
        self._must_recall |= any(event.type in _RESCHEDULING for event in events)
        if self._must_recall:
            await self._scheduling.recall()
            self._must_recall = False
            self._kick()
