"""Who hears of commits: subscribers, and those who wait for a run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import anyio

from ..states import TERMINAL_RUN_STATES, RunState

logger = logging.getLogger(__name__)

_RUN_MOVES = {f"run.{state}": str(state) for state in RunState}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What subscribers hear after a commit of one run (or of one flow, where `run_id` is None)."""

    run_id: str | None
    flow_id: str | None
    state: str | None
    """The state that the run entered; None where it stayed in its own."""
    types: tuple[str, ...]
    """The types of the new events, such as `task.completed`."""
    cursor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Following:
    """A listener's view of the journal, from the moment from which it is told of changes."""

    missed: list[Change] | None
    """What changed between the place that was named and that moment; None where it cannot be told any more."""
    place: Callable[[], str]
    """The cursor up to which every change has been announced by now."""
    stop: Callable[[], None]


def changes_of(events: Iterable[Iterable[Any]], cursor: Callable[[int], str]) -> list[Change]:
    """The events of one commit, gathered by run and flow: of each its place, run, flow, type, and what may follow."""
    gathered: dict[tuple[str | None, str | None], tuple[list[str], list[str], int]] = {}
    for seq, run_id, flow_id, name, *_ in events:
        types, states, _ = gathered.get((run_id, flow_id)) or ([], [], 0)
        types.append(name)
        if name in _RUN_MOVES:
            states.append(_RUN_MOVES[name])
        gathered[run_id, flow_id] = (types, states, seq)
    return [
        Change(
            run_id=run_id,
            flow_id=flow_id,
            state=states[-1] if states else None,
            types=tuple(types),
            cursor=cursor(seq),
        )
        for (run_id, flow_id), (types, states, seq) in gathered.items()
    ]


class Watch:
    """Wakes when its run changed (or only when it ended or was paused); changes between two waits are not lost."""

    def __init__(self, *, end_only: bool) -> None:
        self._end_only = end_only
        self._event = anyio.Event()
        self.has_ended = False
        """Whether the run's end was among the changes."""

    def set(self, state: str | None = None) -> None:
        """The run changed, and perhaps entered a state."""
        if state in TERMINAL_RUN_STATES:
            self.has_ended = True
        if self.has_ended or state == RunState.PAUSED or not self._end_only:
            self._event.set()

    def wake(self) -> None:
        """Look again, whatever happened."""
        self._event.set()

    async def wait(self) -> None:
        """Until the run has changed since the last wait."""
        await self._event.wait()
        self._event = anyio.Event()


class Watchers:
    """The subscribers of one service. Used on its event loop only."""

    def __init__(self) -> None:
        self._listeners: dict[object, Callable[[Change], None]] = {}
        self._watches: dict[str, set[Watch]] = {}
        self.are_closed = False
        """Whether waiting for a change makes no sense any more."""

    def subscribe(self, listener: Callable[[Change], None]) -> Callable[[], None]:
        """Call `listener` with each change; answers how to stop."""
        token = object()
        self._listeners[token] = listener

        def stop() -> None:
            self._listeners.pop(token, None)

        return stop

    @contextmanager
    def watch(self, run_id: str, *, end_only: bool = False) -> Iterator[Watch]:
        """Watch one run."""
        watch = Watch(end_only=end_only)
        self._watches.setdefault(run_id, set()).add(watch)
        try:
            yield watch
        finally:
            watches = self._watches[run_id]
            watches.discard(watch)
            if not watches:
                del self._watches[run_id]

    def announce(self, changes: Sequence[Change]) -> None:
        """Tell everybody."""
        for change in changes:
            if change.run_id is not None:
                for watch in self._watches.get(change.run_id, ()):
                    watch.set(change.state)
            for listener in list(self._listeners.values()):
                try:
                    listener(change)
                except Exception:
                    logger.exception("a subscriber raised")

    def close(self) -> None:
        """Nothing will be announced any more: let everybody look again."""
        self.are_closed = True
        for watches in self._watches.values():
            for watch in watches:
                watch.wake()
