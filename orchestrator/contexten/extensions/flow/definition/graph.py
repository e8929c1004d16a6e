"""A plan as a graph: what comes after what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from . import Plan


class Node(NamedTuple):
    """The start or end of a stage, or a task."""

    kind: str
    """`start`, `task` or `end`."""
    name: str


@dataclass(frozen=True, slots=True)
class Graph:
    """The nodes of a plan with what comes after each, and how many come before."""

    after: Mapping[Node, tuple[Node, ...]]
    before: Mapping[Node, int]

    @classmethod
    def of(cls, plan: Plan) -> Graph:
        """Build the graph; linear in tasks and dependencies."""
        after: dict[Node, list[Node]] = {}
        before: dict[Node, int] = {}

        def edge(source: Node, target: Node) -> None:
            after.setdefault(source, []).append(target)
            before[target] = before.get(target, 0) + 1

        for stage in plan.stages:
            start, end = Node("start", stage.name), Node("end", stage.name)
            before.setdefault(start, 0)
            edge(start, end)
            for other in stage.depends_on:
                edge(Node("end", other), start)
            for name in stage.requires:
                edge(Node("task", name), start)
            previous: Node | None = None
            for name in stage.tasks:
                task = Node("task", name)
                edge(start, task)
                edge(task, end)
                if stage.mode == "sequential" and previous is not None:
                    edge(previous, task)
                for other in plan.tasks[name].requires:
                    edge(Node("task", other), task)
                previous = task
        return cls({node: tuple(nodes) for node, nodes in after.items()}, before)
