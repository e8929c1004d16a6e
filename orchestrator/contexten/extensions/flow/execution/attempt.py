"""One try of a task: render its parameters, let the agent work, check what comes back."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

from ..agents.protocol import Agent, AttemptContext, TaskCall
from ..agents.secrets import SecretVault
from ..agents.tool_agent import BuiltinToolAgent
from ..definition import NotJson, Scope, TaskNode, check_json, copy_json, misfits
from ..errors import AttemptError
from ..recovery.error_kinds import ErrorKinds
from ..store import StoredText
from .outcome import CutOff, Failed, Outcome, Succeeded
from .timers import Alarm, Timers

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

MAX_MESSAGE = 4000  # characters of an error's message: what a journal entry and a reader can use
CANCEL_AGAIN_S = 1.0
MAX_DETAILS = 16_000  # bytes of what it carries besides


class Attempt:
    """An attempt under way. `end` cuts it off; the outcome of `run` is then CutOff.

    It runs in an asyncio task of its own and is ended by cancelling that: a cancel scope for each attempt would cost
    more than all the rest of a small one.
    """

    __slots__ = ("_alarm", "_is_cut_off", "_is_late", "_task", "_timers", "agent", "context", "node")

    def __init__(self, node: TaskNode, agent: Agent, context: AttemptContext) -> None:
        self.node = node
        self.agent = agent
        self.context = context
        self._task: asyncio.Task[Any] | None = None
        self._alarm: Alarm | None = None
        self._is_cut_off = False
        self._is_late = False

    def was_cut_off(self) -> bool:
        """Whether `end` was called."""
        return self._is_cut_off

    def end(self) -> None:
        """Cut the attempt off. Again, if it clings to life."""
        self._is_cut_off = True
        if self._task is not None:
            self._task.cancel()

    def _time_out(self) -> None:
        self._is_late = True
        if self._task is not None:
            self._task.cancel()
            self._alarm = self._timers.after(CANCEL_AGAIN_S, self._time_out)  # some swallow a cancellation

    async def run(
        self, scope: Scope, *, timers: Timers, vault: SecretVault, kinds: ErrorKinds, max_output_bytes: int
    ) -> Outcome:
        """Make the attempt. Never raises but on cancellation from outside."""
        if self.was_cut_off():  # before it began
            return CutOff()
        task = self._task = asyncio.current_task()
        timeout_s = self.context.timeout_s
        self._timers = timers
        self._alarm = timers.after(timeout_s, self._time_out) if timeout_s is not None else None
        try:
            return await self._work(scope, vault, kinds, max_output_bytes)
        except asyncio.CancelledError:
            if not (self.was_cut_off() or self._is_late):
                raise
            while task is not None and task.cancelling():
                task.uncancel()
            if self.was_cut_off():
                return CutOff()
            message = f"The attempt took longer than timeout_s = {timeout_s:g} s."
            return Failed(kind="timeout", message=message, details={"timeout_s": timeout_s}, tool=self.context.tool)
        finally:
            self._task = None
            if self._alarm is not None:
                self._alarm.cancel()

    async def _work(self, scope: Scope, vault: SecretVault, kinds: ErrorKinds, max_output_bytes: int) -> Outcome:
        node = self.node
        task = node.task
        try:
            parameters = node.parameters.render(scope)
            if parameters and not isinstance(self.agent, BuiltinToolAgent):
                parameters = copy_json(parameters)  # a stranger may change what it is given
            call = TaskCall(
                name=node.name,
                type=task.type,
                description=task.description,
                required_tools=task.required_tools,
                parameters=parameters,
                complexity=task.complexity,
                preferred_agent_type=task.preferred_agent_type,
                output_schema=task.output_schema,
                secrets=node.parameter_secrets,
            )
            if node.secrets and not isinstance(self.agent, BuiltinToolAgent):  # that one asks for each tool itself
                vault.require(node.secrets, tools=self.agent.tools, receiver=f"agent {self.agent.name}")
            value = await self.agent.run(call, self.context)
            text = check_json(value, max_bytes=max_output_bytes)
            if vault.found_in(text):
                value = vault.mask(json.loads(text))
                text = check_json(value, max_bytes=max_output_bytes)
            if task.output_schema is not None:
                check_schema(task.output_schema, value)
        except NotJson as error:
            message = f"The output of agent {self.agent.name!r} cannot be kept: {error}."
            return Failed(kind="invalid", message=vault.mask(message)[:MAX_MESSAGE])
        except asyncio.CancelledError:
            if self._task is not None and self._task.cancelling():
                raise
            return Failed(kind="agent_failure", message=f"The agent {self.agent.name!r} cancelled itself.")
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever an agent raises is its attempt's failure
            return self._failure(error, vault, kinds)
        return Succeeded(text=StoredText.of(text))

    async def follow_up(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Do what follows a failure; `end` cancels that too."""
        self._task = asyncio.current_task()
        try:
            return await work
        finally:
            self._task = None

    def _failure(self, error: BaseException, vault: SecretVault, kinds: ErrorKinds) -> Failed:
        kind = kinds.classify(error)
        if isinstance(error, AttemptError):
            message = kept_text(error.message, vault)
            details = _details(vault.mask(error.details))
            return Failed(kind=kind, message=message, details=details, tool=self.context.tool)
        logger.debug(
            "attempt failed",
            extra={"action": "attempt_failed", "run_id": self.context.run_id, "task": self.context.task},
        )
        name, text = type(error).__name__, kept_text(error, vault)
        message = (f"{name}: {text}" if text else name)[:MAX_MESSAGE]
        return Failed(kind=kind, message=message, tool=self.context.tool)


def kept_text(value: object, vault: SecretVault) -> str:
    """What a stranger says, masked, as text that can be kept."""
    try:
        text = str(value)
    except Exception:  # noqa: BLE001 - `__str__` of a stranger may raise anything
        return ""
    return str(vault.mask(text)).encode("utf-8", "replace").decode()[:MAX_MESSAGE]


def _details(details: Any) -> dict[str, Any] | None:
    if details is None:
        return None
    try:
        check_json(details, max_bytes=MAX_DETAILS)
    except NotJson:
        return None
    return details if isinstance(details, dict) else None


def check_schema(schema: dict[str, Any] | bool, value: Any) -> None:
    """Check an output against its task's `output_schema`. Raises AttemptError of kind invalid, with the place."""
    found = misfits(schema, value)
    if found:
        raise AttemptError(
            f"The output does not fit output_schema at {found[0].path or 'the top'}: {found[0].message[:500]}",
            kind="invalid",
            details={"issues": [issue.as_dict() for issue in found]},
        )
