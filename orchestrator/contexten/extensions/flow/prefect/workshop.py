"""Where a worker makes attempts: its own settings, secrets and agents, without a database."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from ..agents.failures import kept_failure, kept_text
from ..agents.mcp import mcp_agents
from ..agents.protocol import Agent, AttemptContext, Json, TaskCall
from ..agents.registry import AgentRegistry
from ..agents.secrets import SecretVault
from ..agents.tool_agent import BuiltinToolAgent
from ..clock import Clock, SystemClock
from ..definition import NotJson, check_json
from ..definition.model import Task
from ..engines import EngineParts, Engines
from ..errors import AttemptError
from ..models.toolbox import Toolbox
from ..recovery.error_kinds import ErrorKinds
from ..recovery.kinds import AGENT_FAILURE, INVALID
from ..scheduling.rates import RateLimits
from ..settings import FlowSettings
from .connection import Connection
from .lifeline import Lifeline
from .payload import PoolAttempt, SecretReferences, Verdict
from .pieces import VERDICT, fetch, store

logger = logging.getLogger(__name__)


class Workshop:
    """The agents of a worker. Raises InvalidArguments where a secret cannot be kept."""

    def __init__(self, settings: FlowSettings, *, clock: Clock | None = None, agents: Any = None) -> None:
        self.settings = settings
        self.clock: Clock = clock or SystemClock()
        self.vault = SecretVault(settings)
        self._kinds = ErrorKinds(settings.error_kinds)
        builtin = BuiltinToolAgent(settings, self.clock, self.vault)
        self._registry = AgentRegistry(agents, builtin, mcp_agents(settings, self.vault, self.clock))
        limits = RateLimits(settings.rates)
        toolbox = Toolbox(
            self._registry, limits, self.clock, vault=self.vault, settings=settings, kinds=lambda: self._kinds
        )
        self._engines = Engines(
            EngineParts(settings=settings, clock=self.clock, vault=self.vault, registry=self._registry, toolbox=toolbox)
        )

    async def perform(
        self, connection: Connection, flow_run_id: UUID, text: str | None, pieces: Sequence[str] | None
    ) -> Verdict:
        """Make the attempt that a flow run holds in its parameters, tell of it while it is made, and leave the verdict
        with the flow run. Raises AttemptError where Prefect's API stays away."""
        try:
            attempt = PoolAttempt.parse(text if pieces is None else await fetch(connection, pieces))
        except AttemptError as error:
            verdict = Verdict(failure=error)
        else:
            lifeline = Lifeline(connection, flow_run_id, self.vault, lease_ttl_s=attempt.lease_ttl_s)
            async with lifeline:
                verdict = await self.make(attempt, lifeline.log, lifeline.record)
            verdict = replace(verdict, lines=lifeline.lines, usage=tuple(lifeline.usage))
        try:
            await store(connection, verdict.as_text(), VERDICT, flow_run_id=flow_run_id)
        except AttemptError as error:
            if error.kind != INVALID:
                raise
            verdict = Verdict(failure=error, lines=verdict.lines, usage=verdict.usage)
            await store(connection, verdict.as_text(), VERDICT, flow_run_id=flow_run_id)
        return verdict

    async def make(
        self,
        attempt: PoolAttempt,
        log: Callable[[str, str], None],
        record: Callable[[str, dict[str, Json]], None],
    ) -> Verdict:
        """Make the attempt. Never raises but on cancellation."""
        context = replace(attempt.context, log_sink=log, record_sink=record)
        limit = asyncio.timeout(context.timeout_s)  # whoever asked for the attempt may be gone
        try:
            async with limit:
                return Verdict(output=self._checked(await self._run(attempt, context)))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return Verdict(failure=AttemptError("The agent cancelled itself.", kind=AGENT_FAILURE), tool=context.tool)
        except Exception as error:  # noqa: BLE001 - whatever an agent raises is its attempt's failure
            late = AttemptError(f"The attempt took longer than timeout_s = {context.timeout_s} s.", kind="timeout")
            return Verdict(failure=self._failure(late if limit.expired() else error), tool=context.tool)

    async def _run(self, attempt: PoolAttempt, context: AttemptContext) -> Json:
        call = attempt.task
        await self._registry.ready(call.required_tools)
        agent = self._agent(call)
        names = frozenset().union(*call.secrets.values())
        if names:
            self.vault.hand_over(agent, names)
            references = SecretReferences(attempt.mark)
            call = replace(call, parameters=references.resolve(call.parameters, call.secrets, self.vault.value))
        return await agent.run(call, context)

    def _agent(self, call: TaskCall) -> Agent:
        """Who makes the attempt here. Raises AttemptError (invalid) where nobody is able."""
        task = Task(
            name=call.name,
            type=call.type,
            required_tools=call.required_tools,
            preferred_agent_type=call.preferred_agent_type,
            complexity=call.complexity,
        )
        staff = self._engines.staff(self.settings.worker_engine)
        agent = staff.select(task)
        if agent is not None:
            return agent
        disabled = self._registry.disabled_tools()
        off = [f"{tool} is off: {disabled[tool]}" for tool in call.required_tools if tool in disabled]
        told = "; ".join([*off, *([problem] if (problem := staff.problem(task)) else [])])
        raise AttemptError(
            f"The worker is not able to take the task: nobody there offers {', '.join(call.required_tools) or 'it'}"
            + (f" ({told})." if told else ". Workers have settings of their own: see docs/scale-out.md."),
            kind="invalid",
        )

    def _checked(self, value: Json) -> Json:
        text = check_json(value, max_bytes=self.settings.max_output_bytes)
        return self.vault.mask(json.loads(text)) if self.vault.found_in(text) else value

    def _failure(self, error: Exception) -> AttemptError:
        if isinstance(error, NotJson):
            return AttemptError(kept_text(f"The output cannot be kept: {error}.", self.vault), kind="invalid")
        return kept_failure(error, self.vault, self._kinds)

    async def aclose(self) -> None:
        """Close agents and engines."""
        await self._engines.aclose()
        await self._registry.aclose()
