"""What is answered about agents, tools and engines."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from .view import View


class CircuitView(View):
    """A circuit that is not closed: what it stands for failed several times in a row, and is left alone for a while."""

    state: str = Field(description="open; half_open once one attempt may try")
    until: str = Field(description="when it lets an attempt through")


class AgentView(View):
    """One agent of this process."""

    name: str
    agent_type: str
    tools: list[str]
    capacity: int
    running: int
    load: float = Field(description="outstanding complexity per capacity")
    lowered_to: int | None = Field(None, description="places now, for a while, after failures for want of resources")
    state: str | None = Field(None, description="of an MCP server: connected, connecting, or failed, and why")
    circuit: CircuitView | None = None


class ToolView(View):
    """One tool that a task may require."""

    name: str
    description: str
    parameters: dict[str, Any] | None = Field(None, description="JSON Schema of its parameters")
    agents: list[str]
    circuit: CircuitView | None = None
    rate_limit: str | None = Field(None, description="attempts an interval, such as 10/1s")


class EngineView(View):
    """One engine, by the name that `framework` takes."""

    name: str
    available: bool = Field(description="whether runs can use it now")
    version: str | None = Field(None, description="of its library, where that is installed")
    note: str | None = Field(None, description="why it is not available, with what mends that; or what it reaches")


class AgentsView(View):
    """The answer to list_agents."""

    agents: list[AgentView]
    tools: list[ToolView]
    engines: list[EngineView]
    disabled_tools: dict[str, str] = Field({}, description="tools that are off, and how to enable them")
    note: str | None = Field(None, description="whose agents these are, where several servers drive the database")
