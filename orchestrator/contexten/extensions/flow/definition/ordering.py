"""What comes before what: the tasks' graph with its implied order, its topological order, its cycles."""

from __future__ import annotations

from collections import deque
from typing import TypeAlias

Vertex: TypeAlias = tuple[str, str]
"""("task", name), or a stage's ("begin", name) and ("end", name), which keep the graph small."""


class OrderGraph:
    """Vertices in the order of the definition; an edge goes from what comes later to what it waits for."""

    def __init__(self) -> None:
        self._before: dict[Vertex, list[Vertex]] = {}

    def add_stage(self, name: str, tasks: tuple[str, ...], *, is_sequential: bool) -> None:
        """A stage with its tasks, one after another where it is sequential."""
        begin, end = ("begin", name), ("end", name)
        self._before.setdefault(begin, [])
        previous: Vertex | None = None
        for task in tasks:
            vertex = ("task", task)
            self._before.setdefault(vertex, []).append(begin)
            if previous is not None and is_sequential:
                self._before[vertex].append(previous)
            previous = vertex
        self._before.setdefault(end, []).extend((begin, *(("task", task) for task in tasks)))

    def put_stage_after(self, stage: str, before: str) -> None:
        """The stage begins when the other has ended; one that does not exist is ignored."""
        self._put(("begin", stage), ("end", before))

    def put_stage_after_task(self, stage: str, task: str) -> None:
        """The stage begins when the task has ended."""
        self._put(("begin", stage), ("task", task))

    def put_after(self, task: str, before: str) -> None:
        """The task begins when the other has ended."""
        self._put(("task", task), ("task", before))

    def _put(self, later: Vertex, earlier: Vertex) -> None:
        if later in self._before and earlier in self._before and earlier not in self._before[later]:
            self._before[later].append(earlier)

    def order(self) -> tuple[str, ...] | None:
        """The tasks, each after all that it waits for, else as in the definition; None where there is a cycle."""
        waiting = {vertex: len(before) for vertex, before in self._before.items()}
        after: dict[Vertex, list[Vertex]] = {}
        for vertex, before in self._before.items():
            for other in before:
                after.setdefault(other, []).append(vertex)
        ready = deque(vertex for vertex, count in waiting.items() if count == 0)
        order: list[str] = []
        done = 0
        while ready:
            vertex = ready.popleft()
            done += 1
            if vertex[0] == "task":
                order.append(vertex[1])
            for other in after.get(vertex, ()):
                waiting[other] -= 1
                if waiting[other] == 0:
                    ready.append(other)
        return tuple(order) if done == len(self._before) else None

    def cycles(self) -> list[list[Vertex]]:
        """One short cycle of each knot of vertices that wait for each other, its first vertex at both ends.

        What waits for itself alone is left out.
        """
        found: list[list[Vertex]] = []
        for knot in self._knots():
            members = [vertex for vertex in self._before if vertex in knot]
            starts = [vertex for vertex in members if vertex[0] == "task"][:20]
            starts += [vertex for vertex in members if vertex[0] == "begin"][:20]
            found.append(min((self._way_round(start, knot) for start in starts), key=len))
        return found

    def _way_round(self, start: Vertex, knot: set[Vertex]) -> list[Vertex]:
        """The shortest way from `start` back to it, both ends included."""
        came: dict[Vertex, Vertex] = {}
        queue = deque([start])
        while queue:
            vertex = queue.popleft()
            for other in self._before[vertex]:
                if other == start:
                    way = [start]
                    while vertex != start:
                        way.append(vertex)
                        vertex = came[vertex]
                    return [start, *reversed(way[1:]), start]
                if other in knot and other not in came:
                    came[other] = vertex
                    queue.append(other)
        return [start]

    def _knots(self) -> list[set[Vertex]]:
        """Strongly connected components with a cycle in them (Tarjan's algorithm, without recursion)."""
        index: dict[Vertex, int] = {}
        low: dict[Vertex, int] = {}
        stack: list[Vertex] = []
        on_stack: set[Vertex] = set()
        knots: list[set[Vertex]] = []
        for root in self._before:
            if root in index:
                continue
            index[root] = low[root] = len(index)
            stack.append(root)
            on_stack.add(root)
            work = [(root, iter(self._before[root]))]
            while work:
                vertex, others = work[-1]
                for other in others:
                    if other not in index:
                        index[other] = low[other] = len(index)
                        stack.append(other)
                        on_stack.add(other)
                        work.append((other, iter(self._before[other])))
                        break
                    if other in on_stack:
                        low[vertex] = min(low[vertex], index[other])
                else:
                    work.pop()
                    if work:
                        low[work[-1][0]] = min(low[work[-1][0]], low[vertex])
                    if low[vertex] == index[vertex]:
                        knot: set[Vertex] = set()
                        while True:
                            member = stack.pop()
                            on_stack.discard(member)
                            knot.add(member)
                            if member == vertex:
                                break
                        if len(knot) > 1:
                            knots.append(knot)
        return knots
