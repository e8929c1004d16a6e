"""The tools of a process as something that a language model can call."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..agents.failures import kept_failure
from ..agents.protocol import AttemptContext, Json, TaskCall
from ..agents.registry import AgentRegistry
from ..agents.secrets import SecretVault
from ..clock import Clock
from ..definition import NotJson, check_json
from ..errors import AttemptError
from ..recovery.error_kinds import ErrorKinds
from ..recovery.kinds import VETOED
from ..scheduling.rates import RateLimits
from ..settings import FlowSettings
from .shortening import MAX_TOOL_OUTPUT, as_text, cut

MAX_SAFE_NAME = 64
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
_OPEN: dict[str, Any] = {"type": "object", "additionalProperties": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferedTool:
    """A tool as a model is told of it."""

    name: str
    safe_name: str
    """The name in the characters that model providers allow: letters, digits, `_` and `-`, at most 64."""
    description: str
    schema: dict[str, Any]
    """JSON Schema of its arguments, an object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a model is told of a call."""

    text: str
    is_error: bool


class Toolbox:
    """Calls tools by name on behalf of a model, whichever agent offers them. What they give and what went wrong leave
    it without secrets: a model says to others what it is told.

    A call takes no place of the agent that serves it: the attempt that makes it holds one of its own already.
    """

    def __init__(
        self,
        registry: AgentRegistry,
        limits: RateLimits,
        clock: Clock,
        *,
        vault: SecretVault,
        settings: FlowSettings,
        kinds: Callable[[], ErrorKinds],
    ) -> None:
        """`kinds` gives what errors are called now."""
        self._registry = registry
        self._limits = limits
        self._clock = clock
        self._vault = vault
        self._denied = frozenset(settings.model_deny_tools)
        self._max_output_bytes = settings.max_output_bytes
        self._kinds = kinds

    def offer(self, names: Sequence[str]) -> list[OfferedTool]:
        """The tools of those names. Raises AttemptError of kind invalid for one that nobody offers."""
        specs = self._registry.tool_specs()
        offered: list[OfferedTool] = []
        for name in dict.fromkeys(names):
            if self._registry.offering(name) is None:
                hint = self._registry.disabled_tools().get(name, "list_agents() shows the tools that there are")
                raise AttemptError(f"The tool {name!r} is not available: {hint}.", kind="invalid")
            spec = specs.get(name)
            offered.append(
                OfferedTool(
                    name=name,
                    safe_name=safe_name(name),
                    description=spec.description if spec is not None else "",
                    schema=(spec.json_schema() if spec is not None else None) or _OPEN,
                )
            )
        return offered

    async def answer(self, name: str, arguments: dict[str, Json], context: AttemptContext) -> Reply:
        """Call a tool, for a model to be told: what it gave, or why it failed; the model may do better or without."""
        try:
            text, is_error = as_text(await self.call(name, arguments, context)), False
        except AttemptError as error:
            text, is_error = f"{error.kind}: {error.message}", True
        return Reply(text=cut(text, MAX_TOOL_OUTPUT), is_error=is_error)

    async def call(self, name: str, arguments: dict[str, Json], context: AttemptContext) -> Json:
        """Call a tool; its output, masked. The journal is told. Raises AttemptError: of kind `vetoed` where the
        settings deny the tool to models, of any other kind where it failed."""
        if name in self._denied:
            reason = "the settings deny it to models (MODEL_DENY_TOOLS)"
            context.record("task.tool_vetoed", {"tool": name, "reason": reason})
            raise AttemptError(f"The tool {name!r} was not called: {reason}.", kind=VETOED)
        agent = self._registry.offering(name)
        if agent is None:
            raise AttemptError(f"The tool {name!r} is not available.", kind="invalid")
        await self._take_token(name)
        call = TaskCall(
            name=context.task,
            type="tool",
            description=None,
            required_tools=(name,),
            parameters=arguments,
            complexity=1,
            preferred_agent_type=None,
        )
        begun = self._clock.monotonic()
        told: dict[str, Json] = {"tool": name, "arguments": arguments, "ok": False}
        try:
            output = self._checked(name, await agent.run(call, replace(context)))
            told["ok"] = True
        except Exception as error:  # noqa: BLE001 - agents given from Python raise anything
            failure = kept_failure(error, self._vault, self._kinds())
            told["error"] = {"kind": failure.kind, "message": failure.message}
            raise failure from None
        finally:
            told["ms"] = round((self._clock.monotonic() - begun) * 1000, 1)
            context.record("task.tool_called", told)
        return output

    def _checked(self, name: str, output: Json) -> Json:
        """The output as JSON data without secrets. Raises AttemptError (invalid) where it cannot be that."""
        try:
            text = check_json(output, max_bytes=self._max_output_bytes)
        except NotJson as error:
            raise AttemptError(f"The output of {name!r} cannot be passed on: {error}.", kind="invalid") from None
        return self._vault.mask(json.loads(text))

    async def _take_token(self, name: str) -> None:
        """Wait until the tool's rate limit has a token, and take it."""
        while (late := self._limits.next_token((name,), self._clock.monotonic())) is not None:
            await self._clock.sleep(late[1] - self._clock.monotonic())
        self._limits.take((name,), self._clock.monotonic())


def safe_name(name: str) -> str:
    """The tool's name in the characters that model providers allow; unique where the name is."""
    safe = _UNSAFE.sub("_", name)
    if safe == name and len(name) <= MAX_SAFE_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:6]
    return f"{safe[: MAX_SAFE_NAME - 7]}_{digest}"
