"""Agents: what executes tasks."""

from __future__ import annotations

from contexten.extensions.flow.agents.protocol import Agent, AttemptContext, Json, TaskCall
from contexten.extensions.flow.agents.python_agent import PythonAgent, adapt_agents
from contexten.extensions.flow.agents.registry import AgentRegistry
from contexten.extensions.flow.agents.secrets import SecretVault
from contexten.extensions.flow.agents.tool_agent import BuiltinToolAgent

__all__ = [
    "Agent",
    "AgentRegistry",
    "AttemptContext",
    "BuiltinToolAgent",
    "Json",
    "PythonAgent",
    "SecretVault",
    "TaskCall",
    "adapt_agents",
]
