"""What the checker is told of the process that a definition is meant for: its tools, agents, secrets and flows.

Plain data, handed in: the checker asks nobody. Whoever owns tools and agents fills in a `Catalog`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

from pydantic import BaseModel

from ..errors import Issue


class ParameterHook(Protocol):
    """Looks at the parameters of a task as they are written, templates still in place."""

    def __call__(self, parameters: Mapping[str, Any], /) -> Sequence[Issue]:
        """Warnings about them; an issue's `path` is a JSON Pointer relative to the parameters (`/url`)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSpec:
    """One tool as a definition may name it in `required_tools`."""

    name: str
    description: str = ""
    parameters: type[BaseModel] | None = None
    """The model of its parameters; field names (or aliases) are the JSON names."""
    schema: Mapping[str, Any] | None = None
    """Their JSON Schema, where no model of ours describes them. With neither their shape is unknown."""
    is_alone: bool = False
    """No pipeline: a task that the tool serves requires no other."""
    piped: frozenset[str] = frozenset()
    """Parameters that default to the output of the tool before it in a pipeline, such as `text` or `data`."""
    code: frozenset[str] = frozenset()
    """Parameters that are programs, such as queries: parsed when they are checked, so bounded in all."""
    warnings: ParameterHook | None = None
    """Called for each task that the built-in agent will serve with this tool."""

    def json_schema(self) -> dict[str, Any] | None:
        """The JSON Schema of its parameters; None where their shape is unknown."""
        if self.parameters is not None:
            return self.parameters.model_json_schema(by_alias=True)
        return None if self.schema is None else dict(self.schema)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSpec:
    """One agent as the checker matches tasks with it."""

    name: str
    agent_type: str
    tools: Sequence[str] = ()
    builtin: bool = False
    """True for agents of ours, whose tools take the parameters that `Catalog.tools` tells."""
    is_model: bool = False
    """True for a language model given from Python: it takes tasks of type agent, and no plain tool's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """Everything outside the definition that decides whether it can run here."""

    tools: Mapping[str, ToolSpec] = field(default_factory=lambda: MappingProxyType({}))
    """Tools whose parameters are known, by name. A tool that only an agent offers need not be here."""
    agents: Sequence[AgentSpec] = ()
    reason_without: Callable[[str], str | None] | None = None
    """Why a tool that nobody offers is not there now, where that is known."""
    has_model: bool = False
    """Whether a language model is configured: for tasks of type agent, and free-text ones on engines that use it."""
    secrets: frozenset[str] = frozenset()
    """Names that the settings grant as `secrets.<NAME>`."""
    kinds: frozenset[str] = frozenset()
    """Kinds of errors that recovery strategies or rules of this process name."""
    flows: Callable[[str], object] | None = None
    """Looks a flow up for `type: flow`: its latest WorkflowDefinition, or None. Absent: sub-flows are not looked up."""
    flow_ids: Callable[[], Iterable[str]] | None = None
    """The ids of saved flows, for did-you-mean; asked only when one is not found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How large a definition may be. The defaults are those of the settings."""

    max_definition_bytes: int = 1 << 20
    """Of the definition as compact JSON, in UTF-8."""
    max_tasks: int = 1000
    max_for_each_items: int = 10_000
    """Of a for_each; the executor holds evaluated lists to it, the checker literal ones."""
