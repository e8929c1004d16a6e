"""What a task tells of the language models that work on it: the parameter `agent`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

OPTIONS = "agent"
"""The parameter of a task that holds AgentOptions; its other parameters are data for the model."""
OBJECTIVE = "objective"
"""The parameter that says what to do, where the task's description does not."""

MAX_MEMBERS = 20

MemberName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_-]{0,63}$")]


class Member(BaseModel):
    """One of several agents that work on a task together."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: MemberName
    instructions: str | None = Field(None, description="What it is and how it works; its system prompt.")
    model: str | None = Field(None, description="Its model, such as openai/NAME. Absent: the task's.")
    tools: tuple[str, ...] | None = Field(None, description="Of the task's required_tools. Absent: all of them.")


class AgentOptions(BaseModel):
    """The parameter `agent` of a task that a language model works on; everything in it is optional."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    instructions: str | None = Field(None, description="How to work; the system prompt.")
    model: str | None = Field(None, description="Such as openai/NAME. Absent: the setting `model`.")
    temperature: float | None = Field(None, ge=0, le=2)
    max_turns: int | None = Field(None, ge=1, le=1000, description="Model calls. Absent: `model_max_turns`.")
    max_tokens: int | None = Field(None, ge=1, description="Tokens in all. Absent: `model_max_tokens`.")
    pattern: Literal["single", "graph", "swarm"] = Field("single", description="How several agents work together.")
    agents: tuple[Member, ...] = Field((), max_length=MAX_MEMBERS, description="Several agents on this one task.")
    edges: tuple[tuple[MemberName, MemberName], ...] = Field((), description="Of a graph: who hands on to whom.")
    entry: MemberName | None = Field(None, description="Of a graph or swarm: who begins. Absent: the first.")
    turn_strategy: Literal["popcorn", "moderated", "random", "round_robin", "most_busy"] | None = Field(
        None, description="Of several agents on ControlFlow: who is next."
    )
