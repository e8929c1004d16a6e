"""The agents that may take tasks of the runs of one engine."""

from __future__ import annotations

from collections.abc import Callable, Collection

from ..definition.model import Task
from ..errors import Issue
from .protocol import Agent
from .registry import AgentRegistry, Worker


class Staff:
    """A registry, seen from one engine: its worker stands where the built-in agents stand for all others."""

    __slots__ = ("_misfits", "_problem", "_registry", "_worker")

    def __init__(
        self,
        registry: AgentRegistry,
        worker: Callable[[Task], Worker | None] = lambda _task: None,
        problem: Callable[[Task], str | None] = lambda _task: None,
        misfits: Callable[[Task], Collection[Issue]] = lambda _task: (),
    ) -> None:
        self._registry = registry
        self._worker = worker
        self._problem = problem
        self._misfits = misfits

    def worker(self, task: Task) -> Worker | None:
        """The engine's own agent for the task; None where the task is for the built-in ones."""
        return self._worker(task)

    def problem(self, task: Task) -> str | None:
        """Why the engine can do nothing for the task now, with what mends that; None where nothing is known."""
        return self._problem(task)

    def misfits(self, task: Task) -> Collection[Issue]:
        """What of the task's options the engine can never do; the paths begin at the task."""
        return self._misfits(task)

    @property
    def generation(self) -> int:
        """Grows where `select` may answer otherwise than before."""
        return self._registry.generation

    def select(self, task: Task) -> Agent | None:
        """The agent that would take the task if none were busy; None where no agent can ever take it."""
        return self._registry.select(task, self._worker(task))

    def try_acquire(self, task: Task, exclude: Collection[str] = ()) -> Agent | None:
        """Take a place of an agent for the task, without waiting; None where all that may take it are busy.

        `exclude` names agents to avoid; where no other is able, it is disregarded. Each place is given back by one
        `release` of the registry."""
        return self._registry.try_acquire(task, exclude, self._worker(task))

    def able(self, task: Task) -> tuple[str, ...]:
        """The names of all agents that are able to take the task, in the order in which they would."""
        return self._registry.able(task, self._worker(task))

    def crowd(self, task: Task) -> dict[str, int]:
        """The agents that the task waits for, each with its places, where all of them are taken; else nothing."""
        return self._registry.crowd(task, self._worker(task))

    def called_tools(self, task: Task) -> tuple[str, ...]:
        """The tools that an attempt of the task calls for certain: none where a model decides about that."""
        return () if self._worker(task) is not None else task.required_tools
