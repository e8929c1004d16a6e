"""The core of a database in a process: its parts put together, opened, driven, and closed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio

from .agents.registry import AgentRegistry
from .agents.secrets import SecretVault
from .agents.tool_agent import BuiltinToolAgent
from .answers import Answers
from .clock import Clock, SystemClock
from .errors import Closing
from .estimates import Estimates
from .execution.conductor import Conductor
from .executor import FlowExecutor
from .explaining import RunExplainer
from .feed import Feed
from .flows import Flows
from .forecast import Forecast
from .housekeeping import keep_pruned
from .obstacles import Obstacles
from .overview import Overview
from .plans import Plans
from .postmortem import Postmortem
from .rates import RateLimits
from .recovery.circuits import Circuits
from .recovery.error_kinds import ErrorKinds
from .recovery.retry import RetryPolicy
from .recovery.rules import RecoveryRules
from .runs import Runs
from .scheduling import Scheduling
from .settings import FlowSettings
from .store import Event, Store
from .store.servers import drivers_of
from .watching import Watchers

logger = logging.getLogger(__name__)

_RESCHEDULING = frozenset({"scheduler.changed", "server.started"})  # the first server puts its settings in force


class Core:
    """Opens the database and drives its runs. `async with` owns it."""

    def __init__(
        self,
        settings: FlowSettings | None = None,
        *,
        agents: Any = None,
        drive: bool = True,
        clock: Clock | None = None,
        holder: str = "python",
        executor: FlowExecutor | None = None,
    ) -> None:
        """`drive=False` opens the store for questions and requests only: no run is executed. Any number of processes
        may drive one database; `holder` tells people which this is.

        Raises TypeError where `agents` are none, InvalidArguments where a secret cannot be kept.
        """
        self.settings = settings or FlowSettings()
        self.clock: Clock = clock or SystemClock()
        self.vault = SecretVault(self.settings)
        self.registry = AgentRegistry(agents, BuiltinToolAgent(self.settings, self.clock, self.vault))
        self._drives = drive
        self._holder = holder
        self._rules = RecoveryRules(
            retry=RetryPolicy(max_attempts=self.settings.max_retries + 1, delay_s=self.settings.retry_delay_s),
            kinds=ErrorKinds(self.settings.error_kinds),
        )
        self._conductor: Conductor | None = None
        if executor is not None:
            self.set_executor(executor)
        self._circuits = Circuits(self.settings.circuit_failures, self.settings.circuit_open_s)
        self._limits = RateLimits(self.settings.rates)
        self._watchers = Watchers()
        self._store = Store(self.settings.database, durability=self.settings.durability)
        self._answers = Answers(self._store, self.clock, self._note)
        self._feed = Feed(
            store=self._store,
            clock=self.clock,
            answers=self._answers,
            watchers=self._watchers,
            on_foreign=self._heed,
        )
        self._store.on_commit = self._feed.committed
        self._plans = Plans(self._store)
        self._scheduling = Scheduling(self._store, self.settings, self.clock)
        self._estimates = Estimates(self._store, self.clock)
        self.registry.placement = self._scheduling.place
        self._flows = Flows(
            store=self._store,
            registry=self.registry,
            vault=self.vault,
            settings=self.settings,
            clock=self.clock,
            answers=self._answers,
            plans=self._plans,
        )
        self._runs = Runs(
            store=self._store,
            answers=self._answers,
            flows=self._flows,
            plans=self._plans,
            registry=self.registry,
            scheduling=self._scheduling,
            estimates=self._estimates,
            settings=self.settings,
            clock=self.clock,
            watchers=self._watchers,
        )
        self._forecast = Forecast(
            self._store,
            estimates=self._estimates,
            plans=self._plans,
            scheduling=self._scheduling,
            settings=self.settings,
            clock=self.clock,
        )
        self._overview = Overview(
            self._store,
            self._answers,
            self.registry,
            self._scheduling,
            circuits=self._circuits,
            limits=self._limits,
            clock=self.clock,
        )
        obstacles = Obstacles(self._store, self._answers, self.registry, self._scheduling, self._forecast, self._owner)
        postmortem = Postmortem(self._store, lambda: self._rules.retry)
        self._explainer = RunExplainer(self._answers, self.registry, obstacles, postmortem, self._holds)
        self._stack = AsyncExitStack()
        self._is_open = False
        self._must_recall = False
        """Whether another process changed the strategy or the limits and that was not read yet."""

    # Opening and closing
    async def __aenter__(self) -> Self:
        """Raises StoreBusy, StoreReadOnly, StoreCorrupt, StoreTooNew or StoreError where the database cannot be
        used."""
        async with AsyncExitStack() as stack:
            await self._store.open(drives=self._drives)
            stack.push_async_callback(_shielded, self._store.close)
            stack.push_async_callback(_shielded, self.registry.aclose)
            await self._scheduling.recall()
            await self._feed.begin()
            group = await stack.enter_async_context(asyncio.TaskGroup())
            self._watchers.are_closed = False
            self._is_open = True
            stack.push_async_callback(_shielded, self._stop)
            if self._drives:
                await self._scheduling.settle_limits()
                await self._scheduling.settle()
                await self._drive(group)
                stack.callback(
                    group.create_task(
                        keep_pruned(self._store, self.settings, self.clock, self._forget), name="prune"
                    ).cancel
                )
            stack.callback(group.create_task(self._feed.follow(), name="follow").cancel)
            self._stack = stack.pop_all()
        return self

    async def _drive(self, group: asyncio.TaskGroup) -> None:
        conductor = Conductor(
            settings=self.settings,
            clock=self.clock,
            store=self._store,
            plans=self._plans,
            registry=self.registry,
            vault=self.vault,
            rules=self._rules,
            circuits=self._circuits,
            limits=self._limits,
            scheduling=self._scheduling,
            holder=self._holder,
            group=group,
        )
        self._conductor = self._runs.conductor = self._feed.conductor = conductor
        await conductor.start()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop within `stop_grace_s`; unfinished runs go on in another server, or at the next start."""
        stack, self._stack = self._stack, AsyncExitStack()
        await stack.aclose()

    async def _stop(self) -> None:
        self._is_open = False
        if self._conductor is not None:
            await self._conductor.stop()
            self._conductor = self._runs.conductor = self._feed.conductor = None
        self._watchers.close()

    @property
    def database(self) -> Path:
        """The database's file."""
        return self._store.path

    @property
    def is_open(self) -> bool:
        """Whether it takes work."""
        return self._is_open

    def add_agents(self, agents: Any) -> None:
        """Take more agents; they merge with the others by name. Raises TypeError or ValueError."""
        self.registry.add(agents)
        if self._conductor is not None:
            self._conductor.agents_changed()

    def set_executor(self, executor: FlowExecutor) -> None:
        """From now on what is done about failures, and how often tasks without `retry` are tried."""
        self._rules = executor.rules(self.settings.error_kinds)
        if self._conductor is not None:
            self._conductor.rules = self._rules

    def balance_load(self) -> None:
        """From now on tasks go to the least loaded able agent under every strategy."""
        self._scheduling.balances_load = True

    def _check_open(self) -> None:
        if not self._is_open:
            raise Closing("The service is closed or closing.", next="Send the call again when the server is back.")

    def _holds(self, run_id: str) -> dict[str, str]:
        return self._conductor.holds(run_id) if self._conductor is not None else {}

    def _owner(self) -> str | None:
        return self._conductor.owner if self._conductor is not None else None

    def _note(self) -> str | None:
        if self._conductor is None and not drivers_of(self._store.path):
            return "no server runs on this database; the run goes on when one starts"
        return None

    async def _heed(self, events: list[Event]) -> None:
        """Another process wrote these entries: forget what they make untrue. Raises StoreError where it is to be called
        again."""
        for event in events:
            if event.type == "flow.updated" and event.flow_id is not None:
                self._flows.forget(event.flow_id)
            elif event.type == "flow.pruned" and event.flow_id is not None:
                self._forget([event.flow_id])
        self._must_recall |= any(event.type in _RESCHEDULING for event in events)
        if self._must_recall:
            await self._scheduling.recall()
            self._must_recall = False
            self._look_again()

    def _look_again(self) -> None:
        if self._conductor is not None:
            self._conductor.kick()

    def _forget(self, flow_ids: list[str]) -> None:
        """These flows are gone; their ids may become others'."""
        for flow_id in flow_ids:
            self._flows.forget(flow_id)
            self._plans.forget(flow_id)


async def _shielded(farewell: Callable[[], Awaitable[None]]) -> None:
    """Each farewell is bounded in time itself."""
    with anyio.CancelScope(shield=True):
        await farewell()
