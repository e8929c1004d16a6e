"""Cycles in the order of a definition: printed, with the place to change."""

from __future__ import annotations

from itertools import pairwise

from .findings import Findings
from .model import Task
from .ordering import OrderGraph, Vertex
from .plan import STAGE_PREFIX, Draft, TaskNode
from .pointers import pointer


def report_cycles(draft: Draft, graph: OrderGraph, findings: Findings) -> None:
    """Report each knot of the draft's graph once, by its shortest cycle, at a place where an edge was written."""
    for cycle in graph.cycles():
        shown = " -> ".join(_shown(cycle))
        path, why = _place_to_change(draft, cycle)
        findings.error(path, "cycle", f"the order has a cycle: {shown}{why}", got=shown)


def _place_to_change(draft: Draft, cycle: list[Vertex]) -> tuple[str, str]:
    """Where an edge of the cycle was written down, dependencies before templates before stages."""
    edges = list(pairwise(cycle))
    found: list[tuple[int, str, str]] = []
    for later, earlier in edges:
        if later[0] == "task" and earlier[0] == "task":
            node, other = draft.tasks[later[1]], draft.tasks[earlier[1]]
            place = _dependency_place(node.task, other)
            if place is not None:
                found.append((0, f"{node.path}/depends_on/{place}", _why(node, other)))
                continue
            for rank, template in ((1, node.parameters), (1, node.for_each), (1, node.when), (1, node.cache_key)):
                uses = [] if template is None else [p for p, e in template.expressions() if other.name in e.tasks]
                found.extend((rank, use, _why(node, other)) for use in uses[:1])
        elif later[0] == "begin":
            stage = next(stage for stage in draft.stages if stage.name == later[1])
            if earlier[0] == "task":
                found.append((1, pointer("stages", stage.index, "when"), "; a stage's when is asked before it begins"))
            elif draft.definition.stages[stage.index].depends_on is not None:
                place = stage.depends_on.index(earlier[1]) if earlier[1] in stage.depends_on else 0
                found.append((2, pointer("stages", stage.index, "depends_on", place), ""))
    if not found:
        return "/stages", ""
    _, path, why = min(found, key=lambda entry: entry[0])
    return path, why


def _dependency_place(task: Task, other: TaskNode) -> int | None:
    for place, name in enumerate(task.depends_on):
        if name in (other.name, f"{STAGE_PREFIX}{other.stage}"):
            return place
    return None


def _why(node: TaskNode, other: TaskNode) -> str:
    if node.stage == other.stage:
        return f"; tasks of a sequential stage follow each other, so {node.name} cannot wait for a later one"
    return f"; {other.name} is in stage {other.stage}, which comes after {node.stage} unless depends_on says else"


def _shown(cycle: list[Vertex]) -> list[str]:
    """The tasks of the cycle; stages where it has no two tasks."""
    tasks = [name for kind, name in cycle if kind == "task"]
    if len(set(tasks)) > 1:
        if tasks[0] != tasks[-1]:
            tasks.append(tasks[0])
        return tasks
    names = [name if kind == "task" else f"{STAGE_PREFIX}{name}" for kind, name in cycle]
    shown = [name for index, name in enumerate(names) if index == 0 or name != names[index - 1]]
    return shown if shown[0] == shown[-1] else [*shown, shown[0]]
