"""What tasks of one run share: the conversations of those that are done. Of the child process only."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from ..clock import monotonic
from .library import Library
from .messages import FlowSpec

MAX_THREADS = 200
MAX_EVENTS = 100
"""Kept of a thread: as many as ControlFlow shows a model."""
IDLE_S = 1800.0
"""A run that asked for nothing for so long is forgotten; what comes later starts from the outputs before it."""


class Thread:
    """The conversations of a run's completed tasks, and those tasks."""

    def __init__(self, library: Library) -> None:
        self.flow: Any = library.Flow(parent=None, history=library.History(history={}))
        self.tasks: dict[str, Any] = {}
        """ControlFlow tasks that completed here, by id."""
        self.used_at = monotonic()

    def adopt(self, task: Any, conversation: Any) -> None:
        """Take in a completed task and its conversation, a flow whose parent is this thread's."""
        self.tasks[task.id] = task
        events = self.flow.history.history.setdefault(self.flow.thread_id, [])
        events += conversation.history.history.get(conversation.thread_id, [])
        events.sort(key=lambda event: event.timestamp)
        del events[:-MAX_EVENTS]


class Threads:
    """Of the runs that were last at work."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._threads: OrderedDict[str, Thread] = OrderedDict()

    def __len__(self) -> int:
        return len(self._threads)

    def open(self, name: str) -> Thread:
        """The thread of that name, made where there is none."""
        now = monotonic()
        while self._threads and next(iter(self._threads.values())).used_at < now - IDLE_S:
            self._threads.popitem(last=False)
        thread = self._threads.pop(name, None) or Thread(self._library)
        thread.used_at = now
        self._threads[name] = thread
        while len(self._threads) > MAX_THREADS:
            self._threads.popitem(last=False)
        return thread

    def conversation(self, thread: Thread, spec: FlowSpec) -> Any:
        """A flow for one attempt: it sees what the thread holds, and nothing of it stays there unless it is adopted.

        So attempts side by side do not see half of each other's tool calls, which providers refuse, and a failed
        attempt leaves nothing behind."""
        return self._library.Flow(
            name=spec.name,
            description=spec.description,
            context=spec.context,
            parent=thread.flow,
            history=self._library.History(history={}),
        )
