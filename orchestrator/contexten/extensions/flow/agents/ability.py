"""Whether the agents of this process are able to do what a plan asks."""

from __future__ import annotations

from ..definition import Plan
from ..errors import InvalidDefinition, Issue
from .registry import AgentRegistry

KINDS_WITHOUT_AGENT = frozenset({"wait", "flow"})
"""Kinds of task that only wait: they use no agent."""


def check_agents(plan: Plan, registry: AgentRegistry) -> None:
    """Raises InvalidDefinition where no agent of this process can take a task."""
    issues = []
    disabled = registry.disabled_tools()
    for node in plan.tasks.values():
        if node.task.type in KINDS_WITHOUT_AGENT or registry.select(node.task) is not None:
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
            next="Call list_agents() to see agents and tools, then update_flow or enable the tool.",
            issues=issues,
        )
