"""One try of a task: render its parameters, let the agent work, check what comes back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ..agents.failures import kept_failure, kept_text
from ..agents.protocol import Agent, AttemptContext, Ending, TaskCall, traits_of
from ..agents.secrets import SecretVault
from ..agents.tool_agent import BuiltinToolAgent
from ..definition import NotJson, Scope, TaskNode, check_json, copy_json, misfits
from ..errors import AttemptError
from ..recovery.error_kinds import ErrorKinds
from ..store import StoredText
from .outcome import CutOff, Failed, Outcome, Succeeded
from .timers import Alarm, Timers

_T = TypeVar("_T")

CANCEL_AGAIN_S = 1.0


class Attempt:
    """An attempt under way. `end` cuts it off; the outcome of `run` is then CutOff.

    It runs in an asyncio task of its own and is ended by cancelling that: a cancel scope for each attempt would cost
    more than all the rest of a small one.
    """

    __slots__ = (
        "_alarm",
        "_is_cut_off",
        "_is_late",
        "_on_given_up",
        "_patience_s",
        "_task",
        "_timers",
        "agent",
        "context",
        "is_given_up",
        "node",
    )

    def __init__(self, node: TaskNode, agent: Agent, context: AttemptContext) -> None:
        self.node = node
        self.agent = agent
        self.context = context
        self._task: asyncio.Task[Any] | None = None
        self._alarm: Alarm | None = None
        self._is_cut_off = False
        self._is_late = False
        self.is_given_up = False
        """Whether it refused to end when its time was up, and is waited for no more."""

    def was_cut_off(self) -> bool:
        """Whether `end` was called."""
        return self._is_cut_off

    def end(self, why: Ending) -> None:
        """Cut the attempt off. Again, if it clings to life."""
        self._is_cut_off = True
        self._cancel(why)

    def _cancel(self, why: Ending) -> None:
        self.context.end(why)
        if self._task is not None:
            self._task.cancel()

    def _time_out(self) -> None:
        if self._is_late and self._patience_s <= 0:
            self.is_given_up = True
            self._on_given_up(self._cut_short())
            return
        self._is_late = True
        self._cancel(Ending.TIMED_OUT)
        pause_s = min(CANCEL_AGAIN_S, self._patience_s)  # some swallow a cancellation
        self._patience_s -= pause_s
        self._alarm = self._timers.after(pause_s, self._time_out)

    def _cut_short(self) -> Outcome:
        if self.was_cut_off():
            return CutOff()
        timeout_s = self.context.timeout_s
        message = f"The attempt took longer than timeout_s = {timeout_s:g} s."
        return Failed(kind="timeout", message=message, details={"timeout_s": timeout_s}, tool=self.context.tool)

    async def run(
        self,
        scope: Scope,
        *,
        about: Callable[[], dict[str, Any]],
        timers: Timers,
        vault: SecretVault,
        kinds: ErrorKinds,
        max_output_bytes: int,
        grace_s: float,
        on_given_up: Callable[[Outcome], None],
    ) -> Outcome:
        """Make the attempt. `about` tells an agent that is no tool what is around the task, as fields of TaskCall.

        Where it goes on for `grace_s` after its time was up, `on_given_up` is told its outcome, and what it comes to
        later is of no account. Never raises but on cancellation from outside."""
        if self.was_cut_off():  # before it began
            return CutOff()
        task = self._task = asyncio.current_task()
        timeout_s = self.context.timeout_s
        self._timers = timers
        self._patience_s = grace_s
        self._on_given_up = on_given_up
        self._alarm = timers.after(timeout_s, self._time_out) if timeout_s is not None else None
        try:
            return await self._work(scope, about, vault, kinds, max_output_bytes)
        except asyncio.CancelledError:
            if not (self.was_cut_off() or self._is_late):
                raise
            while task is not None and task.cancelling():
                task.uncancel()
            return self._cut_short()
        finally:
            self._task = None
            if self._alarm is not None:
                self._alarm.cancel()

    async def _work(
        self,
        scope: Scope,
        about: Callable[[], dict[str, Any]],
        vault: SecretVault,
        kinds: ErrorKinds,
        max_output_bytes: int,
    ) -> Outcome:
        node = self.node
        task = node.task
        is_builtin = isinstance(self.agent, BuiltinToolAgent)
        traits = traits_of(self.agent)
        try:
            if node.secrets and callable(traits.secrets):
                scope = scope.with_secrets(traits.secrets)
            parameters = node.parameters.render(scope)
            if parameters and not is_builtin:
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
                **(about() if traits.knows_surroundings else {}),
            )
            if node.secrets:
                vault.hand_over(self.agent, node.secrets)
            value = await self.agent.run(call, self.context)
            text = check_json(value, max_bytes=max_output_bytes)
            if vault.found_in(text):
                value = vault.mask(json.loads(text))
                text = check_json(value, max_bytes=max_output_bytes)
            if task.output_schema is not None:
                check_schema(task.output_schema, value)
        except NotJson as error:
            message = f"The output of agent {self.agent.name!r} cannot be kept: {error}."
            return Failed(kind="invalid", message=kept_text(message, vault))
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
        failure = kept_failure(error, vault, kinds)
        return Failed(kind=failure.kind, message=failure.message, details=failure.details, tool=self.context.tool)


def check_schema(schema: dict[str, Any] | bool, value: Any) -> None:
    """Check an output against its task's `output_schema`. Raises AttemptError of kind invalid, with the place."""
    found = misfits(schema, value)
    if found:
        raise AttemptError(
            f"The output does not fit output_schema at {found[0].path or 'the top'}: {found[0].message[:500]}",
            kind="invalid",
            details={"issues": [issue.as_dict() for issue in found]},
        )
