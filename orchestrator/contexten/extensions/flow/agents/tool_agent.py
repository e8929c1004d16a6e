"""The built-in tool agent: the tools that a task requires, run as a pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pydantic

from ..clock import Clock
from ..definition.pointers import pointer
from ..errors import AttemptError
from ..settings import FlowSettings
from .protocol import AttemptContext, Json, TaskCall, Traits
from .reserved import BUILTIN
from .secrets import SecretVault
from .tools import (
    ABSENT,
    Absent,
    Tool,
    ToolEnvironment,
    ToolParameters,
    builtin_tools,
    disabled_tools,
)

_PLANS_KEPT = 1024


class _Step:
    """One tool of a pipeline, and the JSON names that its parameter model knows."""

    __slots__ = ("names", "tool")

    def __init__(self, tool: Tool[Any]) -> None:
        self.tool = tool
        self.names = frozenset(field.alias or name for name, field in tool.parameters.model_fields.items())


class _Plan:
    """A pipeline, made once for each combination of tools."""

    __slots__ = ("names", "steps")

    def __init__(self, steps: tuple[_Step, ...]) -> None:
        self.steps = steps
        self.names = frozenset().union(*(step.names for step in steps))


class BuiltinToolAgent:
    """Runs built-in tools.

    The first tool of a task gets the task's parameters, each next one the output before it and the parameters; each
    gets only those that its model knows. Without tools the parameters are the output.
    """

    name = BUILTIN
    agent_type = "tool"
    traits = Traits(secrets="own")

    def __init__(
        self,
        settings: FlowSettings,
        clock: Clock,
        vault: SecretVault | None = None,
        *,
        tools: Mapping[str, Tool[Any]] | None = None,
    ) -> None:
        self.capacity = settings.tool_capacity
        self.builtin_tools: dict[str, Tool[Any]] = dict(builtin_tools(settings) if tools is None else tools)
        self.disabled_tools = disabled_tools(settings)
        """Tools that the settings keep off, with what enables each."""
        self.tools: Sequence[str] = tuple(self.builtin_tools)
        self._environment = ToolEnvironment(
            settings=settings, clock=clock, vault=SecretVault(settings) if vault is None else vault
        )
        self._plans: dict[tuple[str, ...], _Plan] = {}

    async def run(self, task: TaskCall, context: AttemptContext) -> Json:
        """Raises AttemptError: `invalid` where the parameters do not fit, or a secret is not granted to a tool."""
        if not task.required_tools:
            return task.parameters
        plan = self._plans.get(task.required_tools) or self._make_plan(task.required_tools)
        calls = self._check(plan, task)
        previous: Json | Absent = ABSENT
        for step, parameters, secret_names in calls:
            context.tool = step.tool.name
            environment = self._environment
            if secret_names:
                environment = replace(environment, secret_names=secret_names)
            previous = await step.tool.run(parameters, previous, context, environment)
            if secret_names and step is not plan.steps[-1]:  # what comes back may repeat one: it goes no further
                previous = environment.vault.mask(previous)
        return previous

    def _make_plan(self, names: tuple[str, ...]) -> _Plan:
        for name in names:
            if name not in self.builtin_tools:
                hint = self.disabled_tools.get(name)
                known = ", ".join(sorted(self.builtin_tools))
                reason = f"it is off: {hint}" if hint else f"the built-in tools are {known}"
                raise AttemptError(f"The tool {name!r} is not available; {reason}.", kind="invalid")
        plan = _Plan(tuple(_Step(self.builtin_tools[name]) for name in names))
        if len(self._plans) < _PLANS_KEPT:
            self._plans[names] = plan
        return plan

    def _check(self, plan: _Plan, task: TaskCall) -> list[tuple[_Step, ToolParameters, frozenset[str]]]:
        """The call of each tool, all checked before the first one runs."""
        issues: list[dict[str, str]] = [
            {"path": pointer("parameters", name), "message": f"no tool of this task takes {name!r}"}
            for name in task.parameters
            if name not in plan.names
        ]
        calls: list[tuple[_Step, ToolParameters, frozenset[str]]] = []
        given = [{name: task.parameters[name] for name in task.parameters if name in step.names} for step in plan.steps]
        for step, parameters in zip(plan.steps, given, strict=True):
            names = frozenset().union(*(task.secrets.get(name, ()) for name in parameters))
            self._environment.vault.require(names, tools=(step.tool.name,), receiver=f"the tool {step.tool.name}")
            try:
                calls.append((step, step.tool.parameters.model_validate(parameters), names))
            except pydantic.ValidationError as error:
                issues += _issues(step, error)
        if issues:
            shown = "; ".join(f"{issue['path'].lstrip('/')}: {issue['message']}" for issue in issues[:5])
            more = f"; and {len(issues) - 5} more" if len(issues) > 5 else ""
            raise AttemptError(
                self._environment.vault.mask(f"The parameters do not fit: {shown}{more}."),
                kind="invalid",
                details={"issues": self._environment.vault.mask(issues)},
            )
        return calls

    async def reinitialize(self) -> None:
        """Close what the tools hold, such as connections; the next call makes it anew."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close what the tools hold; a call after that opens it again."""
        for tool in self.builtin_tools.values():
            await tool.aclose()


def _issues(step: _Step, error: pydantic.ValidationError) -> list[dict[str, str]]:
    issues: list[dict[str, str]] = []
    for problem in error.errors(include_url=False, include_context=False, include_input=False):
        message = problem["msg"].removeprefix("Value error, ")
        path = pointer("parameters", *problem["loc"])
        if problem["type"] == "missing":
            message = f"missing; {step.tool.name} needs it"
        issues.append({"path": path, "message": message})
    return issues
