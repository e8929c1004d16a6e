"""Objects of Strands, known by where their classes come from: whoever gives one has imported it, we need not."""

from __future__ import annotations

_AGENT = "AgentBase"
_TEAM = "MultiAgentBase"


def is_strands(target: object) -> bool:
    """Whether it is an agent, graph or swarm of Strands."""
    return is_team(target) or _is(target, _AGENT)


def is_team(target: object) -> bool:
    """Whether it is a graph or swarm."""
    return _is(target, _TEAM)


def _is(target: object, name: str) -> bool:
    return any(cls.__name__ == name and cls.__module__.split(".")[0] == "strands" for cls in type(target).__mro__)
