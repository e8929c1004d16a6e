"""Agents: what executes tasks."""

from __future__ import annotations

from .protocol import Agent, AttemptContext, Json, TaskCall, Traits
from .python_agent import PythonAgent, adapt_agents
from .registry import AgentRegistry
from .secrets import SecretVault
from .tool_agent import BuiltinToolAgent

__all__ = [
    "Agent",
    "AgentRegistry",
    "AttemptContext",
    "BuiltinToolAgent",
    "Json",
    "PythonAgent",
    "SecretVault",
    "TaskCall",
    "Traits",
    "adapt_agents",
]
