"""Names that no agent of a user and no MCP server may have, for they are those of our own agents."""

from __future__ import annotations

BUILTIN = "builtin"
STRANDS_MODEL = "strands-model"
CONTROLFLOW_MODEL = "controlflow-model"
POOL_PREFIX = "prefect:"
"""The agent of a work pool is called so, with the pool's name behind it."""


def owner_of(name: str) -> str | None:
    """Whose name that is; None where it is free to take."""
    if name == BUILTIN:
        return "the built-in tool agent"
    if name in (STRANDS_MODEL, CONTROLFLOW_MODEL) or name.startswith(POOL_PREFIX):
        return "an engine's agent"
    return None
