"""A plan in brief: what may start together, the longest chain, what it touches outside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..definition import Plan, TaskNode
from ..definition.plan import STAGE_PREFIX
from ..views import GraphTask, PlanView

MAX_WAVES = 50
_EFFECTS = {
    "http_client": ("url", "sends {method} {0}"),
    "file_writer": ("path", "writes the file {0}"),
    "file_reader": ("path", "reads the file {0}"),
    "shell": ("argv", "runs the command {0}"),
    "python": ("function", "calls the function {0}"),
}


def predecessors(plan: Plan) -> dict[str, frozenset[str]]:
    """For each task of a stage the tasks that must end before it, dependencies and implied order alike."""
    ends: dict[str, frozenset[str]] = {}
    before: dict[str, frozenset[str]] = {}
    for stage in _stages_in_order(plan):
        gate: frozenset[str] = frozenset().union(*(ends[name] for name in stage.depends_on)) | stage.requires
        previous: str | None = None
        for name in stage.tasks:
            own = gate | plan.tasks[name].requires
            if stage.mode == "sequential" and previous is not None:
                own |= {previous}
            before[name] = own
            previous = name
        ends[stage.name] = frozenset(stage.tasks) or gate
    return before


def _stages_in_order(plan: Plan) -> list[Any]:
    left = {stage.name: stage for stage in plan.stages}
    ordered = []
    while left:
        for name, stage in left.items():
            if not any(other in left for other in stage.depends_on):
                ordered.append(left.pop(name))
                break
    return ordered


def plan_view(plan: Plan, warnings: list[str] | None = None) -> PlanView:
    """The plan as create_flow and explain_flow show it."""
    before = predecessors(plan)
    level: dict[str, int] = {}
    for name in plan.order:
        level[name] = 1 + max((level.get(other, 0) for other in before[name]), default=0)
    waves: list[list[str]] = [[] for _ in range(max(level.values(), default=0))]
    for name, node in plan.tasks.items():
        if node.on_failure_of is None:
            waves[level[name] - 1].append(name)
    tools = dict.fromkeys(tool for node in plan.tasks.values() for tool in node.task.required_tools)
    return PlanView(
        stages=len(plan.stages),
        tasks=len(plan.order),
        waves=waves[:MAX_WAVES],
        more_waves=max(0, len(waves) - MAX_WAVES) or None,
        on_failure=[name for names in plan.on_failure.values() for name in names] or None,
        tools=list(tools),
        warnings=warnings or [],
    )


def graph_view(plan: Plan) -> list[GraphTask]:
    """The plan as a graph: every task with what it follows, told once. The order of stages counts for the tasks that
    begin a stage, and is told by the stage before, so that two stages of 500 tasks have 500 entries and not 250,000."""
    before: dict[str, dict[str, None]] = {name: {} for name in plan.tasks}
    ends: dict[str, list[str]] = {}
    for stage in _stages_in_order(plan):
        gate = [end for name in stage.depends_on for end in ends[name]] + sorted(stage.requires)
        ends[stage.name] = [f"{STAGE_PREFIX}{stage.name}"] if stage.tasks else gate
        previous: str | None = None
        for name in stage.tasks:
            follows = before[name]
            if stage.mode == "sequential" and previous is not None:
                follows[previous] = None
            elif plan.tasks[name].requires.isdisjoint(stage.tasks):  # those that it follows begin after the gate
                follows.update(dict.fromkeys(gate))
            previous = name
    for failed, names in plan.on_failure.items():
        for name, previous in zip(names, (failed, *names), strict=False):
            before[name].update({previous: None} if previous else {})
    return [
        GraphTask(
            task=name,
            stage=node.stage,
            type=node.task.type,
            depends_on=list(
                before[name] | dict.fromkeys(sorted(node.requires, key=lambda other: plan.tasks[other].index))
            ),
            description=node.task.description,
        )
        for name, node in plan.tasks.items()
    ]


def critical_path(plan: Plan) -> list[str]:
    """The chain of tasks with the greatest sum of complexities: what bounds the duration of a run without failures from
    below."""
    before = predecessors(plan)
    cost: dict[str, float] = {}
    via: dict[str, str | None] = {}
    for name in plan.order:
        best = max(before[name], key=lambda other: cost.get(other, 0.0), default=None)
        via[name] = best
        cost[name] = plan.tasks[name].task.complexity + (cost.get(best, 0.0) if best else 0.0)
    path: list[str] = []
    current = max(cost, key=lambda name: cost[name], default=None)
    while current is not None:
        path.append(current)
        current = via[current]
    return path[::-1]


def side_effects(plan: Plan) -> list[str]:
    """What the tasks touch outside this program, a line each, templates as they are written."""
    return [line for node in plan.tasks.values() for line in _effects(node)]


def _effects(node: TaskNode) -> list[str]:
    parameters: Mapping[str, Any] = node.task.parameters
    name = node.name if node.on_failure_of is None else f"{node.name} (after a failure)"
    lines = []
    for tool in node.task.required_tools:
        if tool not in _EFFECTS:
            if tool not in ("json_parser", "data_processor", "wait"):
                lines.append(f"{name}: uses the tool {tool}")
            continue
        field, text = _EFFECTS[tool]
        value = parameters.get(field, "?")
        shown = " ".join(map(str, value)) if isinstance(value, list) else str(value)
        lines.append(f"{name}: {text.format(shown[:200], method=parameters.get('method', 'GET'))}")
    if node.task.type == "flow":
        lines.append(f"{name}: runs the flow {parameters.get('flow_id')}")
    return lines
