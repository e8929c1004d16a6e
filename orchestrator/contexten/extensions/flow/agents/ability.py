"""Whether the agents of this process are able to do what a plan asks."""

from __future__ import annotations

from dataclasses import replace

from ..definition import Plan
from ..errors import EngineUnavailable, InvalidDefinition, Issue
from .registry import AgentRegistry
from .staff import Staff

KINDS_WITHOUT_AGENT = frozenset({"wait", "flow"})
"""Kinds of task that only wait: they use no agent."""

ASK = "Call list_agents() to see agents, tools and engines, then update_flow or enable what is missing."


def check_agents(plan: Plan, staff: Staff, registry: AgentRegistry) -> None:
    """Raises InvalidDefinition where no agent of this process can take a task of a run whose agents are `staff`, or
    where the engine's worker cannot do what the task's options ask for, EngineUnavailable where only the engine's
    worker could, and it can do nothing now."""
    issues: list[Issue] = []
    disabled = registry.disabled_tools()
    for node in plan.tasks.values():
        if node.task.type in KINDS_WITHOUT_AGENT:
            continue
        agent, worker = staff.select(node.task), staff.worker(node.task)
        is_for_engine = worker is not None and worker.agent is agent
        if is_for_engine and (problem := staff.problem(node.task)) is not None:
            raise EngineUnavailable(f"The task {node.name} cannot run here: {problem}", next=ASK)
        if is_for_engine:
            issues += [replace(issue, path=f"{node.path}{issue.path}") for issue in staff.misfits(node.task)]
        if agent is not None:
            continue
        off = [f"{tool} is off: {disabled[tool]}" for tool in node.task.required_tools if tool in disabled]
        issues.append(
            Issue(
                path=f"{node.path}/required_tools",
                code="no_able_agent",
                message=f"no agent here offers all tools of task {node.name}" + (f" ({'; '.join(off)})" if off else ""),
                got=list(node.task.required_tools),
            )
        )
    if issues:
        raise InvalidDefinition(
            f"The flow cannot run here: {issues[0].message}.",
            next=ASK,
            issues=issues,
        )
